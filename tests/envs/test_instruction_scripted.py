"""The scripted policy solves Instruction from observations alone, as far back as it remembers."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from memspan.envs import InstructionVectorEnv, ScriptedInstructionPolicy, register_envs

register_envs()


def success(episodes: int, horizon: int | None = None, n_objects: int = 6, **kwargs: Any) -> float:
    num_envs = 1000
    envs = InstructionVectorEnv(num_envs, n_objects=n_objects, **kwargs)
    policy = ScriptedInstructionPolicy(n_objects, horizon)
    obs, _ = envs.reset(seed=5)
    left = np.full(num_envs, episodes // num_envs)
    starts = np.ones(num_envs, dtype=bool)
    found = 0
    while left.any():
        obs, _, starts, truncated, infos = envs.step(policy.act(obs, starts))
        assert not truncated.any()
        found += int((infos["success"] & (left > 0)).sum())
        left = np.maximum(left - starts, 0)
    return found / episodes


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"num_instructions": 6, "n_verbs": 12, "n_objects": 12, "max_gap": 3, "min_delay": 1, "max_delay": 9},
    ],
)
def test_ten_thousand_episodes(kwargs: dict[str, Any]) -> None:
    assert success(10_000, **kwargs) == 1.0


def test_a_horizon_as_long_as_the_longest_delay_is_enough() -> None:
    times = {"num_instructions": 1, "min_delay": 5, "max_delay": 20}
    assert success(2000, 20, **times) == 1.0
    # Nor do earlier instructions hold one up for longer.
    assert success(2000, 20, num_instructions=6, max_gap=2, min_delay=1, max_delay=20) == 1.0
    # Of the 16 delays as many are remembered as are not above the horizon; waiting at a moment is wrong.
    for horizon, share in ((19, 15 / 16), (12, 8 / 16), (4, 0.0)):
        found = success(10_000, horizon, **times)
        assert abs(found - share) <= 5 * np.sqrt(share * (1 - share) / 10_000)


@pytest.mark.parametrize("env_id", ["memspan/Instruction-v0", "memspan/InstructionLong-v0"])
def test_one_environment_at_a_time(env_id: str) -> None:
    env = gym.make(env_id)
    policy = ScriptedInstructionPolicy()
    for seed in range(5):
        obs, _ = env.reset(seed=seed)
        start, terminated = True, False
        while not terminated:
            obs, _, terminated, _, info = env.step(policy.act(obs, start))
            start = False
        assert info == {"success": True, "executed": 3}


def test_what_is_no_sentence_is_refused() -> None:
    with pytest.raises(ValueError, match="observations must be sentences of the grammar"):
        ScriptedInstructionPolicy().act(np.zeros((2, 16), dtype=np.int64), np.ones(2, dtype=bool))
