"""Scripted policies solve their tasks, from observations alone and in as few steps as can be."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from memspan.envs import (
    ENVIRONMENTS,
    CorridorVectorEnv,
    PortalVectorEnv,
    ScriptedCorridorPolicy,
    ScriptedPortalPolicy,
    register_envs,
)
from memspan.envs.portal_rules import most_steps, steps_per_room

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
    starts = np.ones(1000, dtype=bool)
    episodes = 0
    steps = np.zeros(1000, dtype=np.int64)
    while episodes < 10_000:
        length = envs.get_state()["length"]
        obs, rewards, terminated, truncated, infos = envs.step(policy.act(obs, starts))
        starts = terminated
        steps += 1
        assert not truncated.any()
        np.testing.assert_array_equal(terminated, steps == length)
        np.testing.assert_array_equal(infos["success"], terminated)
        np.testing.assert_array_equal(rewards, terminated)
        steps[terminated] = 0
        episodes += int(terminated.sum())


def test_portal_one_environment_at_a_time() -> None:
    env = gym.make("memspan/Portal-v0", num_rooms=4)
    policy = ScriptedPortalPolicy(4)
    for seed in range(10):
        obs, _ = env.reset(seed=seed)
        start, terminated = True, False
        while not terminated:
            obs, _, terminated, truncated, info = env.step(policy.act(obs, start))
            start = False
            assert not truncated
        assert info["success"]


@pytest.mark.parametrize("env_id", CORRIDORS)
def test_one_environment_at_a_time(env_id: str) -> None:
    env = gym.make(env_id, max_length=9)
    policy = ScriptedCorridorPolicy()
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        start, terminated = True, False
        while not terminated:
            obs, _, terminated, truncated, info = env.step(policy.act(obs, start))
            start = False
            assert not truncated
        assert info["success"]


def test_without_its_memory_it_is_at_chance() -> None:
    envs = CorridorVectorEnv(1000, max_length=9)
    policy = ScriptedCorridorPolicy()
    obs, _ = envs.reset(seed=5)
    success = episodes = 0
    while episodes < 10_000:
        obs, _, terminated, _, infos = envs.step(policy.act(obs, np.ones(1000, dtype=bool)))
        episodes += int(terminated.sum())
        success += int(infos["success"].sum())
    assert abs(success / episodes - 0.5) < 0.025


@pytest.mark.parametrize(("horizon", "longest"), [(0, None), (2, 3), (10, 11), (29, 30)])
def test_the_corridor_takes_a_memory_as_long_as_itself(horizon: int, longest: int | None) -> None:
    """Solved up to the longest length that the horizon allows, and no better than chance beyond."""
    envs = CorridorVectorEnv(1000, max_length=40)
    policy = ScriptedCorridorPolicy(horizon)
    obs, _ = envs.reset(seed=5)
    terminated = np.ones(1000, dtype=bool)
    short, long = [], []
    for _ in range(400):
        length = envs.get_state()["length"]
        obs, _, terminated, _, infos = envs.step(policy.act(obs, terminated))
        short += infos["success"][terminated & (length <= (longest or 0))].tolist()
        long += infos["success"][terminated & (length > (longest or 0))].tolist()
    assert all(short)
    assert bool(short) == (longest is not None)
    assert abs(np.mean(long) - 0.5) < 0.025


@pytest.mark.parametrize(
    ("kwargs", "episodes"),
    [
        ({}, 10_000),
        ({"room_labels": True}, 10_000),
        ({"num_rooms": 3, "room_size": 3, "view_size": 5, "max_mistakes_per_room": None}, 10_000),
        ({"num_rooms": 50}, 400),
    ],
)
def test_portal_with_perfect_memory(kwargs: dict[str, Any], episodes: int) -> None:
    """Always the last room, every reward there is, and exactly the steps that the wrong guesses cost."""
    num_envs = 400
    num_rooms, room_size = kwargs.get("num_rooms", 10), kwargs.get("room_size", 5)
    envs = PortalVectorEnv(num_envs, **kwargs)
    policy = ScriptedPortalPolicy(num_rooms, room_size)
    obs, _ = envs.reset(seed=5)
    starts = np.ones(num_envs, dtype=bool)
    steps, returns = np.zeros(num_envs, dtype=np.int64), np.zeros(num_envs)
    done = 0
    while done < episodes:
        wrong = envs.get_state()["right_door"] == 1  # it tries the west door first
        visits = num_rooms - 1 + (wrong * np.arange(1, num_rooms)).sum(axis=1)
        obs, rewards, terminated, truncated, infos = envs.step(policy.act(obs, starts))
        steps += 1
        returns += rewards
        starts = terminated
        assert not truncated.any()
        assert infos["success"][terminated].all()
        np.testing.assert_array_equal(steps[terminated], visits[terminated] * steps_per_room(room_size))
        assert steps.max() <= most_steps(num_rooms, room_size)
        np.testing.assert_array_equal(returns[terminated], num_rooms - 1)
        steps[terminated], returns[terminated] = 0, 0
        done += int(terminated.sum())


def portal_success(horizon: int | None, num_rooms: int = 10) -> float:
    """Over 2,000 episodes, 4 of each environment."""
    num_envs = 500
    envs = PortalVectorEnv(num_envs, num_rooms)
    policy = ScriptedPortalPolicy(num_rooms, horizon=horizon)
    obs, _ = envs.reset(seed=5)
    starts, left, wins = np.ones(num_envs, dtype=bool), np.full(num_envs, 4), 0
    while left.any():
        obs, _, terminated, truncated, infos = envs.step(policy.act(obs, starts))
        starts = terminated | truncated
        wins += int((infos["success"] & (left > 0)).sum())
        left -= starts & (left > 0)
    return wins / (4 * num_envs)


def test_portal_takes_a_memory_of_one_way_through_the_rooms() -> None:
    """Every room is passed again on each way, so nothing older than one way need be kept."""
    one_way = 8 * steps_per_room(5) + 1
    assert portal_success(one_way) == 1
    assert portal_success(one_way - 1) < 0.9
    assert portal_success(one_way // 2) < 0.2
    assert portal_success(0) < 0.013
