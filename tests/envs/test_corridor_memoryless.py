"""No agent without memory gets above a success of 0.5 in the Corridor.

The argument. Take any length, sides of the doors and policy (a distribution over actions for every
observation).

1. The cue is visible from x = 0 only. At x > 0 the observation, and so the distribution of actions, is the
   same for both cues (`test_observations_tell_nothing_of_the_cue_after_the_start`).
2. At x = 0 three of the four actions change nothing, because no door is at the start. All that the policy can
   make of the cue there is how long it waits before it goes right; and waiting changes nothing but the time
   left.
3. So, the time spent waiting at the start taken out, the walk has one and the same law for both cues. Let A
   and B be the chances that this walk enters the red and the blue door within `max_steps`. It ends in one
   door at most, so A + B <= 1. Waiting can only make it too late, so success is at most A for a red cue and
   at most B for a blue one.
4. Both cues come up half of the time: success <= (A + B) / 2 <= 1/2.

The other tests compute it, with the engine itself as the model of the task.
"""

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from memspan.envs import CorridorEnv, CorridorVectorEnv

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def all_states(min_length: int, max_length: int, sides: int) -> dict[str, Integers]:
    rows = [
        (length, cue, side, x, 0)
        for length in range(min_length, max_length + 1)
        for cue, side, x in itertools.product(range(2), range(sides), range(length))
    ]
    names = ("length", "cue", "red_door", "x", "step_count")
    return dict(zip(names, np.array(rows, dtype=np.int64).T, strict=True))


@pytest.mark.parametrize("view_size", [3, 5, 7])
def test_observations_tell_nothing_of_the_cue_after_the_start(view_size: int) -> None:
    shortest = view_size // 2 + 2
    states = all_states(shortest, 30, sides=2)
    num_envs = len(states["x"])
    engine = CorridorVectorEnv(num_envs, shortest, 30, view_size)
    red, blue = (engine.set_state(states | {"cue": np.full(num_envs, cue)}) for cue in range(2))
    np.testing.assert_array_equal((red == blue).all(axis=(1, 2, 3)), states["x"] > 0)

    env = CorridorEnv(shortest, 30, view_size)
    env.reset(seed=0)
    for i in range(0, num_envs, 7):
        images = []
        for cue in range(2):
            env.set_state({field: int(values[i]) for field, values in states.items()} | {"cue": cue})
            images.append(env.gen_obs()["image"])
        assert np.array_equal(*images) == (states["x"][i] > 0)


class Model(NamedTuple):
    """A small Corridor written out. S states, Z distinct observations, 4 actions; weights sum to 1."""

    observation: Integers  # (S,) which of the Z
    num_observations: int
    start: Floats  # (S,) chance to start there
    follows: Floats  # (S, 4, S) 1 where the action leads, all 0 where it ends the episode
    success: Floats  # (S, 4) 1 where the action enters the right door
    max_steps: int


def write_out(view_size: int, shuffle_doors: bool, lengths: int = 3) -> Model:
    """Asks the engine where every action leads from every state."""
    shortest = view_size // 2 + 2
    longest = shortest + lengths - 1
    states = all_states(shortest, longest, sides=1 + shuffle_doors)
    num_states = len(states["x"])
    engine = CorridorVectorEnv(num_states, shortest, longest, view_size, shuffle_doors)
    images = engine.set_state(states).reshape(num_states, -1)
    distinct, observation = np.unique(images, axis=0, return_inverse=True)
    starts = states["x"] == 0
    index = {tuple(row): i for i, row in enumerate(np.stack(list(states.values()), axis=1)[:, :4].tolist())}
    follows = np.zeros((num_states, 4, num_states))
    success = np.zeros((num_states, 4))
    for action in range(4):
        engine.set_state(states)
        _, rewards, terminated, _, _ = engine.step(np.full(num_states, action))
        success[:, action] = rewards
        after = np.stack(list(engine.get_state().values()), axis=1)[:, :4].tolist()
        for i in np.flatnonzero(~terminated):
            follows[i, action, index[tuple(after[i])]] = 1
    start = np.where(starts, 1 / (lengths * 2 * (1 + shuffle_doors)), 0.0)
    np.testing.assert_allclose(start.sum(), 1)
    return Model(observation.ravel(), len(distinct), start, follows, success, engine.max_steps)


def success_of(model: Model, policies: Floats) -> Floats:
    """Exact success of policies (M, Z, 4) within `max_steps`."""
    actions = policies[:, model.observation]  # (M, S, 4)
    moves = np.einsum("msa,sat->mst", actions, model.follows)
    wins = np.einsum("msa,sa->ms", actions, model.success)
    where = np.broadcast_to(model.start, wins.shape)
    total = np.zeros(len(policies))
    for _ in range(model.max_steps):
        total += (where * wins).sum(axis=1)
        where = np.einsum("ms,mst->mt", where, moves)
    return total


@pytest.mark.parametrize("shuffle_doors", [False, True])
def test_best_of_all_deterministic_policies(shuffle_doors: bool) -> None:
    model = write_out(3, shuffle_doors)
    # Start with either cue; on the way; before the doors; between them (the last two twice if sides are
    # shuffled).
    assert model.num_observations == (7 if shuffle_doors else 5)
    best = 0.0
    choices = np.eye(4)[np.array(list(itertools.product(range(4), repeat=model.num_observations)))]
    for batch in np.array_split(choices, max(1, len(choices) // 4096)):
        best = max(best, float(success_of(model, batch).max()))
    assert best == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("view_size", [3, 5, 7])
@pytest.mark.parametrize("shuffle_doors", [False, True])
def test_stochastic_policies(view_size: int, shuffle_doors: bool) -> None:
    """3,000 policies of every temper, by the Markov chain that each of them makes of the task."""
    model = write_out(view_size, shuffle_doors)
    rng = np.random.default_rng(0)
    policies = np.concatenate(
        [
            rng.dirichlet([concentration] * 4, (1000, model.num_observations))
            for concentration in (0.1, 0.5, 1.0)
        ]
    )
    # Half of them lean to the right, as random ones seldom arrive.
    policies[::2] = 0.1 * policies[::2] + 0.9 * (0.8 * np.eye(4)[0] + 0.2 * policies[::2])
    found = success_of(model, policies)
    assert found.max() <= 0.5 + 1e-12
    assert found.max() > 0.3


@pytest.mark.parametrize("shuffle_doors", [False, True])
def test_without_a_time_limit_every_policy_that_arrives_has_exactly_half(shuffle_doors: bool) -> None:
    model = write_out(3, shuffle_doors)
    rng = np.random.default_rng(1)
    policies = rng.dirichlet([2.0] * 4, (1000, model.num_observations))
    actions = policies[:, model.observation]
    moves = np.einsum("msa,sat->mst", actions, model.follows)
    wins = np.einsum("msa,sa->ms", actions, model.success)
    # s = wins + moves s, state by state.
    solved = np.linalg.solve(np.eye(len(model.start)) - moves, wins[..., None])[..., 0]
    np.testing.assert_allclose(solved @ model.start, 0.5, atol=1e-6)


def test_one_bit_of_memory_is_enough_for_everything() -> None:
    """The model can tell: the best policy that sees the whole state has a success of 1."""
    model = write_out(3, shuffle_doors=True)
    everything = model._replace(observation=np.arange(len(model.start)), num_observations=len(model.start))
    choice = np.where(model.success.any(axis=1), model.success.argmax(axis=1), 0)
    assert success_of(everything, np.eye(4)[choice][None])[0] == pytest.approx(1.0)
