"""Plays episodes with a policy that remembers, and measures what it kept in memory.

Dimension letters: B rows (environments side by side), E episodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from memspan.agents import MemoryPolicy
from memspan.evaluation.difficulty import Trials, watch_difficulty
from memspan.memory import state_bytes

OnProgress = Callable[[int], None]
"""Is told after every step how many episodes are finished."""


@dataclass(frozen=True)
class Episodes:
    """E finished episodes and the memory that their steps had."""

    returns: npt.NDArray[np.float64]
    """(E,)."""
    lengths: npt.NDArray[np.int64]
    """(E,) steps."""
    successes: npt.NDArray[np.bool_] | None
    """(E,), or None where the environment does not tell `is_success`."""
    trials: Trials | None
    """By the task's own difficulty, see `memspan.evaluation.difficulty`; None where it has none."""
    effective_memory: float
    """Memory vectors that a step could read, mean over all steps of the episodes."""
    peak_memory: float
    """The same, largest."""
    state_bytes: int
    """Bytes that one row's memory took, largest."""
    steps_per_second: float
    """Steps of all rows together, acting and environment."""


def quotas(n_episodes: int, n_rows: int) -> npt.NDArray[np.int64]:
    """(B,) episodes that each row plays; they add up to `n_episodes` and differ by one at most.

    A fixed number per row is what keeps the sample fair: the first E episodes to *finish* would hold too
    many short ones.
    """
    if n_episodes < 1:
        raise ValueError(f"episodes={n_episodes!r}: must be at least 1")
    return (n_episodes + np.arange(n_rows)) // n_rows


def play_episodes(
    policy: MemoryPolicy,
    env: VecEnv,
    n_episodes: int,
    deterministic: bool = True,
    on_progress: OnProgress | None = None,
) -> Episodes:
    """Plays exactly `n_episodes` and counts each, and every step of each, once.

    Args:
        policy: acts; its memory starts empty.
        env: B environments, seeded by the caller; they are reset here.
        n_episodes: E.
        deterministic: the most probable action instead of a drawn one.
        on_progress: told after every step how many episodes are finished.

    Raises:
        ValueError: `n_episodes` is less than 1.
    """
    n_rows = env.num_envs
    left = quotas(n_episodes, n_rows)
    policy.set_training_mode(False)
    state = policy.memory.initial_state(n_rows, policy.device)
    observations = env.reset()
    starts = np.ones(n_rows, dtype=np.bool_)
    row_returns, row_lengths = np.zeros(n_rows), np.zeros(n_rows, dtype=np.int64)
    watch = watch_difficulty(env)
    records: list[dict[str, Any]] = []
    memory_sum, memory_peak, most_bytes = 0.0, 0.0, 0
    n_steps, counted_steps, start = 0, 0, time.perf_counter()
    while left.any():
        if watch is not None:
            watch.before_step(starts, left > 0)
        with torch.no_grad():
            acted = policy.act(
                obs_as_tensor(observations, policy.device),  # type: ignore[arg-type]
                state,
                torch.as_tensor(starts, device=policy.device),
                deterministic,
            )
        state = acted.memory.state
        # Rows that have played their quota go on, because all rows step together, but nothing of them counts.
        counted = left > 0
        memory = acted.memory.stats["effective_memory"].cpu().numpy()[counted]
        memory_sum += float(memory.sum(dtype=np.float64))
        memory_peak = max(memory_peak, float(memory.max()))
        most_bytes = max(most_bytes, state_bytes(state))
        observations, rewards, starts, infos = env.step(env_actions(policy, acted.actions))
        n_steps += n_rows
        counted_steps += int(counted.sum())
        row_returns += rewards
        row_lengths += 1
        for row in np.flatnonzero(starts & counted):
            # What Monitor tells goes before our own sums: rewards may have been scaled since.
            told = infos[row].get("episode", {})
            records.append(
                {
                    "return": told.get("r", row_returns[row]),
                    "length": told.get("l", row_lengths[row]),
                    "success": infos[row].get("is_success"),
                }
            )
            if watch is not None:
                watch.episode_ended(int(row), infos[row])
        if starts.any():
            left -= starts & counted
            row_returns[starts] = 0
            row_lengths[starts] = 0
        if on_progress is not None:
            on_progress(len(records))
    return Episodes(
        returns=np.array([record["return"] for record in records], dtype=np.float64),
        lengths=np.array([record["length"] for record in records], dtype=np.int64),
        successes=_told_by_all(records, "success", np.dtype(np.bool_)),
        trials=None if watch is None else watch.trials(),
        effective_memory=memory_sum / counted_steps,
        peak_memory=memory_peak,
        state_bytes=most_bytes,
        steps_per_second=n_steps / (time.perf_counter() - start),
    )


def env_actions(policy: MemoryPolicy, actions: torch.Tensor) -> npt.NDArray[Any]:
    """(B, ...) what environments are given of a policy's actions: those of a `Box` within its bounds."""
    space = policy.action_space
    array = actions.cpu().numpy().reshape(-1, *(space.shape or ()))
    return np.clip(array, space.low, space.high) if isinstance(space, spaces.Box) else array


def _told_by_all(records: list[dict[str, Any]], key: str, dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
    values = [record[key] for record in records]
    return None if any(value is None for value in values) else np.array(values, dtype=dtype)
