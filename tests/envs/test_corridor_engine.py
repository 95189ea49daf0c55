"""The Corridor's engine: the same rules as the form to read, drawn well, and safe to hold on to."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from memspan.envs import CorridorEnv, CorridorVectorEnv
from memspan.envs.corridor_rules import CUES, SIDES

RIGHT = 0


def biased_actions(rng: np.random.Generator, num_envs: int) -> npt.NDArray[np.int64]:
    """Walks to the right more often than not, so that doors are reached."""
    return rng.choice(4, size=num_envs, p=[0.7, 0.1, 0.1, 0.1])


def layout_of(engine: CorridorVectorEnv, i: int) -> dict[str, Any]:
    state = engine.get_state()
    return {
        "length": int(state["length"][i]),
        "cue": CUES[state["cue"][i]],
        "red_door": SIDES[state["red_door"][i]],
    }


@pytest.mark.parametrize("view_size", [3, 5, 7])
@pytest.mark.parametrize("shuffle_doors", [False, True])
@pytest.mark.parametrize("max_steps", [None, 10])
def test_engine_and_readable_form_agree(view_size: int, shuffle_doors: bool, max_steps: int | None) -> None:
    """Every observation, reward and flag of 300 episodes; many of them truncated where `max_steps` is low."""
    num_envs = 10
    kwargs: dict[str, Any] = {
        "min_length": view_size // 2 + 2,
        "max_length": 10,
        "view_size": view_size,
        "shuffle_doors": shuffle_doors,
        "max_steps": max_steps,
    }
    engine = CorridorVectorEnv(num_envs, **kwargs)
    readable = [CorridorEnv(**kwargs) for _ in range(num_envs)]
    rng = np.random.default_rng(view_size)
    obs, _ = engine.reset(seed=view_size)
    for i, env in enumerate(readable):
        np.testing.assert_array_equal(env.reset(options=layout_of(engine, i))[0]["image"], obs[i])

    counts = {"terminated": 0, "truncated": 0, "success": 0}
    while counts["terminated"] + counts["truncated"] < 300:
        actions = biased_actions(rng, num_envs)
        obs, rewards, terminated, truncated, infos = engine.step(actions)
        state = engine.get_state()
        for i, env in enumerate(readable):
            seen, reward, is_terminated, is_truncated, info = env.step(actions[i])
            assert reward == rewards[i]
            assert is_terminated == terminated[i]
            assert is_truncated == truncated[i]
            assert info["success"] == infos["success"][i]
            if is_terminated or is_truncated:
                assert infos["_final_obs"][i]
                np.testing.assert_array_equal(seen["image"], infos["final_obs"][i])
                seen, _ = env.reset(options=layout_of(engine, i))
            np.testing.assert_array_equal(seen["image"], obs[i])
            assert env.get_state() == {field: values[i] for field, values in state.items()}
        counts["terminated"] += int(terminated.sum())
        counts["truncated"] += int(truncated.sum())
        counts["success"] += int(infos["success"].sum())
    assert counts["success"] > 10
    assert counts["terminated"] - counts["success"] > 10
    assert max_steps is None or counts["truncated"] > 30


def test_layouts_are_uniform() -> None:
    """200,000 layouts: every count within 5 standard deviations of what a uniform draw gives."""
    num_envs = 200_000
    engine = CorridorVectorEnv(num_envs, min_length=3, max_length=200, shuffle_doors=True)
    engine.reset(seed=1)
    state = engine.get_state()

    def assert_uniform(counts: npt.NDArray[np.int64], kinds: int) -> None:
        p = 1 / kinds
        assert len(counts) == kinds
        assert np.abs(counts - num_envs * p).max() < 5 * np.sqrt(num_envs * p * (1 - p))

    lengths, counts = np.unique(state["length"], return_counts=True)
    assert lengths.tolist() == list(range(3, 201))
    assert_uniform(counts, 198)
    assert_uniform(np.bincount(state["cue"]), 2)
    assert_uniform(np.bincount(state["red_door"]), 2)
    # Cue, sides and short or long corridors are independent of each other.
    assert_uniform(np.bincount(state["cue"] + 2 * state["red_door"] + 4 * (state["length"] > 101)), 8)

    fixed = CorridorVectorEnv(1000)
    fixed.reset(seed=1)
    assert not fixed.get_state()["red_door"].any()


def test_successive_layouts_of_one_environment_are_uniform() -> None:
    engine = CorridorVectorEnv(1, min_length=3, max_length=4, shuffle_doors=True)
    engine.reset(seed=1)
    kinds = []
    for _ in range(4000):
        state = engine.get_state()
        kinds.append(int(state["cue"][0] + 2 * state["red_door"][0] + 4 * (state["length"][0] - 3)))
        engine.reset()
    counts = np.bincount(kinds, minlength=8)
    assert np.abs(counts - 500).max() < 5 * np.sqrt(4000 * 7 / 64)
    repeats = np.mean(np.array(kinds[1:]) == np.array(kinds[:-1]))
    assert abs(repeats - 1 / 8) < 5 * np.sqrt(7 / 64 / 4000)


def test_options_fix_one_episode() -> None:
    engine = CorridorVectorEnv(3, max_length=9)
    engine.reset(seed=1)
    drawn = engine.get_state()
    engine.reset(seed=1, options={"length": [3, 9, 4], "cue": "blue"})
    state = engine.get_state()
    assert state["length"].tolist() == [3, 9, 4]
    assert state["cue"].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(state["red_door"], drawn["red_door"])
    engine.reset(options={"cue": ["red", "blue", "red"], "red_door": np.array(["up", "up", "down"])})
    assert engine.get_state()["cue"].tolist() == [0, 1, 0]
    assert engine.get_state()["red_door"].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"options": {"length": [3, 4]}},
            r"options\['length'\] must be one value or of shape \(3,\), got shape \(2,\)",
        ),
        ({"options": {"length": [3, 4, 99]}}, r"options\['length'\] must be an integer from 3 to 9"),
        ({"options": {"cue": ["red", "blue", "green"]}}, r"options\['cue'\] must be 'red' or 'blue'"),
    ],
)
def test_wrong_reset_changes_nothing(kwargs: dict[str, Any], message: str) -> None:
    engine = CorridorVectorEnv(3, max_length=9)
    engine.reset(seed=1)
    before = engine.get_state()
    with pytest.raises(ValueError, match=message):
        engine.reset(**kwargs)
    for field, values in engine.get_state().items():
        np.testing.assert_array_equal(values, before[field])


@pytest.mark.parametrize("mode", ["rgb_array", "ansi"])
def test_engine_pictures_are_the_readable_forms(mode: str) -> None:
    engine = CorridorVectorEnv(2, max_length=6, render_mode=mode)
    engine.reset(seed=3)
    engine.step(np.array([RIGHT, RIGHT]))
    frames = engine.render()
    assert frames is not None
    for i, frame in enumerate(frames):
        env = CorridorEnv(max_length=6, render_mode=mode)
        env.reset(options=layout_of(engine, i))
        env.step(RIGHT)
        np.testing.assert_array_equal(frame, env.render())
