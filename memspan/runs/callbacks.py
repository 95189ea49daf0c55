"""What a run does beside learning: keeps checkpoints, and stops when it is asked to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import safe_mean

from memspan.runs.checkpoint import read_info, save_checkpoint
from memspan.runs.folder import BEST, CHECKPOINTS, numbered_checkpoints

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from memspan.agents import MemoryPPO
    from memspan.runs.config import RunConfig

KEPT = 3
"""Checkpoints by timesteps that are kept; the older ones are removed."""


class Score(NamedTuple):
    """What makes a checkpoint the best."""

    success_rate: float
    """Rolling; the mean return where the environment tells of no success."""
    effective_memory: float
    """Mean over the rollout; of equal successes, the one with less memory is better."""

    def better_than(self, other: Score | None) -> bool:
        """Whether it takes the place of `other`."""
        return other is None or (self.success_rate, -self.effective_memory) > (
            other.success_rate,
            -other.effective_memory,
        )


def recent_success(model: BaseAlgorithm) -> float | None:
    """Success rate of the last episodes; None if none has ended or the environment does not tell."""
    return float(safe_mean(model.ep_success_buffer)) if model.ep_success_buffer else None


def recent_return(model: BaseAlgorithm) -> float | None:
    """Mean return of the last episodes; None if none has ended."""
    return float(safe_mean([one["r"] for one in model.ep_info_buffer])) if model.ep_info_buffer else None


class CheckpointCallback(BaseCallback):
    """Checkpoints on schedule, and of the best rolling success rate.

    A checkpoint is made of what a whole number of updates gave: on schedule when a rollout begins, and the
    best when the rollout that proves it has ended and before the next update.

    Args:
        config: the run.
        folder: its folder.
    """

    model: MemoryPPO

    def __init__(self, config: RunConfig, folder: Path) -> None:
        super().__init__()
        self.config = config
        self.folder = folder / CHECKPOINTS
        self.learnt = 0
        best = self.folder / BEST
        self.best: Score | None = Score(**read_info(best).score) if best.is_file() else None

    def _on_training_start(self) -> None:
        self.learnt = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        every = self.config.checkpoint_every
        due = self.model.num_timesteps // every > self.learnt // every
        self.learnt = self.model.num_timesteps
        if due:
            self.save()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        score = self._score()
        if score is not None and score.better_than(self.best):
            self.best = score
            save_checkpoint(self.model, self.config, self.folder / BEST, self.learnt, score._asdict())

    def _on_training_end(self) -> None:
        self.learnt = self.model.num_timesteps
        self.save()

    def save(self) -> Path:
        """Writes a checkpoint of what has been learnt so far and removes the oldest."""
        path = self.folder / f"{self.learnt:012d}.safetensors"
        save_checkpoint(self.model, self.config, path, self.learnt)
        for old in numbered_checkpoints(self.folder.parent)[:-KEPT]:
            old.unlink()
        return path

    def _score(self) -> Score | None:
        """None until as many episodes have ended as the rolling means are over."""
        episodes = self.model.ep_info_buffer
        if episodes is None or len(episodes) < self.config.stats_window_size:
            return None
        success = recent_success(self.model)
        reached = recent_return(self.model) if success is None else success
        assert reached is not None
        return Score(reached, float(self.logger.name_to_value["memory/effective_memory"]))


class StopCallback(BaseCallback):
    """Raises KeyboardInterrupt between two steps once it was asked to: no update is left half done."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = False

    def _on_step(self) -> bool:
        if self.asked:
            raise KeyboardInterrupt
        return True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes Ctrl-C and SIGTERM as the request; the second one stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
