"""TensorBoard's rows of a run, each once, however often the run was killed and gone on with."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from google.protobuf.message import DecodeError
from stable_baselines3.common.logger import TensorBoardOutputFormat
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import masked_crc32c
from torch.utils.tensorboard import SummaryWriter


class ContinuedTensorBoard(TensorBoardOutputFormat):
    """TensorBoard from a step on: what a killed run wrote after its last checkpoint is taken back.

    Args:
        folder: the run's.
        timesteps: those of the checkpoint, 0 where there is none.
    """

    def __init__(self, folder: Path, timesteps: int) -> None:
        # The rows go from the files, and a TensorBoard that has read them already is told to forget them.
        again = cut_events(folder, timesteps)
        self.writer = SummaryWriter(str(folder), purge_step=timesteps + 1 if again else None)
        self._is_closed = False


def cut_events(folder: Path, timesteps: int) -> bool:
    """Cuts off the rows of later steps, and a row that was not written to its end.

    Returns:
        Whether there was a file of the run's.
    """
    # Those of an evaluation have a suffix in place of the last number.
    files = [file for file in folder.glob("events.out.tfevents.*") if file.suffix[1:].isdigit()]
    for file in files:
        end = _end_of_rows(file, timesteps)
        if end == 0:
            file.unlink()
        elif end < file.stat().st_size:
            os.truncate(file, end)
    return bool(files)


def _end_of_rows(path: Path, timesteps: int) -> int:
    """Bytes up to the first row of a later step, or to one that was not written to its end.

    A record is the length of its data (8 bytes), a checksum of the length (4), the data and its checksum (4).
    Where one is damaged, nobody can read on; what follows is left as it is.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        while len(header := file.read(12)) == 12:
            end = file.tell() - len(header)
            length, checksum = struct.unpack("<QI", header)
            if checksum != masked_crc32c(header[:8]):
                return size
            if length + 4 > size - file.tell():
                return end
            data = file.read(length + 4)
            if struct.unpack("<I", data[-4:])[0] != masked_crc32c(data[:-4]):
                return size
            try:
                if Event.FromString(data[:-4]).step > timesteps:
                    return end
            except DecodeError:
                return size
    return size - len(header)
