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


def play(engine: CorridorVectorEnv, actions: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
    """Observations, rewards and flags of a run, each (T, num_envs, ...)."""
    steps = [engine.step(row)[:4] for row in actions]
    return [np.stack(column) for column in zip(*steps, strict=True)]


def test_same_seed_same_run_whatever_the_number_of_environments() -> None:
    actions = np.stack([biased_actions(np.random.default_rng(t), 8) for t in range(300)])
    wide, narrow, alone = (CorridorVectorEnv(n, max_length=8, shuffle_doors=True) for n in (8, 3, 1))
    wide.reset(seed=50)
    runs = play(wide, actions)
    assert runs[2].any()
    narrow.reset(seed=50)
    for full, part in zip(runs, play(narrow, actions[:, :3].copy()), strict=True):
        np.testing.assert_array_equal(full[:, :3], part)
    for i in (0, 5):
        alone.reset(seed=50 + i)
        for full, part in zip(runs, play(alone, actions[:, i : i + 1].copy()), strict=True):
            np.testing.assert_array_equal(full[:, i : i + 1], part)
    wide.reset(seed=list(range(50, 58)))
    for full, again in zip(runs, play(wide, actions), strict=True):
        np.testing.assert_array_equal(full, again)
    wide.reset(seed=51)
    assert not np.array_equal(runs[0], play(wide, actions)[0])


def test_reset_without_a_seed_goes_on_with_the_stream() -> None:
    engine = CorridorVectorEnv(100)
    engine.reset(seed=1)
    first = engine.get_state()["length"]
    engine.reset()
    second = engine.get_state()["length"]
    assert not np.array_equal(first, second)
    engine.reset(seed=1)
    engine.reset()
    np.testing.assert_array_equal(engine.get_state()["length"], second)
    engine.reset(seed=[None] * 99 + [7])
    third = engine.get_state()["length"]
    assert not np.array_equal(third, second)


def test_first_reset_without_a_seed_is_random() -> None:
    lengths = []
    for _ in range(2):
        engine = CorridorVectorEnv(100)
        engine.reset()
        lengths.append(engine.get_state()["length"])
    assert not np.array_equal(*lengths)


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


def test_reset_mask_leaves_the_others_alone() -> None:
    engine = CorridorVectorEnv(4, max_length=9)
    engine.reset(seed=1, options={"length": 9})
    seen, *_ = engine.step(np.zeros(4, dtype=np.int64))
    before = engine.get_state()
    mask = np.array([True, False, False, True])
    options = {"reset_mask": mask, "length": 5}
    obs, _ = engine.reset(seed=77, options=options)
    assert set(options) == {"reset_mask", "length"}
    after = engine.get_state()
    assert after["length"].tolist() == [5, 9, 9, 5]
    assert after["x"].tolist() == [0, 1, 1, 0]
    np.testing.assert_array_equal(after["cue"][1:3], before["cue"][1:3])
    np.testing.assert_array_equal(obs[1:3], seen[1:3])
    # The streams of the others go on as they would have: seeds, too, are for the masked ones.
    engine.reset()
    lengths = engine.get_state()["length"]
    engine.reset(seed=1)
    engine.reset()
    assert lengths[1:3].tolist() == engine.get_state()["length"][1:3].tolist()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"options": {"length": [3, 4]}},
            r"options\['length'\] must be one value or of shape \(3,\), got shape \(2,\)",
        ),
        ({"options": {"length": [3, 4, 99]}}, r"options\['length'\] must be an integer from 3 to 9"),
        ({"options": {"cue": ["red", "blue", "green"]}}, r"options\['cue'\] must be 'red' or 'blue'"),
        (
            {"options": {"reset_mask": np.zeros(3, dtype=bool)}},
            r"options\['reset_mask'\] must be a bool array of shape",
        ),
        (
            {"options": {"reset_mask": np.ones(2, dtype=bool)}},
            r"options\['reset_mask'\] must be a bool array of shape",
        ),
        ({"options": {"reset_mask": [0, 1, 2]}}, r"options\['reset_mask'\] must be a bool array of shape"),
        ({"options": {"size": 3}}, r"unknown field 'size'"),
        ({"seed": -1}, r"seed must be None, an integer >= 0 or a list of them, got -1"),
        ({"seed": 1.5}, r"seed must be None, an integer >= 0 or a list of them, got 1.5"),
        ({"seed": [1, 2]}, r"seed must be one seed or 3 of them, got 2"),
        ({"seed": [1, 2, -3]}, r"seed must be None or an integer >= 0, got -3"),
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


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 4, 0], r"^actions must be from 0 to 3, got 4 for environment 1$"),
        ([0, 0, -1], r"^actions must be from 0 to 3, got -1 for environment 2$"),
        (np.array([0, 7, 0]), r"^actions must be from 0 to 3, got 7 for environment 1$"),
        ([0, 0], r"^actions must be of shape \(3,\), got shape \(2,\)$"),
        (0, r"^actions must be of shape \(3,\), got shape \(\)$"),
        ([0.0, 1.0, 2.0], r"^actions must be integers from 0 to 3, got dtype float64$"),
    ],
)
def test_wrong_actions_change_nothing(actions: Any, message: str) -> None:
    engine = CorridorVectorEnv(3)
    engine.reset(seed=1)
    before = engine.get_state()
    with pytest.raises(ValueError, match=message):
        engine.step(actions)
    for field, values in engine.get_state().items():
        np.testing.assert_array_equal(values, before[field])


def test_actions_of_every_integer_type_and_layout() -> None:
    engine = CorridorVectorEnv(3)
    for actions in (
        [0, 0, 0],
        np.zeros(3, np.int32),
        np.zeros(3, np.uint8),
        np.zeros((3, 2), np.int64)[:, 0],
    ):
        engine.reset(seed=1)
        engine.step(actions)
        assert engine.get_state()["x"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("num_envs", "got"), [(0, "0"), (-1, "-1"), (2.0, "2.0")])
def test_wrong_number_of_environments(num_envs: Any, got: str) -> None:
    with pytest.raises(ValueError, match=f"^num_envs must be an integer >= 1, got {got}$"):
        CorridorVectorEnv(num_envs)


def test_wrong_render_mode() -> None:
    with pytest.raises(ValueError, match=r"^render_mode must be None or 'rgb_array', got 'human'$"):
        CorridorVectorEnv(1, render_mode="human")


def test_what_was_returned_is_never_written_again() -> None:
    engine = CorridorVectorEnv(20, max_length=4)
    rng = np.random.default_rng(0)
    held: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = [(obs := engine.reset(seed=1)[0], obs.copy())]
    for _ in range(50):
        *arrays, infos = engine.step(biased_actions(rng, 20))
        arrays += [infos[key] for key in ("success", "final_obs", "_final_obs") if key in infos]
        held += [(array, array.copy()) for array in arrays]
    assert len(held) > 300
    for array, copy in held:
        np.testing.assert_array_equal(array, copy)


def test_state_can_be_taken_and_put_back() -> None:
    engine = CorridorVectorEnv(30, max_length=8, shuffle_doors=True)
    engine.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(20):
        obs, *_ = engine.step(biased_actions(rng, 30))
    state = engine.get_state()
    assert state["x"].any()
    other = CorridorVectorEnv(30, max_length=8)
    np.testing.assert_array_equal(other.set_state(state), obs)
    for field, values in other.get_state().items():
        np.testing.assert_array_equal(values, state[field])
    with pytest.raises(ValueError, match=r"state\['x'\] must be from 0 to \d, got 8 for environment 2"):
        other.set_state(state | {"x": np.where(np.arange(30) == 2, 8, 0)})
    with pytest.raises(
        ValueError, match="state must have the fields length, cue, red_door, x, step_count, got length"
    ):
        other.set_state({"length": state["length"]})


def test_engine_pictures_are_the_readable_forms() -> None:
    engine = CorridorVectorEnv(2, max_length=6, render_mode="rgb_array")
    engine.reset(seed=3)
    engine.step(np.array([RIGHT, RIGHT]))
    frames = engine.render()
    assert frames is not None
    for i, frame in enumerate(frames):
        env = CorridorEnv(max_length=6, render_mode="rgb_array")
        env.reset(options=layout_of(engine, i))
        env.step(RIGHT)
        np.testing.assert_array_equal(frame, env.render())
