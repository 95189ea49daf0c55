"""Agents learn what their memory lets them learn, and no more."""

from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from toys import Recall, corridors

from memspan.agents import MemoryA2C, MemoryPPO
from memspan.agents.base import MemoryAlgorithm

SETTINGS: dict[str, dict[str, Any]] = {
    "none": {"n_layers": 1},
    "lstm": {},
    "transformer-xl": {"n_layers": 1, "n_heads": 2, "memory_size": 16},
    "expire-span": {"n_layers": 1, "n_heads": 2, "max_span": 24, "ramp": 4},
}
WINDOW = 200


class Best(BaseCallback):
    """The best success over the last episodes; stops when it is good enough."""

    def __init__(self, enough: float) -> None:
        super().__init__()
        self.enough = enough
        self.best = 0.0

    def _on_step(self) -> bool:
        return self.best < self.enough

    def _on_rollout_end(self) -> None:
        success = self.model.ep_success_buffer
        if len(success) == WINDOW:
            self.best = max(self.best, float(np.mean(success)))


def best_success(
    agent: type[MemoryAlgorithm],
    env: Any,
    memory: str,
    budget: int,
    precision: str = "float32",
    **kwargs: Any,
) -> float:
    model = agent(
        "MemoryPolicy", env, memory, SETTINGS[memory], seed=1, device="cpu", stats_window_size=WINDOW,
        policy_kwargs={"width": 32, "net_arch": [], "precision": precision}, **kwargs,
    )  # fmt: skip
    best = Best(enough=0.9)
    model.learn(budget, callback=best)
    return best.best


@pytest.mark.parametrize(
    "memory",
    ["lstm", "expire-span", pytest.param("transformer-xl", marks=pytest.mark.slow)],
)
def test_ppo_learns_a_short_corridor(memory: str) -> None:
    env = corridors(16, max_steps=16)
    assert best_success(MemoryPPO, env, memory, 200_000, learning_rate=2e-3, n_steps=32, ent_coef=0.01) >= 0.9


def test_ppo_without_memory_guesses() -> None:
    env = corridors(16, max_steps=16)
    best = best_success(MemoryPPO, env, "none", 15_000, learning_rate=3e-3, n_steps=32, ent_coef=0.01)
    assert 0.35 < best < 0.65


def test_products_in_bfloat16_learn_as_well() -> None:
    settings = dict(learning_rate=3e-3, n_steps=6, ent_coef=0.01, precision="bfloat16")
    assert best_success(MemoryA2C, Recall(16), "transformer-xl", 40_000, **settings) >= 0.9


@pytest.mark.parametrize("memory", SETTINGS)
def test_a2c_learns_to_recall(memory: str) -> None:
    budget = 6_000 if memory == "none" else 40_000
    best = best_success(MemoryA2C, Recall(16), memory, budget, learning_rate=3e-3, n_steps=6, ent_coef=0.01)
    if memory == "none":
        assert best < 0.65
    else:
        assert best >= 0.9
