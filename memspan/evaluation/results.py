"""What an evaluation found: numbers of one run, as they stand in its `evaluation.json`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memspan.evaluation.difficulty import Trials
from memspan.evaluation.episodes import Episodes
from memspan.evaluation.intervals import Interval, mean_interval, wilson_interval
from memspan.evaluation.json_files import checked, read_json, write_json

FILE_NAME = "evaluation.json"
MOST_BUCKETS = 10


@dataclass(frozen=True)
class Bucket:
    """Episodes of similar length, both ends included."""

    low: int
    high: int
    episodes: int
    success_rate: float
    ci: Interval


@dataclass(frozen=True)
class Evaluation:
    """Results of one run. `success_*` is None or empty where the environment does not tell success."""

    env: str
    memory: str
    name: str
    seed: int
    """Of the training."""
    timesteps: int
    """Steps that the evaluated weights were trained for."""
    checkpoint: str
    episodes: int
    success_rate: float | None
    success_ci: Interval | None
    """Wilson's 95 % interval."""
    mean_return: float
    return_ci: Interval
    mean_length: float
    effective_memory: float
    """Memory vectors that a step could read, mean over all steps."""
    peak_memory: float
    capacity: float
    """Memory vectors that a row can hold, mean over layers."""
    state_bytes: int
    """Largest memory of one row."""
    steps_per_second: float
    success_by_length: list[Bucket]
    length_of: str
    """What the buckets' lengths are: "task" (a corridor's length) or "episode" (steps played)."""
    deterministic: bool
    evaluation_seed: int
    n_envs: int
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    memory_kwargs: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    """The other settings of the training: learning rate, weight of the memory's own losses, ..."""
    difficulty: str = ""
    """What makes this task hard, see `memspan.evaluation.difficulty`; empty where that is not known."""
    success_by_difficulty: list[Bucket] = field(default_factory=list)
    """Of the task's trials."""
    memspan_version: str = ""
    torch_version: str = ""
    git_commit: str | None = None

    def save(self, folder: Path) -> Path:
        """Writes `evaluation.json`, whole or not at all."""
        return write_json(folder / FILE_NAME, dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Reads a run folder's `evaluation.json`.

        Raises:
            ValueError: there is none, or it is not one of this version's.
        """
        with read_json(folder / FILE_NAME, "evaluate") as data:
            buckets = {
                name: [Bucket(**{**b, "ci": tuple(b["ci"])}) for b in data.get(name, ())]
                for name in ("success_by_length", "success_by_difficulty")
            }
            ends = {name: data[name] and tuple(data[name]) for name in ("success_ci", "return_ci")}
            found = checked(cls(**(data | ends | buckets)))
            for bucket in (*found.success_by_length, *found.success_by_difficulty):
                if not 1 <= bucket.low <= bucket.high:
                    raise ValueError(f"low={bucket.low}, high={bucket.high}: must be from 1 on, and rise")
                if bucket.episodes < 1 or not 0 <= bucket.success_rate <= 1:
                    rate = f"episodes={bucket.episodes}, success_rate={bucket.success_rate}"
                    raise ValueError(f"{rate}: must be at least 1, and from 0 to 1")
            return found


def summarise(played: Episodes) -> dict[str, Any]:
    """The fields of an `Evaluation` that follow from the episodes."""
    n_episodes = len(played.returns)
    successes = played.successes
    n_successes = None if successes is None else int(successes.sum())
    return {
        "episodes": n_episodes,
        "success_rate": None if n_successes is None else n_successes / n_episodes,
        "success_ci": None if n_successes is None else wilson_interval(n_successes, n_episodes),
        "mean_return": float(played.returns.mean()),
        "return_ci": mean_interval(played.returns),
        "mean_length": float(played.lengths.mean()),
        "effective_memory": played.effective_memory,
        "peak_memory": played.peak_memory,
        "state_bytes": played.state_bytes,
        "steps_per_second": played.steps_per_second,
        **_by_length(played),
        **_by_difficulty(played.trials),
    }


def _by_length(played: Episodes) -> dict[str, Any]:
    """By the task's length where there is one.

    By steps played otherwise, which says less: an agent that has failed by running out of time has always
    played a long episode.
    """
    if played.trials is not None and played.trials.difficulty == "length":
        buckets = success_by(played.trials.values, played.trials.successes)
        return {"success_by_length": buckets, "length_of": "task"}
    told = played.successes
    buckets = [] if told is None else success_by(played.lengths, told)
    return {"success_by_length": buckets, "length_of": "episode"}


def _by_difficulty(trials: Trials | None) -> dict[str, Any]:
    if trials is None:
        return {}
    return {
        "difficulty": trials.difficulty,
        "success_by_difficulty": success_by(trials.values, trials.successes),
    }


def bucket_width(longest: int) -> int:
    """Smallest of 1, 2, 5, 10, 20, 50, ... that cuts 1..longest into at most `MOST_BUCKETS` buckets.

    Round edges, so that runs with a different longest episode still share them.
    """
    scale = 1
    while True:
        for digit in (1, 2, 5):
            if digit * scale * MOST_BUCKETS >= longest:
                return digit * scale
        scale *= 10


def success_by(values: npt.NDArray[np.int64], successes: npt.NDArray[np.bool_]) -> list[Bucket]:
    """Success rates by rising value; values that did not occur have no bucket.

    Args:
        values: (K,) from 1 on; 0 counts as 1.
        successes: (K,).
    """
    if not len(values):
        return []
    width = bucket_width(int(values.max()))
    index = (np.maximum(values, 1) - 1) // width
    buckets = []
    for i in np.unique(index).tolist():
        inside = successes[index == i]
        n, k = len(inside), int(inside.sum())
        buckets.append(Bucket(i * width + 1, (i + 1) * width, n, k / n, wilson_interval(k, n)))
    return buckets
