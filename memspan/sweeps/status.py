"""How far a run is: a small file in its folder, written by its process, read by the sweep.

A file and no message, because folders are what the processes share, on one machine and on a cluster.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stable_baselines3.common.callbacks import BaseCallback

from memspan.evaluation.json_files import checked
from memspan.runs.callbacks import recent_return, recent_success

if TYPE_CHECKING:
    from memspan.agents import MemoryPPO

FILE_NAME = ".status.json"
SECONDS_BETWEEN_WRITES = 1.0


@dataclass(frozen=True)
class Status:
    """What a run's process is at."""

    state: str
    """starting, training or evaluating."""
    done: float = 0.0
    """Share of the steps, or of the episodes."""
    score: float | None = None
    """Rolling success rate, or mean return where the environment does not tell success."""
    memory: float | None = None
    """Effective memory."""
    speed: float | None = None
    """Steps per second."""
    seconds_left: float | None = None
    machine: str = dataclasses.field(default_factory=platform.node)
    pid: int = dataclasses.field(default_factory=os.getpid)

    def write(self, folder: Path) -> None:
        """Replaces what was told before."""
        # No fsync, every second: what is lost with the power is no loss.
        part = folder / f".{FILE_NAME}.{os.getpid()}"
        part.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")
        part.replace(folder / FILE_NAME)


def read_status(folder: Path) -> Status | None:
    """What a run's process told last; None if it has told nothing, or is gone."""
    try:
        return checked(Status(**json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def forget_status(folder: Path) -> None:
    """Takes away what a process has told that is no longer at work."""
    (folder / FILE_NAME).unlink(missing_ok=True)
    for leftover in folder.glob(f".{FILE_NAME}.*"):
        leftover.unlink(missing_ok=True)


class StatusCallback(BaseCallback):
    """Tells how far a training is, now and then.

    Args:
        folder: the run's.
    """

    model: MemoryPPO

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._memory: float | None = None
        self._next = 0.0

    def _on_training_start(self) -> None:
        self._start = time.monotonic(), self.model.num_timesteps

    def _on_rollout_end(self) -> None:
        self._memory = float(self.logger.name_to_value["memory/effective_memory"])

    def _on_step(self) -> bool:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + SECONDS_BETWEEN_WRITES
            self._status(now).write(self.folder)
        return True

    def _status(self, now: float) -> Status:
        steps, total = self.model.num_timesteps, self.model._total_timesteps
        speed = (steps - self._start[1]) / max(now - self._start[0], 1e-9)
        success = recent_success(self.model)
        return Status(
            "training",
            min(steps / total, 1.0),
            recent_return(self.model) if success is None else success,
            self._memory,
            speed,
            max(total - steps, 0) / speed if speed else None,
        )
