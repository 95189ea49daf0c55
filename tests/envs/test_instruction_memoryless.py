"""Nothing but memory tells what to execute, and without it success is K ** -n at most.

K = num_verbs * num_objects instructions can be given, n = num_instructions are.

The argument. Take any memoryless policy, a distribution over actions for every sentence.

1. Whatever the agent does, it hears the same: actions change nothing but whether the episode goes on.
2. Instructions are drawn uniformly from K, independently of each other and of everything else that is heard.
   The sentence of a moment is drawn independently of them.
3. So at each moment the policy's action is independent of the action required, which is uniform: it is right
   with a chance of 1 / K at most, whatever happened at the moments before.
4. n moments have to be survived: K ** -n at most, and a fixed guess with perfect answers to everything else
   gets exactly that.

The tests check 2 on what the engine draws, and 4 by playing.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from memspan.envs import InstructionVectorEnv
from memspan.envs.instruction_grammar import CHARACTERS, TEMPLATES, VERBS, WORD_IDS, Kind, encode
from memspan.envs.scripted_instruction import read_sentences

Integers = npt.NDArray[np.int64]


class Heard(NamedTuple):
    """What was heard under perfect play, (T, N, ...), with the oracle's states before each step."""

    sentences: Integers
    states: dict[str, Integers]
    ends: npt.NDArray[np.bool_]

    def of(self, kind: Kind) -> Integers:
        """(M, W) all sentences of a kind."""
        return self.sentences[self.states["kind"] == kind]


def listen(num_envs: int, steps: int, seed: int = 0, **kwargs: Any) -> Heard:
    engine = InstructionVectorEnv(num_envs, **kwargs)
    sentences, _ = engine.reset(seed=seed)
    rows, states, ends = [], [], []
    for _ in range(steps):
        rows.append(sentences)
        states.append(engine.get_state())
        sentences, _, terminated, _, _ = engine.step(states[-1]["required_action"])
        ends.append(terminated)
    stacked = {field: np.stack([state[field] for state in states]) for field in states[0]}
    return Heard(np.stack(rows), stacked, np.stack(ends))


@pytest.fixture(scope="module")
def heard() -> Heard:
    return listen(1000, 300)


def assert_uniform(values: Integers, kinds: int) -> None:
    """Every count within 5 standard deviations of what a uniform draw gives."""
    counts = np.bincount(values, minlength=kinds)
    assert len(counts) == kinds
    p, total = 1 / kinds, len(values)
    assert total * p > 50
    assert np.abs(counts - total * p).max() < 5 * np.sqrt(total * p * (1 - p))


@pytest.mark.parametrize("kind", [Kind.OTHERS, Kind.ACTING, Kind.JOB, Kind.INSTRUCTION])
def test_verbs_and_objects_are_uniform_in_every_kind(heard: Heard, kind: Kind) -> None:
    sentences = heard.of(kind)
    kinds, actions = read_sentences(sentences, 4)
    assert (kinds == kind).all()
    assert_uniform(actions - 1, 16)
    first = sentences - WORD_IDS[CHARACTERS[0]]
    characters = np.where((first >= 0) & (first < len(CHARACTERS)), first, -1)
    assert_uniform(characters[characters >= 0], 4)


@pytest.mark.parametrize("kind", list(Kind))
def test_templates_are_uniform(heard: Heard, kind: Kind) -> None:
    sentences = heard.of(kind)
    # A template is known by its words outside of slots.
    first, last = WORD_IDS[CHARACTERS[0]], WORD_IDS[CHARACTERS[0]] + 36
    bare = np.where((sentences >= first) & (sentences < last), -1, sentences)
    _, template = np.unique(bare, axis=0, return_inverse=True)
    assert_uniform(template.ravel(), len(TEMPLATES[kind]))


def test_distractions_come_by_their_shares() -> None:
    shares = {"share_others": 1, "share_acting": 2, "share_scenery": 4, "share_jobs": 3}
    kinds = listen(1000, 100, **shares).states["kind"].ravel()
    counts = np.bincount(kinds, minlength=6)[:4]
    total = counts.sum()
    p = np.array([0.1, 0.2, 0.4, 0.3])
    assert (np.abs(counts - total * p) < 5 * np.sqrt(total * p * (1 - p))).all()


def test_instructions_are_independent_of_each_other() -> None:
    heard = listen(4000, 79, num_verbs=2, num_objects=2, max_gap=12)
    t, i = np.nonzero(heard.ends)
    first = np.unique(i, return_index=True)[1]  # one episode of each environment: long ones are not missed
    assert len(first) == 4000
    given = heard.states["instructions"][t[first], i[first]] - 1
    assert_uniform(given @ [1, 4, 16], 64)


def test_times_are_uniform() -> None:
    """First arrival, gaps and delays, where nothing else holds them up."""
    heard = listen(8000, 120, num_instructions=2, min_gap=2, max_gap=7, min_delay=20, max_delay=29)
    state = heard.states
    firsts, gaps, delays = [], [], []
    for i in range(8000):
        kinds = state["kind"][:, i]
        received = np.flatnonzero(kinds == Kind.INSTRUCTION)[:2]
        executed = np.flatnonzero(kinds == Kind.MOMENT)[:2]
        assert (state["step_count"][: executed[1] + 1, i] == np.arange(executed[1] + 1)).all()
        firsts.append(received[0])
        gaps.append(received[1] - received[0])
        delays.append(executed[0] - received[0])
        due = state["due"][received[1], i]
        assert executed[0] == due[0]
        assert executed[1] == max(due[1], executed[0] + 1)
    assert_uniform(np.array(firsts), 8)
    assert_uniform(np.array(gaps) - 2, 6)
    assert_uniform(np.array(delays) - 20, 10)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"num_instructions": 8, "max_gap": 2, "min_delay": 1, "max_delay": 12},
        {"num_instructions": 1, "max_gap": 1, "min_delay": 1, "max_delay": 1},
        {"num_instructions": 5, "min_gap": 3, "max_gap": 3, "min_delay": 9, "max_delay": 9},
    ],
)
def test_no_episode_is_longer_than_said(kwargs: dict[str, Any]) -> None:
    longest = InstructionVectorEnv(1, **kwargs).parameters.longest_episode
    state = listen(500, 300, **kwargs).states
    assert longest * 0.7 < state["step_count"].max() + 1 <= longest


def test_a_moment_tells_nothing_of_what_is_required() -> None:
    """A table from the sentences of moments to the actions most often required is at chance on new ones."""
    learnt, new = (listen(4000, 100, seed, num_verbs=2, num_objects=2) for seed in (0, 10_000))

    def moments(heard: Heard) -> tuple[Integers, Integers, Integers]:
        here = heard.states["kind"] == Kind.MOMENT
        words = heard.sentences[here][:, None, :]
        spoken = (words == [encode(template) for template in TEMPLATES[Kind.MOMENT]]).all(axis=-1)
        assert spoken.any(axis=1).all()
        return spoken.argmax(axis=1), heard.states["required_action"][here], heard.states["executed"][here]

    sentences, required, executed = moments(learnt)
    for place in range(3):
        assert_uniform(required[executed == place] - 1, 4)
    count = len(TEMPLATES[Kind.MOMENT])
    table = np.array([np.bincount(required[sentences == sentence]).argmax() for sentence in range(count)])
    sentences, required, _ = moments(new)
    right = np.mean(table[sentences] == required)
    assert len(required) > 10_000
    assert abs(right - 1 / 4) < 5 * np.sqrt(3 / 16 / len(required))
    for sentence in range(count):
        assert_uniform(required[sentences == sentence] - 1, 4)


def test_what_is_heard_in_between_tells_nothing_of_what_is_required() -> None:
    """What is said shortly before a moment is about the action required no more often than by chance."""
    heard = listen(4000, 100, num_verbs=2, num_objects=2)
    now, env = np.nonzero((heard.states["kind"] == Kind.MOMENT)[2:])
    for kind in (Kind.OTHERS, Kind.ACTING, Kind.JOB):
        for back in (1, 2):
            before = now + 2 - back
            chosen = heard.states["kind"][before, env] == kind
            _, told = read_sentences(heard.sentences[before[chosen], env[chosen]], 2)
            required = heard.states["required_action"][now[chosen] + 2, env[chosen]]
            assert abs(np.mean(told == required) - 1 / 4) < 5 * np.sqrt(3 / 16 / len(required))


def test_actions_do_not_change_what_is_heard() -> None:
    """As long as an episode lasts, it is the same story; a wrong action ends it."""
    engine = InstructionVectorEnv(200)
    other = InstructionVectorEnv(200)
    engine.reset(seed=3)
    other.reset(seed=3)
    rng = np.random.default_rng(0)
    alive = np.ones(200, dtype=bool)
    for _ in range(60):
        right = engine.get_state()["required_action"]
        drawn = np.where(rng.random(200) < 0.97, right, rng.integers(0, 17, 200))
        obs, _, ends, _, _ = engine.step(right)
        seen, _, terminated, _, infos = other.step(drawn)
        np.testing.assert_array_equal((terminated & ~infos["success"])[alive], (drawn != right)[alive])
        alive &= ~terminated & ~ends
        np.testing.assert_array_equal(obs[alive], seen[alive])
    assert 0 < alive.sum() < 50


@pytest.mark.parametrize(
    ("num_verbs", "num_objects", "num_instructions"), [(1, 2, 2), (1, 3, 1), (2, 2, 2), (1, 2, 4)]
)
def test_the_best_memoryless_policy_is_at_chance(
    num_verbs: int, num_objects: int, num_instructions: int
) -> None:
    num_envs = 2000
    counts = {"num_verbs": num_verbs, "num_objects": num_objects, "num_instructions": num_instructions}
    engine = InstructionVectorEnv(num_envs, **counts, max_gap=5, min_delay=1, max_delay=10)
    obs, _ = engine.reset(seed=1)
    # Exactly 20 episodes of every environment: those that fail are shorter, and would else be too many.
    left = np.full(num_envs, 20)
    success = 0
    while left.any():
        kinds, told = read_sentences(obs, num_objects)
        guess = np.where(kinds == Kind.JOB, told, np.where(kinds == Kind.MOMENT, 1, 0))
        obs, _, terminated, _, infos = engine.step(guess)
        success += int((infos["success"] & (left > 0)).sum())
        left = np.maximum(left - terminated, 0)
    episodes = 20 * num_envs
    p = (num_verbs * num_objects) ** -num_instructions
    assert abs(success / episodes - p) < 5 * np.sqrt(p * (1 - p) / episodes)


def test_words_of_verbs_are_the_first_of_the_list() -> None:
    heard = listen(200, 50, num_verbs=2, num_objects=2, num_characters=2)
    assert WORD_IDS[VERBS[1]] in heard.sentences
    assert WORD_IDS[VERBS[2]] not in heard.sentences
