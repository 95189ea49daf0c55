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

from memspan.agents.snapshot import Snapshot, take_snapshot, whole_snapshot
from memspan.runs.checkpoint import (
    SUFFIX,
    DamagedCheckpointError,
    read_info,
    save_checkpoint,
    write_snapshot,
)
from memspan.runs.folder import BEST, CHECKPOINTS, numbered_checkpoints

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from memspan.agents import MemoryPPO
    from memspan.runs.config import RunConfig


def is_due(config: RunConfig, timesteps: int) -> bool:
    """Whether a checkpoint is due before the rollout that begins after so many steps."""
    before = timesteps - config.n_envs * config.n_steps
    return before >= 0 and timesteps // config.checkpoint_every > before // config.checkpoint_every


def remove_old_checkpoints(config: RunConfig, folder: Path, timesteps: int) -> None:
    """Leaves the checkpoints that a run which has never been stopped would have after so many steps.

    Later ones, which can only be damaged, are left to be written anew.
    """
    until_now = [path for path in numbered_checkpoints(folder) if int(path.stem) <= timesteps]
    kept = [path for path in until_now if int(path.stem) == timesteps or is_due(config, int(path.stem))]
    for path in {*until_now} - {*kept[-config.keep_checkpoints :]}:
        path.unlink()


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

    A checkpoint on schedule is what a rollout begins with: a whole number of updates, and all that the rest
    of the run depends on. A run that is stopped in between keeps what its last rollout began with, for which
    a copy is held; that checkpoint goes when the run, gone on with, has written the next. The best is written
    when the rollout that proves it has ended and before the next update, and holds what was learnt alone.

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
        self.best = _best_so_far(self.folder / BEST)
        self._begun: Snapshot | None = None

    def _on_training_start(self) -> None:
        self.learnt = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        self._begun = take_snapshot(self.model)
        due = self._begun.timesteps > self.learnt and is_due(self.config, self._begun.timesteps)
        self.learnt = self._begun.timesteps
        if due:
            self.save()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        score = self._score()
        if score is not None and score.better_than(self.best):
            self.best = score
            if self.model.processes.is_first:
                save_checkpoint(self.model, self.config, self.folder / BEST, self.learnt, score._asdict())

    def _on_training_end(self) -> None:
        self._begun = take_snapshot(self.model)
        self.learnt = self._begun.timesteps
        self.save()

    def save(self) -> None:
        """Writes a checkpoint of what the present rollout began with, if one has, and removes old ones.

        Of several processes the first writes, and all have to call it.
        """
        whole = None if self._begun is None else whole_snapshot(self.model, self._begun)
        if whole is not None:
            write_snapshot(whole, self.config, self.folder / f"{self.learnt:012d}{SUFFIX}")
            remove_old_checkpoints(self.config, self.folder.parent, self.learnt)

    def _score(self) -> Score | None:
        """None until as many episodes have ended as the rolling means are over."""
        episodes = self.model.ep_info_buffer
        if episodes is None or len(episodes) < self.config.stats_window_size:
            return None
        success = recent_success(self.model)
        reached = recent_return(self.model) if success is None else success
        assert reached is not None
        return Score(reached, float(self.logger.name_to_value["memory/effective_memory"]))


def _best_so_far(path: Path) -> Score | None:
    try:
        return Score(**read_info(path).score) if path.is_file() else None
    except DamagedCheckpointError:
        # The next one takes its place.
        return None


class StopCallback(BaseCallback):
    """Raises KeyboardInterrupt between two steps once it was asked to: no update is left half done.

    Args:
        patient: however often it is asked; torchrun asks its processes once more.
    """

    def __init__(self, patient: bool = False) -> None:
        super().__init__()
        self.asked = False
        self.patient = patient

    def _on_step(self) -> bool:
        if self.asked:
            raise KeyboardInterrupt
        return True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes Ctrl-C and SIGTERM as the request; the second one stops at once, unless it is patient."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if self.asked and not self.patient:
                raise KeyboardInterrupt
            self.asked = True

        old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
