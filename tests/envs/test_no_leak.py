"""Nothing that is seen at one moment tells what has to be remembered.

The strongest classifier of single observations is a table: for every distinct observation the answer that
came with it most often. It is made from one half of the data and tested on the other, and has to stay at
chance. That covers colours, positions and anything that counts steps.
"""

import numpy as np
import numpy.typing as npt
import pytest

from memspan.envs import CorridorVectorEnv, InstructionVectorEnv, PortalVectorEnv
from memspan.envs.instruction_grammar import Kind

Array = npt.NDArray[np.int64]


def table_accuracy(observations: npt.NDArray[np.integer], answers: Array) -> tuple[float, int]:
    """Accuracy on the half that the table was not made from, and the number of observations in it."""
    _, looks = np.unique(observations.reshape(len(observations), -1), axis=0, return_inverse=True)
    looks = looks.ravel()
    half = len(answers) // 2
    counts = np.zeros((looks.max() + 1, answers.max() + 1), dtype=np.int64)
    np.add.at(counts, (looks[:half], answers[:half]), 1)
    return float((counts.argmax(axis=1)[looks[half:]] == answers[half:]).mean()), len(answers) - half


def corridor() -> tuple[Array, Array]:
    """Wherever the agent is but at the start, the colour of the cue; one observation of an episode."""
    engine = CorridorVectorEnv(20_000, max_length=30, shuffle_doors=True)
    engine.reset(seed=1)
    state = engine.get_state()
    rng = np.random.default_rng(0)
    state["x"] = rng.integers(1, state["length"])
    return engine.set_state(state), state["cue"]


def portal() -> tuple[Array, Array]:
    """The right door of the room that a stray agent is in, after a while of its own for each."""
    engine = PortalVectorEnv(20_000, num_rooms=4, room_size=3, max_mistakes_per_room=None, max_steps=500)
    obs, _ = engine.reset(seed=1)
    rng = np.random.default_rng(0)
    stop = rng.integers(10, 60, engine.num_envs)
    seen, answers = obs.copy(), np.zeros(engine.num_envs, dtype=np.int64)
    for t in range(1, 60):
        obs, *_ = engine.step(rng.integers(0, 4, engine.num_envs))
        state = engine.get_state()
        now = stop == t
        seen[now] = obs[now]
        answers[now] = state["right_door"][np.arange(engine.num_envs), state["room"]][now]
    return seen, answers


def instruction() -> tuple[Array, Array]:
    """The action that is called for when the moment has come."""
    engine = InstructionVectorEnv(1000, num_verbs=2, num_objects=2, max_gap=12, min_delay=2, max_delay=9)
    obs, _ = engine.reset(seed=1)
    seen, answers = [], []
    for _ in range(250):
        state = engine.get_state()
        moment = state["kind"] == Kind.MOMENT
        seen.append(obs[moment])
        answers.append(state["required_action"][moment] - 1)
        obs, *_ = engine.step(state["required_action"])
    return np.concatenate(seen), np.concatenate(answers)


def assert_at_chance(observations: npt.NDArray[np.integer], answers: Array, n_answers: int) -> None:
    accuracy, n = table_accuracy(observations, answers)
    chance = 1 / n_answers
    assert abs(accuracy - chance) < 4 * np.sqrt(chance * (1 - chance) / n)


@pytest.mark.parametrize(("task", "n_answers"), [(corridor, 2), (portal, 2), (instruction, 4)])
def test_single_observations_say_nothing_of_the_answer(task, n_answers: int) -> None:  # type: ignore[no-untyped-def]
    observations, answers = task()
    assert len(answers) >= 20_000
    assert_at_chance(observations, answers, n_answers)


def test_the_table_finds_a_leak_where_there_is_one() -> None:
    """The same assertion, with the answer in every tenth observation."""
    observations, answers = corridor()
    observations[::10, 0, 0, 2] = answers[::10] + 1
    with pytest.raises(AssertionError):
        assert_at_chance(observations, answers, 2)
    start = CorridorVectorEnv(20_000)
    seen, _ = start.reset(seed=1)
    assert table_accuracy(seen, start.get_state()["cue"])[0] == 1
