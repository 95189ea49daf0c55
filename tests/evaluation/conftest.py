from collections.abc import Callable
from typing import Any

import pytest

from memspan.evaluation import Bucket, Evaluation, wilson_interval


def make(memory: str = "lstm", rate: float | None = 0.5, size: float = 2.0, **more: Any) -> Evaluation:
    """An evaluation of 100 episodes with the same success at every length."""
    successes = None if rate is None else round(rate * 100)
    ci = None if successes is None else wilson_interval(successes, 100)
    buckets = []
    if successes is not None:
        buckets = [
            Bucket(low, low + 9, 50, successes / 100, wilson_interval(successes // 2, 50)) for low in (1, 11)
        ]
    fields: dict[str, Any] = dict(
        env="memspan/Corridor-v0",
        memory=memory,
        name=memory,
        seed=0,
        timesteps=1000,
        checkpoint="last",
        episodes=100,
        success_rate=rate,
        success_ci=ci,
        mean_return=0.25,
        return_ci=(0.2, 0.3),
        mean_length=12.5,
        effective_memory=size,
        peak_memory=2 * size,
        capacity=3 * size,
        state_bytes=1024,
        steps_per_second=5000.0,
        success_by_length=buckets,
        length_of="task",
        deterministic=True,
        evaluation_seed=1_000_000,
        n_envs=64,
        settings={"learning_rate": 3e-4},
    )
    return Evaluation(**(fields | more))


@pytest.fixture
def make_evaluation() -> Callable[..., Evaluation]:
    return make
