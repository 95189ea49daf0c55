"""Instruction's engine: the same rules and the same stories as the form to read.

What every engine promises is in `test_engines.py`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from memspan.envs import InstructionEnv, InstructionVectorEnv
from memspan.envs.instruction_grammar import Kind

Integers = npt.NDArray[np.int64]

SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_verbs": 2, "num_objects": 2, "num_characters": 2, "num_instructions": 1, "job_reward": 0.0},
    {
        "num_instructions": 6,
        "num_verbs": 12,
        "num_objects": 12,
        "num_characters": 12,
        "max_gap": 3,
        "min_delay": 1,
        "max_delay": 9,
    },
    {"min_gap": 4, "max_gap": 4, "min_delay": 3, "max_delay": 3, "share_jobs": 0, "share_acting": 3},
]


@pytest.mark.parametrize("kwargs", SETTINGS, ids=range(len(SETTINGS)))
@pytest.mark.parametrize("right", [0.0, 0.97, 1.0], ids=["random", "mixed", "oracle"])
def test_engine_and_readable_form_agree(kwargs: dict[str, Any], right: float) -> None:
    """Every observation, reward, flag, info and state of 300 episodes, from the same seeds."""
    num_envs = 10
    engine = InstructionVectorEnv(num_envs, **kwargs)
    readable = [InstructionEnv(**kwargs) for _ in range(num_envs)]
    rng = np.random.default_rng(0)
    obs, infos = engine.reset(seed=40)
    for i, env in enumerate(readable):
        seen, info = env.reset(seed=40 + i)
        np.testing.assert_array_equal(seen, obs[i])
        assert info == infos == {}

    state = engine.get_state()
    ended = succeeded = 0
    while ended < 300:
        drawn = rng.integers(0, engine.num_actions, num_envs)
        actions = np.where(rng.random(num_envs) < right, state["required_action"], drawn)
        obs, rewards, terminated, truncated, infos = engine.step(actions)
        state = engine.get_state()
        for i, env in enumerate(readable):
            seen, reward, is_terminated, is_truncated, info = env.step(actions[i])
            assert reward == rewards[i]
            assert is_terminated == terminated[i]
            assert is_truncated == truncated[i] == False  # noqa: E712
            assert info == {name: infos[name][i] for name in ("success", "executed")}
            if is_terminated:
                assert infos["_final_obs"][i]
                assert np.array_equal(seen, infos["final_obs"][i])
                seen, _ = env.reset()
            assert np.array_equal(seen, obs[i])
            own = env.get_state()
            assert set(own) == set(state)
            assert all(np.array_equal(own[field], values[i]) for field, values in state.items())
        ended += int(terminated.sum())
        succeeded += int(infos["success"].sum())
    if right == 1.0:
        assert succeeded == ended
    elif right:
        assert 10 < succeeded < ended - 10


def oracle_actions(engine: InstructionVectorEnv, steps: int) -> Integers:
    """The right actions from the present state on, (steps, num_envs)."""
    rows = []
    for _ in range(steps):
        rows.append(engine.get_state()["required_action"])
        engine.step(rows[-1])
    return np.stack(rows)


def test_reset_mask_leaves_the_others_alone() -> None:
    engine = InstructionVectorEnv(4, share_jobs=0)
    engine.reset(seed=1)
    seen, *_ = engine.step(np.zeros(4, dtype=np.int64))
    before = engine.get_state()
    asked = [[1, 2, 3]] * 4
    options = {"reset_mask": np.array([True, False, False, True]), "instructions": asked}
    obs, _ = engine.reset(seed=77, options=options)
    assert set(options) == {"reset_mask", "instructions"}
    after = engine.get_state()
    assert after["step_count"].tolist() == [0, 1, 1, 0]
    assert after["instructions"][[0, 3]].tolist() == [[1, 2, 3]] * 2
    for field, values in before.items():
        np.testing.assert_array_equal(after[field][1:3], values[1:3])
    np.testing.assert_array_equal(obs[1:3], seen[1:3])


def test_options_fix_one_episode() -> None:
    engine = InstructionVectorEnv(3, num_instructions=2)
    asked = np.array([[1, 2], [16, 5], [7, 7]])
    for options, expected in (
        ({"instructions": asked}, asked),
        ({"instructions": [("clean", "lamp"), ("mend", "basket")]}, np.array([[1, 16]] * 3)),
    ):
        engine.reset(seed=1, options=options)
        np.testing.assert_array_equal(engine.get_state()["instructions"], expected)
        executed: list[list[int]] = [[], [], []]
        again = np.zeros(3, dtype=bool)
        while not again.all():
            state = engine.get_state()
            for i in np.flatnonzero((state["kind"] == Kind.MOMENT) & ~again):
                executed[i].append(int(state["required_action"][i]))
            again |= engine.step(state["required_action"])[2]
        assert executed == expected.tolist()
        received = engine.get_state()["received"][:, None]
        later = engine.get_state()["instructions"][np.arange(2) >= received]
        assert not later.any()  # the episode after is drawn again


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"options": {"instructions": [[1, 2, 3]] * 2}}, r"options\['instructions'\] must be 3 pairs of one"),
        ({"options": {"instructions": [[1, 2, 17]] * 3}}, r"or 3 actions from 1 to 16, got \[\[1, 2, 17\]"),
    ],
)
def test_wrong_reset_changes_nothing(kwargs: dict[str, Any], message: str) -> None:
    engine = InstructionVectorEnv(3)
    engine.reset(seed=1)
    before = engine.get_state()
    with pytest.raises(ValueError, match=message):
        engine.reset(**kwargs)
    np.testing.assert_equal(engine.get_state(), before)


def test_state_can_be_taken_and_put_back() -> None:
    engine = InstructionVectorEnv(30)
    engine.reset(seed=1)
    oracle_actions(engine, 30)
    state = engine.get_state()
    obs, *_ = engine.step(state["required_action"])
    state = engine.get_state()
    assert state["pending"].any()
    other = InstructionVectorEnv(30)
    np.testing.assert_array_equal(other.set_state(state), obs)
    np.testing.assert_equal(other.get_state(), state)
    for wrong, message in (
        ({"executed": state["received"] + 1}, r"state\['executed'\] must be from 0 to \d, got \d for env"),
        ({"kind": np.full(30, 6)}, r"state\['kind'\] must be from 0 to 5, got 6 for environment 0"),
        ({"step_count": np.full(30, -1)}, r"state\['step_count'\] must be from 0 to \d+, got -1 for"),
        ({"due": state["due"] * 1.0}, r"state\['due'\] must be integers of shape \(30, 3\), got float64"),
        ({"due": state["due"][:, :2]}, r"state\['due'\] must be integers of shape \(30, 3\), got int64 of"),
    ):
        with pytest.raises(ValueError, match=message):
            other.set_state(state | wrong)
        np.testing.assert_equal(other.get_state(), state)
    with pytest.raises(ValueError, match=r"state must have the fields step_count, .*, pending, got kind"):
        other.set_state({"kind": state["kind"]})


@pytest.mark.parametrize("mode", ["rgb_array", "ansi"])
def test_engine_shows_the_present_sentence_and_what_is_pending(mode: str) -> None:
    engine = InstructionVectorEnv(2, share_jobs=0, render_mode=mode)
    engine.reset(seed=3)
    oracle_actions(engine, 20)
    frames = engine.render()
    assert frames is not None
    for i, frame in enumerate(frames):
        env = InstructionEnv(render_mode=mode)
        env.set_state({field: values[i] for field, values in engine.get_state().items()})
        np.testing.assert_array_equal(frame, env.render())
        if mode == "ansi":
            assert env.sentence in frame
