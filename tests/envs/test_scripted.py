"""Scripted policies solve their tasks, from observations alone and in as few steps as can be."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from memspan.envs import ENVIRONMENTS, CorridorVectorEnv, ScriptedCorridorPolicy, register_envs

register_envs()

CORRIDORS = [env_id for env_id in ENVIRONMENTS if "Corridor" in env_id]


@pytest.mark.parametrize("env_id", CORRIDORS)
@pytest.mark.parametrize(
    "kwargs", [{}, {"view_size": 5, "min_length": 4, "max_length": 30}, {"view_size": 7, "min_length": 5}]
)
def test_ten_thousand_episodes_in_exactly_length_steps(env_id: str, kwargs: dict[str, Any]) -> None:
    envs = gym.make_vec(env_id, num_envs=1000, **kwargs).unwrapped
    assert isinstance(envs, CorridorVectorEnv)
    policy = ScriptedCorridorPolicy()
    obs, _ = envs.reset(seed=5)
    episodes = 0
    steps = np.zeros(1000, dtype=np.int64)
    while episodes < 10_000:
        length = envs.get_state()["length"]
        obs, rewards, terminated, truncated, infos = envs.step(policy.act(obs))
        steps += 1
        assert not truncated.any()
        np.testing.assert_array_equal(terminated, steps == length)
        np.testing.assert_array_equal(infos["success"], terminated)
        np.testing.assert_array_equal(rewards, terminated)
        steps[terminated] = 0
        episodes += int(terminated.sum())


@pytest.mark.parametrize("env_id", CORRIDORS)
def test_one_environment_at_a_time(env_id: str) -> None:
    env = gym.make(env_id, max_length=9)
    policy = ScriptedCorridorPolicy()
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        policy.reset()
        terminated = False
        while not terminated:
            obs, _, terminated, truncated, info = env.step(policy.act(obs))
            assert not truncated
        assert info["success"]


def test_without_its_memory_it_is_at_chance() -> None:
    envs = CorridorVectorEnv(1000, max_length=9)
    policy = ScriptedCorridorPolicy()
    obs, _ = envs.reset(seed=5)
    success = episodes = 0
    while episodes < 10_000:
        policy.reset()
        obs, _, terminated, _, infos = envs.step(policy.act(obs))
        episodes += int(terminated.sum())
        success += int(infos["success"].sum())
    assert abs(success / episodes - 0.5) < 0.025
