"""What a run's training has written to TensorBoard, read back, while the training goes on too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat import tf
from tensorboard.util.tensor_util import make_ndarray

SUCCESS = "rollout/success_rate"
MEAN_RETURN = "rollout/ep_rew_mean"
MEMORY = "memory/effective_memory"
SPEED = "time/fps"
TAGS = (SUCCESS, MEAN_RETURN, MEMORY, SPEED)


@dataclass(frozen=True)
class Point:
    """A scalar as it was written."""

    step: int
    wall_time: float
    value: float


@dataclass
class Curves:
    """The curves of one run, of the tags above."""

    folder: Path
    points: dict[str, dict[int, Point]] = field(default_factory=dict)
    """By tag and step; what a run that was gone on with has written again takes the place of the old."""
    _files: dict[Path, EventFileLoader] = field(default_factory=dict)

    def read(self) -> dict[str, list[Point]]:
        """What was written since the last call, by tag and in the order of steps; no tag without points.

        Raises:
            ValueError: a file holds what no training has written.
        """
        new: dict[str, dict[int, Point]] = {}
        for path in sorted(self.folder.glob("events.out.tfevents.*")):
            # Those of an evaluation have a suffix in place of the last number.
            if path.suffix[1:].isdigit() and path not in self._files:
                self._files[path] = EventFileLoader(str(path))
        for path, loader in self._files.items():
            for event in _events(path, loader):
                for value in event.summary.value:
                    if value.tag in TAGS:
                        point = Point(event.step, event.wall_time, _number(path, value))
                        new.setdefault(value.tag, {})[event.step] = point
        for tag, points in new.items():
            self.points.setdefault(tag, {}).update(points)
        return {tag: [points[step] for step in sorted(points)] for tag, points in new.items()}

    def last(self, tag: str) -> float | None:
        """The value at the highest step; None without one."""
        points = self.points.get(tag)
        return points[max(points)].value if points else None

    @property
    def timesteps(self) -> int:
        """The highest step, 0 without any."""
        return max((max(points) for points in self.points.values()), default=0)


def _events(path: Path, loader: EventFileLoader) -> Iterator[Any]:
    """What can be read; a file may go while it is followed, with the run that it is of."""
    try:
        yield from loader.Load()
    except (tf.errors.NotFoundError, OSError):
        return
    except (DecodeError, MemoryError, OverflowError, ValueError) as error:
        # A length or content that was never written, under a checksum that is right.
        raise ValueError(f"{path}: damaged ({type(error).__name__})") from None


def _number(path: Path, value: Any) -> float:
    """A scalar's; its shape comes first, as memory is asked for by it."""
    try:
        if value.tensor.tensor_shape.dim:
            raise ValueError("no scalar")
        return float(make_ndarray(value.tensor))
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise ValueError(f"{path}: damaged: {value.tag}: {' '.join(str(error).split())}") from None
