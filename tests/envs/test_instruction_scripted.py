"""The scripted policy solves Instruction from observations alone, as far back as it remembers."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from memspan.envs import InstructionVectorEnv, ScriptedInstructionPolicy, register_envs
from memspan.envs.instruction_grammar import Kind

register_envs()


def success(episodes: int, horizon: int | None = None, num_objects: int = 4, **kwargs: Any) -> float:
    num_envs = 1000
    envs = InstructionVectorEnv(num_envs, num_objects=num_objects, **kwargs)
    policy = ScriptedInstructionPolicy(num_objects, horizon)
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
        {
            "num_instructions": 6,
            "num_verbs": 12,
            "num_objects": 12,
            "max_gap": 3,
            "min_delay": 1,
            "max_delay": 9,
        },
    ],
)
def test_ten_thousand_episodes(kwargs: dict[str, Any]) -> None:
    assert success(10_000, **kwargs) == 1.0


def test_exact_number_of_steps_and_exact_return() -> None:
    """From when the instructions were received and due, and the jobs heard: nothing else takes or pays."""
    num_envs = 500
    envs = InstructionVectorEnv(num_envs)
    policy = ScriptedInstructionPolicy()
    obs, _ = envs.reset(seed=5)
    starts = np.ones(num_envs, dtype=bool)
    steps, jobs, returns = (np.zeros(num_envs) for _ in range(3))
    episodes = 0
    while episodes < 2000:
        state = envs.get_state()
        jobs += state["kind"] == Kind.JOB
        steps += 1
        obs, rewards, starts, _, infos = envs.step(policy.act(obs, starts))
        returns += rewards
        assert infos["success"][starts].all()
        for i in np.flatnonzero(starts):
            assert steps[i] == 1 + last_moment(state["due"][i].tolist())
            assert returns[i] == pytest.approx(1 + envs.job_reward * jobs[i])
        episodes += int(starts.sum())
        steps[starts] = jobs[starts] = returns[starts] = 0


def last_moment(due: list[int]) -> int:
    """The step of the last moment: each comes when it is due, one after the other."""
    step = -1
    for one in due:
        step = max(one, step + 1)
    return step


def test_a_horizon_as_long_as_the_longest_delay_is_enough() -> None:
    times = {"num_instructions": 1, "min_delay": 5, "max_delay": 20}
    assert success(2000, 20, **times) == 1.0
    # Nor do earlier instructions hold one up for longer.
    assert success(2000, 20, num_instructions=6, max_gap=2, min_delay=1, max_delay=20) == 1.0
    # Of the 16 delays as many are remembered as are not above the horizon; waiting at a moment is wrong.
    for horizon, share in ((19, 15 / 16), (12, 8 / 16), (4, 0.0)):
        found = success(10_000, horizon, **times)
        assert abs(found - share) <= 5 * np.sqrt(share * (1 - share) / 10_000)


@pytest.mark.parametrize("size", ["", "Small", "Long"])
def test_one_environment_at_a_time(size: str) -> None:
    env = gym.make(f"memspan/Instruction{size}-v0")
    parameters = env.get_wrapper_attr("parameters")
    policy = ScriptedInstructionPolicy(parameters.num_objects)
    for seed in range(5):
        obs, _ = env.reset(seed=seed)
        start, terminated = True, False
        while not terminated:
            obs, _, terminated, _, info = env.step(policy.act(obs, start))
            start = False
        assert info == {"success": True, "executed": parameters.num_instructions}


def test_what_is_no_sentence_is_refused() -> None:
    with pytest.raises(ValueError, match="observations must be sentences of the grammar"):
        ScriptedInstructionPolicy().act(np.zeros((2, 16), dtype=np.int64), np.ones(2, dtype=bool))
