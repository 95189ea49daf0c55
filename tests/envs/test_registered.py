"""What every registered environment promises, whichever task it is."""

import json
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from memspan.envs import ENVIRONMENTS, register_envs

register_envs()

FAMILIES: dict[str, dict[str, Any]] = {
    "memspan/Corridor": {"max_length": 9},
    "memspan/Portal": {"num_rooms": 4, "room_size": 3},
    "memspan/Instruction": {"num_verbs": 1, "num_objects": 2},
}
SMALL: dict[str, dict[str, Any]] = {
    env_id: next(settings for family, settings in FAMILIES.items() if env_id.startswith(family))
    for env_id in ENVIRONMENTS
}
"""Settings under which a random agent ends many episodes."""


@pytest.fixture(params=ENVIRONMENTS)
def env_id(request: pytest.FixtureRequest) -> str:
    return request.param


def test_registering_again_changes_nothing() -> None:
    before = dict(gym.registry)
    register_envs()
    assert dict(gym.registry) == before
    assert set(ENVIRONMENTS) <= set(before)


def test_gymnasium_accepts_it(env_id: str) -> None:
    gymnasium_check_env(gym.make(env_id, render_mode="rgb_array").unwrapped)
    with warnings.catch_warnings():
        # The wrapper that leaves the image alone is part of what is registered.
        warnings.filterwarnings("ignore", message=".*is different from the unwrapped version")
        gymnasium_check_env(gym.make(env_id, disable_env_checker=True), skip_render_check=True)


def test_stable_baselines_accepts_it(env_id: str) -> None:
    with warnings.catch_warnings():
        # Observations are cells, not pixels: too small for the CNN that SB3 would choose for a picture.
        warnings.filterwarnings("ignore", message="The minimal resolution for an image is 36x36")
        sb3_check_env(gym.make(env_id))


def test_module_name_in_the_id_imports_the_package(env_id: str) -> None:
    env = gym.make(f"memspan:{env_id}", **SMALL[env_id])
    assert env.spec is not None
    assert env.spec.id == env_id


def test_spec_rebuilds_the_environment(env_id: str) -> None:
    spec = gym.make(env_id, **SMALL[env_id]).spec
    assert spec is not None
    assert json.loads(spec.to_json())["id"] == env_id
    again = gym.make(spec).spec
    assert again is not None
    assert again.kwargs.items() >= SMALL[env_id].items()
    vector = gym.make_vec(env_id, num_envs=3, **SMALL[env_id])
    assert vector.spec is not None
    assert gym.make_vec(vector.spec).num_envs == 3


@pytest.mark.parametrize("mode", ["sync", "async", "vector_entry_point"])
def test_every_way_to_vectorise(env_id: str, mode: str) -> None:
    single = gym.make(env_id, **SMALL[env_id])
    envs = gym.make_vec(env_id, num_envs=2, vectorization_mode=mode, **SMALL[env_id])
    assert envs.single_observation_space == single.observation_space
    assert envs.single_action_space == single.action_space
    obs, _ = envs.reset(seed=1)
    assert obs in envs.observation_space
    envs.action_space.seed(1)
    for _ in range(30):
        obs, rewards, terminated, truncated, infos = envs.step(envs.action_space.sample())
        assert obs in envs.observation_space
        assert rewards.shape == terminated.shape == truncated.shape == (2,)
        assert rewards.dtype == np.float64
        assert terminated.dtype == truncated.dtype == np.bool_
        if "success" in infos:  # "sync" and "async" spend a step on resetting, which has no success to tell
            assert infos["success"].shape == (2,)
            assert infos["success"].dtype == np.bool_
    envs.close()


def test_engine_is_the_default_and_resets_in_the_same_step(env_id: str) -> None:
    envs = gym.make_vec(env_id, num_envs=2)
    assert envs.unwrapped is envs
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


def test_same_step_infos_look_like_gymnasiums(env_id: str) -> None:
    """The same keys as `SyncVectorEnv`, and final observations and masks to be read in the same way."""
    engine = gym.make_vec(env_id, num_envs=2, **SMALL[env_id])
    sync = gym.make_vec(
        env_id,
        num_envs=2,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **SMALL[env_id],
    )
    found = []
    for envs in (engine, sync):
        envs.reset(seed=1)
        envs.action_space.seed(1)
        while True:
            *_, terminated, truncated, infos = envs.step(envs.action_space.sample())
            done = terminated | truncated
            assert ("final_obs" in infos) == done.any()
            if done.any() and not done.all():
                break
        np.testing.assert_array_equal(infos["_final_obs"], done)
        np.testing.assert_array_equal(infos["final_info"]["_success"], done)
        for i in np.flatnonzero(done):
            assert infos["final_obs"][i] in envs.single_observation_space
        found.append((set(infos), set(infos["final_info"])))
    assert found[0] == found[1]


@pytest.mark.parametrize("num_envs", [1, 3])
def test_engine_draws_every_environment(env_id: str, num_envs: int) -> None:
    envs = gym.make_vec(env_id, num_envs=num_envs, render_mode="rgb_array", **SMALL[env_id])
    envs.reset(seed=1)
    frames = envs.render()
    assert frames is not None
    assert len(frames) == num_envs
    single = gym.make(env_id, render_mode="rgb_array", **SMALL[env_id])
    single.reset(seed=1)
    picture = single.render()
    assert isinstance(picture, np.ndarray)
    assert {frame.shape for frame in frames} == {picture.shape}
    assert gym.make_vec(env_id, num_envs=num_envs).render() is None
