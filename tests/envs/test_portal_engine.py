"""Portal's engine: the same rules as the form to read, and drawn well."""

from typing import Any

import numpy as np
import pytest

from memspan.envs import PortalEnv, PortalVectorEnv
from memspan.envs.portal_rules import SIDES

RIGHT, LEFT = 0, 2


def layout_of(engine: PortalVectorEnv, i: int) -> dict[str, Any]:
    state = engine.get_state()
    return {field: np.array(SIDES)[state[field][i]] for field in ("right_door", "red_door")}


def actions_of(engine: PortalVectorEnv, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Goes to the right door mostly, to the wrong one at times, and strays."""
    state = engine.get_state()
    rows = np.arange(engine.num_envs)
    right = state["right_door"][rows, state["room"]]
    # Some rooms are got wrong once, and by every fifth agent for ever.
    first_time = state["mistakes"][rows, state["room"]] == 0
    wrong = ((rows + state["room"]) % 3 == 0) & (first_time | (rows % 5 == 0))
    side = np.where(wrong, 1 - right, right)
    strays = rng.random(engine.num_envs) < 0.08
    return np.where(strays, rng.integers(0, 4, engine.num_envs), np.where(side == 1, RIGHT, LEFT))


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"num_rooms": 3, "room_size": 3, "max_mistakes_per_room": 1},
        {"num_rooms": 4, "room_labels": True, "view_size": 5, "max_mistakes_per_room": None},
        {"num_rooms": 3, "room_size": 3, "view_size": 7, "max_steps": 10},
        {"num_rooms": 40, "room_labels": True, "room_size": 3, "max_mistakes_per_room": 5},
    ],
)
def test_engine_and_readable_form_agree(kwargs: dict[str, Any]) -> None:
    """Every observation, reward, flag and info."""
    num_envs = 10
    engine = PortalVectorEnv(num_envs, **kwargs)
    readable = [PortalEnv(**kwargs) for _ in range(num_envs)]
    rng = np.random.default_rng(1)
    obs, _ = engine.reset(seed=1)
    for i, env in enumerate(readable):
        np.testing.assert_array_equal(env.reset(options=layout_of(engine, i))[0]["image"], obs[i])
    success = failed = truncations = 0
    for _ in range(700):
        actions = actions_of(engine, rng)
        obs, rewards, terminated, truncated, infos = engine.step(actions)
        state = engine.get_state()
        for i, env in enumerate(readable):
            seen, reward, is_terminated, is_truncated, info = env.step(actions[i])
            assert (reward, is_terminated, is_truncated) == (rewards[i], terminated[i], truncated[i])
            assert info == {name: infos[name][i] for name in ("success", "rooms_reached")}
            if is_terminated or is_truncated:
                np.testing.assert_array_equal(seen["image"], infos["final_obs"][i])
                seen, _ = env.reset(options=layout_of(engine, i))
            np.testing.assert_array_equal(seen["image"], obs[i])
            for field, value in env.get_state().items():
                np.testing.assert_array_equal(value, state[field][i])
        success += int(infos["success"].sum())
        failed += int((terminated & ~infos["success"]).sum())
        truncations += int(truncated.sum())
    if "max_steps" in kwargs:
        assert truncations > 30
    if kwargs.get("num_rooms", 10) < 40:
        assert success > 5
    if kwargs.get("max_mistakes_per_room", 2) is not None:
        assert failed > 3


def test_layouts_are_uniform_and_independent() -> None:
    """20,000 layouts of 50 rooms: every bit, and every pair of neighbours, within 5 standard deviations."""
    engine = PortalVectorEnv(20_000, num_rooms=50)
    engine.reset(seed=1)
    state = engine.get_state()
    bits = np.concatenate([state["right_door"], state["red_door"]], axis=1)
    deviation = 5 * np.sqrt(0.25 / 20_000)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < deviation
    correlation = np.corrcoef(bits.T) - np.eye(bits.shape[1])
    assert np.abs(correlation).max() < 5.5 / np.sqrt(20_000)
    before = bits
    engine.reset()
    after = engine.get_state()
    same = before == np.concatenate([after["right_door"], after["red_door"]], axis=1)
    assert np.abs(same.mean(axis=0) - 0.5).max() < deviation


def test_options_for_one_and_for_all() -> None:
    engine = PortalVectorEnv(2, num_rooms=3)
    engine.reset(options={"right_door": ["west", "east"], "red_door": [["east", "west"], ["west", "west"]]})
    state = engine.get_state()
    assert state["right_door"].tolist() == [[0, 1], [0, 1]]
    assert state["red_door"].tolist() == [[1, 0], [0, 0]]
    with pytest.raises(ValueError, match=r"must be of shape \(2,\) or \(2, 2\), got shape \(3,\)"):
        engine.reset(options={"right_door": ["west"] * 3})


def test_states_outside_the_limits_are_refused() -> None:
    engine = PortalVectorEnv(2)
    engine.reset(seed=0)
    state = engine.get_state()
    for field, value, allowed in (
        ("room", 1, "0 to 0"),
        ("x", 5, "0 to 4"),
        ("mistakes", 2, "0 to 1"),
        ("rooms_reached", 0, "1 to 9"),
    ):
        with pytest.raises(ValueError, match=rf"state\['{field}'\] must be from {allowed}, got {value}"):
            engine.set_state(state | {field: np.full_like(state[field], value)})


@pytest.mark.parametrize("mode", ["rgb_array", "ansi"])
def test_engine_pictures_are_the_readable_forms(mode: str) -> None:
    engine = PortalVectorEnv(2, num_rooms=4, render_mode=mode)
    engine.reset(seed=3)
    envs = []
    for i in range(2):
        env = PortalEnv(num_rooms=4, render_mode=mode)
        env.reset(options=layout_of(engine, i))
        envs.append(env)
    for _ in range(4):
        engine.step(np.array([RIGHT, LEFT]))
        for env, action in zip(envs, (RIGHT, LEFT), strict=True):
            env.step(action)
    frames = engine.render()
    assert frames is not None
    for frame, env in zip(frames, envs, strict=True):
        np.testing.assert_array_equal(frame, env.render())
