"""What every engine promises about seeds, resets, actions and what it returns, whichever task it is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memspan.envs import CorridorVectorEnv, InstructionVectorEnv, PortalVectorEnv
from memspan.envs.instruction_grammar import Kind
from memspan.envs.vector_engine import VectorEngine

Actions = npt.NDArray[np.int64]


def corridor(num_envs: int, **kwargs: Any) -> VectorEngine:
    return CorridorVectorEnv(num_envs, **{"max_length": 8, "shuffle_doors": True} | kwargs)


def portal(num_envs: int, **kwargs: Any) -> VectorEngine:
    return PortalVectorEnv(num_envs, **{"num_rooms": 4, "room_size": 3} | kwargs)


def instruction(num_envs: int, **kwargs: Any) -> VectorEngine:
    return InstructionVectorEnv(num_envs, **{"num_verbs": 1, "num_objects": 2} | kwargs)


MAKERS: dict[str, Callable[..., VectorEngine]] = {
    "corridor": corridor,
    "portal": portal,
    "instruction": instruction,
}
"""Settings under which random actions end many episodes."""


OPTIONS: dict[str, tuple[dict[str, Any], str, Any]] = {
    "corridor": ({"length": 7}, "length", 7),
    "portal": ({"right_door": ["west", "east", "west"]}, "right_door", [0, 1, 0]),
    "instruction": ({"instructions": [2, 1, 2]}, "instructions", [2, 1, 2]),
}
"""What to ask for, and what the state then has."""

INCONSISTENT: dict[str, tuple[dict[str, int], str]] = {
    "corridor": ({"length": 5, "x": 5}, r"state\['x'\] must be from 0 to 4, got 5 for environment 0"),
    "portal": ({"rooms_reached": 2, "room": 2}, r"state\['room'\] must be from 0 to 1, got 2 for env"),
    "instruction": (
        {"kind": int(Kind.MOMENT), "received": 0},
        r"state\['received'\] must be from 1 to 3, got 0",
    ),
}
"""States of which a part does not go with the rest."""


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[..., VectorEngine]:
    return MAKERS[request.param]


def random_actions(engine: VectorEngine, steps: int, seed: int = 0) -> Actions:
    """(steps, num_envs), with action 0 more often than others, so that something happens."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, engine.num_actions, (steps, engine.num_envs))
    return np.where(rng.random(drawn.shape) < 0.5, 0, drawn)


def play(engine: VectorEngine, actions: Actions) -> list[npt.NDArray[Any]]:
    """Observations, rewards and flags of a run, each (T, num_envs, ...)."""
    steps = [engine.step(row)[:4] for row in actions]
    return [np.stack(column) for column in zip(*steps, strict=True)]


def same_state(one: VectorEngine, state: dict[str, npt.NDArray[Any]], rows: Any = slice(None)) -> bool:
    return all(np.array_equal(values[rows], state[field][rows]) for field, values in one.get_state().items())


def test_same_seed_same_run_whatever_the_number_of_environments(make: Callable[..., VectorEngine]) -> None:
    wide, narrow, alone = (make(n) for n in (8, 3, 1))
    actions = random_actions(wide, 300)
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


def test_reset_without_a_seed_goes_on_with_the_stream(make: Callable[..., VectorEngine]) -> None:
    engine = make(100)
    engine.reset(seed=1)
    first = engine.get_state()
    engine.reset()
    second = engine.get_state()
    assert not same_state(engine, first)
    engine.reset(seed=1)
    assert same_state(engine, first)
    engine.reset()
    assert same_state(engine, second)
    engine.reset(seed=[None] * 99 + [7])
    assert not same_state(engine, second)


def test_first_reset_without_a_seed_is_random(make: Callable[..., VectorEngine]) -> None:
    one, other = make(100), make(100)
    one.reset()
    other.reset()
    assert not same_state(one, other.get_state())


def test_reset_mask_leaves_the_others_alone(make: Callable[..., VectorEngine]) -> None:
    engine = make(4)
    engine.reset(seed=1)
    seen, *_ = engine.step(np.zeros(4, dtype=np.int64))
    before = engine.get_state()
    options = {"reset_mask": np.array([True, False, False, True])}
    obs, _ = engine.reset(seed=77, options=options)
    assert set(options) == {"reset_mask"}
    assert same_state(engine, before, slice(1, 3))
    assert not same_state(engine, before)
    np.testing.assert_array_equal(obs[1:3], seen[1:3])
    # The streams of the others go on as they would have: seeds, too, are for the masked ones.
    engine.reset()
    after = engine.get_state()
    engine.reset(seed=1)
    engine.step(np.zeros(4, dtype=np.int64))
    engine.reset()
    assert same_state(engine, after, slice(1, 3))


@pytest.mark.parametrize("task", MAKERS)
def test_options_are_for_the_environments_in_the_mask(task: str) -> None:
    engine = MAKERS[task](4)
    engine.reset(seed=1)
    before = engine.get_state()
    layout, field, wanted = OPTIONS[task]
    engine.reset(options=layout | {"reset_mask": np.array([True, False, False, True])})
    assert same_state(engine, before, slice(1, 3))
    for i in (0, 3):
        np.testing.assert_array_equal(engine.get_state()[field][i], wanted)


@pytest.mark.parametrize("task", MAKERS)
def test_states_that_contradict_themselves_are_refused(task: str) -> None:
    engine = MAKERS[task](2)
    engine.reset(seed=1)
    state = engine.get_state()
    values, message = INCONSISTENT[task]
    with pytest.raises(ValueError, match=message):
        engine.set_state(
            state | {field: np.full_like(state[field], value) for field, value in values.items()}
        )
    field = next(iter(state))
    for wrong in (state[field] * 1.0, state[field][:1], state[field] > 0):
        with pytest.raises(ValueError, match=rf"state\['{field}'\] must be integers of shape \(2,.*, got"):
            engine.set_state(state | {field: wrong})
    assert same_state(engine, state)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
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
def test_wrong_reset_changes_nothing(
    make: Callable[..., VectorEngine], kwargs: dict[str, Any], message: str
) -> None:
    engine = make(3)
    engine.reset(seed=1)
    before = engine.get_state()
    with pytest.raises(ValueError, match=message):
        engine.reset(**kwargs)
    assert same_state(engine, before)


def test_wrong_actions_change_nothing(make: Callable[..., VectorEngine]) -> None:
    engine = make(3)
    n = engine.num_actions
    engine.reset(seed=1)
    before = engine.get_state()
    for actions, message in (
        ([0, n, 0], rf"^actions must be from 0 to {n - 1}, got {n} for environment 1$"),
        ([0, 0, -1], rf"^actions must be from 0 to {n - 1}, got -1 for environment 2$"),
        (np.array([0, 999, 0]), rf"^actions must be from 0 to {n - 1}, got 999 for environment 1$"),
        ([0, 0], r"^actions must be of shape \(3,\), got shape \(2,\)$"),
        (0, r"^actions must be of shape \(3,\), got shape \(\)$"),
        ([0.0, 1.0, 2.0], rf"^actions must be integers from 0 to {n - 1}, got dtype float64$"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.step(actions)
        assert same_state(engine, before)


def test_actions_of_every_integer_type_and_layout(make: Callable[..., VectorEngine]) -> None:
    engine = make(3)
    engine.reset(seed=1)
    engine.step(np.zeros(3, np.int64))
    after = engine.get_state()
    for actions in (
        [0, 0, 0],
        np.zeros(3, np.int32),
        np.zeros(3, np.uint8),
        np.zeros((3, 2), np.int64)[:, 0],
    ):
        engine.reset(seed=1)
        engine.step(actions)
        assert same_state(engine, after)


@pytest.mark.parametrize(("num_envs", "got"), [(0, "0"), (-1, "-1"), (2.0, "2.0"), (True, "True")])
def test_wrong_number_of_environments(make: Callable[..., VectorEngine], num_envs: Any, got: str) -> None:
    with pytest.raises(ValueError, match=f"^num_envs must be an integer >= 1, got {got}$"):
        make(num_envs)


def test_wrong_render_mode(make: Callable[..., VectorEngine]) -> None:
    with pytest.raises(ValueError, match=r"^render_mode must be None or 'rgb_array'.*, got 'human'$"):
        make(1, render_mode="human")


def test_what_was_returned_is_never_written_again(make: Callable[..., VectorEngine]) -> None:
    engine = make(20)
    held: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = [(obs := engine.reset(seed=1)[0], obs.copy())]
    for row in random_actions(engine, 60):
        *arrays, infos = engine.step(row)
        arrays += [
            infos[key] for key in ("success", *engine.info_names, "final_obs", "_final_obs") if key in infos
        ]
        held += [(array, array.copy()) for array in arrays]
    assert len(held) > 300
    for array, copy in held:
        np.testing.assert_array_equal(array, copy)


def test_state_can_be_taken_and_put_back(make: Callable[..., VectorEngine]) -> None:
    engine = make(30)
    engine.reset(seed=1)
    for row in random_actions(engine, 20):
        obs, *_ = engine.step(row)
    state = engine.get_state()
    other = make(30)
    np.testing.assert_array_equal(other.set_state(state), obs)
    assert same_state(other, state)
    field = next(iter(state))
    with pytest.raises(ValueError, match="state must have the fields"):
        other.set_state({field: state[field]})
    with pytest.raises(ValueError, match=r"state\['step_count'\] must be from 0 to \d+, got -1"):
        other.set_state(state | {"step_count": np.where(np.arange(30) == 2, -1, 0)})
    assert same_state(other, state)


def test_infos_of_the_last_step_are_those_of_the_episode_that_ended(
    make: Callable[..., VectorEngine],
) -> None:
    engine = make(20)
    engine.reset(seed=1)
    ended = 0
    for row in random_actions(engine, 200):
        *_, terminated, truncated, infos = engine.step(row)
        done = terminated | truncated
        assert ("final_info" in infos) == done.any()
        if done.any():
            ended += int(done.sum())
            np.testing.assert_array_equal(infos["_final_info"], done)
            for name in ("success", *engine.info_names):
                np.testing.assert_array_equal(infos["final_info"][name][done], infos[name][done])
                np.testing.assert_array_equal(infos["final_info"][f"_{name}"], done)
    assert ended > 50


@pytest.mark.parametrize("task", MAKERS)
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_going_on_from_a_snapshot_is_never_having_stopped(task: str, data: st.DataObject) -> None:
    num_envs = data.draw(st.integers(1, 5), "num_envs")
    before = data.draw(st.integers(0, 40), "steps before")
    engine, other = MAKERS[task](num_envs), MAKERS[task](num_envs)
    engine.reset(seed=data.draw(st.integers(0, 10**6), "seed"))
    actions = random_actions(engine, before + 60, data.draw(st.integers(0, 9), "actions"))
    obs = engine.reset()[0]
    for row in actions[:before]:
        obs, *_ = engine.step(row)
    snapshot = engine.get_snapshot()
    other.reset(seed=1)
    for row in random_actions(other, data.draw(st.integers(0, 9), "steps of the other")):
        other.step(row)
    np.testing.assert_array_equal(other.set_snapshot(snapshot), obs)
    ended = 0
    for row in actions[before:]:
        (*arrays, infos), (*others, other_infos) = engine.step(row), other.step(row)
        for one, two in zip(arrays, others, strict=True):
            np.testing.assert_array_equal(one, two)
        assert infos.keys() == other_infos.keys()
        for name in ("success", *engine.info_names):
            np.testing.assert_array_equal(infos[name], other_infos[name])
        if "final_obs" in infos:
            done = infos["_final_obs"]
            ended += int(done.sum())
            np.testing.assert_array_equal(infos["final_obs"][done], other_infos["final_obs"][done])
    assert ended > 0  # and so new episodes were drawn
    assert same_state(other, engine.get_state())
    # What was done since has not changed it, nor is it a view of the engine.
    assert not np.array_equal(snapshot["random_streams"], engine.get_snapshot()["random_streams"])


@pytest.mark.parametrize("streams", [None, np.zeros(3, np.int64), np.zeros(2, np.uint64)])
def test_snapshots_that_do_not_fit_change_nothing(make: Callable[..., VectorEngine], streams: Any) -> None:
    engine = make(3)
    engine.reset(seed=1)
    before = engine.get_snapshot()
    engine.step(np.zeros(3, np.int64))
    now = engine.get_snapshot()
    with pytest.raises(ValueError, match=r"snapshot\['random_streams'\] must be uint64 of shape \(3,\)"):
        engine.set_snapshot(before | {"random_streams": streams})
    with pytest.raises(ValueError, match=r"state\['step_count'\]"):
        engine.set_snapshot(before | {"step_count": np.full(3, -1)})
    for field, values in engine.get_snapshot().items():
        np.testing.assert_array_equal(values, now[field])
