"""Reads run folders of which one file is mutated: each command shows the run or says in a line why not.

    taskset -c 1 nice python benchmarks/fuzz_runs.py [--files 20000] [--seed 0]

As `fuzz_checkpoints.py` does it, for the other files of a run: its config, TensorBoard's, the results of
`evaluate` and `horizon`, a published curve. The commands are `compare`, `report`, `evaluate --reuse` and
`horizon --reuse`, and what `train --resume` does to TensorBoard's files.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import struct
import zlib
from pathlib import Path

from fuzz_checkpoints import DAMAGES, change_json, main
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.summary.writer.record_writer import masked_crc32c

from memspan import cli
from memspan.evaluation.curves import TAGS
from memspan.runs.events import cut_events

TRAINING = [
    *("--memory", "lstm", "--n-envs", "2", "--n-steps", "8", "--width", "4", "--env.max-length", "5"),
    *("--n-epochs", "1", "--n-minibatches", "1", "--total-timesteps", "64", "--stats-window-size", "3"),
]
CONFIG, EVENTS, EVALUATION, HORIZON, CURVE = "config", "events", "evaluation", "horizon", "curve"


class Runs:
    """A run's folder, its files, and how they are read."""

    def __init__(self, folder: Path) -> None:
        self.place = folder
        self.run(["train", "--run-dir", str(folder), *TRAINING])
        (self.folder,) = folder.glob("*/*/0")
        few = ["--episodes", "4", "--n-envs", "2", "--device", "cpu"]
        self.run(["evaluate", str(self.folder), *few])
        self.run(["horizon", str(self.folder), *few])
        self.curve = self.folder / "curve.csv"
        rows = [f"{16 * n},{n / 10},{n},{n / 10}" for n in range(6)]
        paths = {
            CONFIG: self.folder / "config.yaml",
            EVALUATION: self.folder / "evaluation.json",
            HORIZON: self.folder / "horizon.json",
            EVENTS: next(path for path in self.folder.glob("events.*") if path.suffix[1:].isdigit()),
        }
        self.paths = paths | {CURVE: self.curve}
        self.files = {kind: path.read_bytes() for kind, path in paths.items()}
        head = "timesteps,success_rate,effective_memory,mean_return"
        self.files[CURVE] = "\n".join([head, *rows, ""]).encode()

    def run(self, args: list[str]) -> int:
        """A command, without what it says; the exit code.

        Raises:
            ValueError: it has refused.
        """
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = cli.main(args)
        if code == cli.WRONG_USE:
            raise ValueError(said.getvalue().strip())
        return code

    def read(self, kind: str, data: bytes) -> None:
        """By one of the commands; raises ValueError for what is refused."""
        for one, path in self.paths.items():
            if one != CURVE or kind == CURVE:
                path.write_bytes(data if one == kind else self.files[one])
        run, out = str(self.folder), self.place / "out"
        match zlib.crc32(data) % 4:
            case 0:
                self.run(["compare", run, "--write-only", "--logdir", str(out)])
            case 1:
                self.run(["report", run, "--no-lens", "-o", str(self.place / "out.html")])
            case 2:
                self.run(["evaluate", run, "--reuse"])
            case 3 if kind == HORIZON:
                self.run(["horizon", run, "--reuse"])
            case _ if kind == EVENTS:
                cut_events(self.folder, 32)
            case _:
                self.run(["compare", run, "--write-only", "--logdir", str(out)])
        self.curve.unlink(missing_ok=True)

    def mutated(self, number: int, seed: int) -> tuple[str, str, bytes]:
        """File `number`: what it is, what was done to it, and its bytes."""
        draw = random.Random(f"{seed} {number}")
        kind = draw.choice([CONFIG, EVENTS, EVALUATION, HORIZON, CURVE])
        data = self.files[kind]
        if kind != CURVE and draw.random() < 0.5:
            change = {CONFIG: change_config, EVENTS: change_events}.get(kind, change_result)
            return kind, "other values", change(data, draw)
        way = draw.choice([*DAMAGES])
        for _ in range(draw.choice([1, 1, 1, 2, 10])):
            data = DAMAGES[way](data, draw)
        return kind, way, data


def change_result(data: bytes, draw: random.Random) -> bytes:
    """Valid JSON of another content."""
    return json.dumps(change_json(json.loads(data), draw)).encode()


def change_config(data: bytes, draw: random.Random) -> bytes:
    """Another value on a line, as YAML has many."""
    lines = data.decode().splitlines()
    place = draw.randrange(len(lines))
    value = draw.choice(
        [
            *("", "null", "-1", "1e999", ".nan", "!!python/object:os.system x", "&a [*a]", "*b", "[" * 500),
            *("{" * 200, "9" * 5000, "1:" * 900 + "1", "../../x", "2001-01-01", "!!binary aaaa", "? x", "|"),
            *("{a: {a: {a: {a: {a: {a: {a: {a: {a: {a: 1}}}}}}}}}}", "<<: {a: 1}", "'", "\x07", "x" * 5000),
            "&a {k: 1}\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]",
        ]
    )
    lines[place] = f"{lines[place].partition(':')[0]}: {value}"
    return "\n".join(lines).encode()


def record(data: bytes, length: int | None = None) -> bytes:
    """As TensorBoard writes it, with the right checksums."""
    head = struct.pack("<Q", len(data) if length is None else length)
    return head + struct.pack("<I", masked_crc32c(head)) + data + struct.pack("<I", masked_crc32c(data))


def change_events(data: bytes, draw: random.Random) -> bytes:
    """A record more, somewhere between others, that no training writes."""
    ends, place = [0], 0
    while place < len(data):
        place += 16 + struct.unpack("<Q", data[place : place + 8])[0]
        ends.append(place)
    size = draw.choice([0, 1, 2**20, 2**31, 2**40])
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size)] * draw.randrange(3))
    tensor = TensorProto(dtype=draw.randrange(25), float_val=[1.0] * draw.randrange(3), tensor_shape=shape)
    value = Summary.Value(tag=draw.choice(TAGS))
    match draw.randrange(4):
        case 0:
            value.tensor.CopyFrom(tensor)
        case 1:
            value.simple_value = draw.choice([float("nan"), float("inf"), 1e38, -1.0])
        case 2:
            value.metadata.plugin_data.plugin_name = draw.choice(["scalars", "x"])
    event = Event(wall_time=draw.choice([0.0, float("nan"), 1e300]), step=draw.choice([-1, 0, 40, 2**62]))
    event.summary.value.append(value)
    other = draw.choice([event.SerializeToString(), draw.randbytes(20), b""])
    length = draw.choice([None, None, None, 2**20, 2**40, 2**63])
    cut = draw.choice(ends)
    return data[:cut] + record(other, length) + data[cut:]


if __name__ == "__main__":
    raise SystemExit(main("Reads run folders with mutated files.", Runs, 20_000))
