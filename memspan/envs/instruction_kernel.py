"""Numba kernels of Instruction's engine.

Letters: N environments, I instructions of an episode, W words of a sentence, Y templates.

- state (N, 6) int64: the columns below.
- instructions (N, I) int64: actions. Of those not yet received 0, or what the options asked for.
- due (N, I) int64: the step from which an instruction is to be executed; 0 if not yet received.
- sentences (N, W + 1) int64: what is heard now, and a last column for words that fill no slot.
- rng (N,) uint64: streams, see `kernels`.
- limits (12,) int64: the places below.
- templates (Y, W + 1) int64: words, 0 where a slot is.
- slots (Y, 4) int64: where in a template each of `SLOTS` is; W if it is not there.
- kinds (6, 2) int64: a kind's first template and how many it has.
- pay (6,) float64: what the right action at a sentence of a kind pays.
"""

import numpy as np
from numba import njit, uint64

from memspan.envs.instruction_grammar import (
    CHARACTERS,
    OBJECTS,
    SENTENCE_LENGTH,
    SLOTS,
    TEMPLATES,
    VERBS,
    WORD_IDS,
    Kind,
)
from memspan.envs.kernels import (
    DONE,
    F64,
    I64,
    INVALID,
    SUCCESS,
    TERMINATED,
    TRUNCATED,
    U64,
    Bools,
    any_outside,
    below,
    next_bits,
)

# Columns of the state. NEXT is the step from which the next instruction is to be received.
STEP_COUNT, NEXT, RECEIVED, EXECUTED, KIND, REQUIRED = range(6)

# Places of the limits. The thresholds part the range of 32 bits among the distractions.
NUM_INSTRUCTIONS, NUM_VERBS, NUM_OBJECTS, NUM_CHARACTERS, NUM_ACTIONS = range(5)
MIN_GAP, MAX_GAP, MIN_DELAY, MAX_DELAY, THRESHOLD_0, THRESHOLD_1, THRESHOLD_2 = range(5, 12)

JOB, INSTRUCTION, MOMENT = int(Kind.JOB), int(Kind.INSTRUCTION), int(Kind.MOMENT)
FIRST_CHARACTER, FIRST_VERB, FIRST_OBJECT = (WORD_IDS[words[0]] for words in (CHARACTERS, VERBS, OBJECTS))


def build_templates() -> tuple[I64, I64, I64]:
    """Returns `templates` (Y, W + 1), `slots` (Y, 4) and `kinds` (6, 2), see the module."""
    lines = [template.split() for kind in Kind for template in TEMPLATES[kind]]
    templates = np.zeros((len(lines), SENTENCE_LENGTH + 1), dtype=np.int64)
    slots = np.full((len(lines), len(SLOTS)), SENTENCE_LENGTH)
    for y, words in enumerate(lines):
        for p, word in enumerate(words):
            if word in SLOTS:
                slots[y, SLOTS.index(word)] = p
            else:
                templates[y, p] = WORD_IDS[word]
    counts = np.array([len(TEMPLATES[kind]) for kind in Kind])
    return templates, slots, np.stack([np.cumsum(counts) - counts, counts], axis=1)


@njit(cache=True, inline="always")
def _say(
    kind: int,
    asked: int,
    sentences: I64,
    rng: U64,
    limits: I64,
    templates: I64,
    slots: I64,
    kinds: I64,
    i: int,
) -> int:
    """Draws a sentence of a kind; `asked` is the action that it must be about, or 0.

    Everything is drawn for every kind, needed or not, so that all kinds have the same distribution.
    """
    template = kinds[kind, 0] + below(next_bits(rng, i), kinds[kind, 1])
    character = below(next_bits(rng, i), limits[NUM_CHARACTERS])
    away = 1 + below(next_bits(rng, i), limits[NUM_CHARACTERS] - 1)
    other = character + away
    if other >= limits[NUM_CHARACTERS]:
        other -= limits[NUM_CHARACTERS]
    verb = below(next_bits(rng, i), limits[NUM_VERBS])
    thing = below(next_bits(rng, i), limits[NUM_OBJECTS])
    if asked > 0:
        verb = (asked - 1) // limits[NUM_OBJECTS]
        thing = (asked - 1) % limits[NUM_OBJECTS]
    for p in range(templates.shape[1]):
        sentences[i, p] = templates[template, p]
    sentences[i, slots[template, 0]] = FIRST_CHARACTER + character
    sentences[i, slots[template, 1]] = FIRST_CHARACTER + other
    sentences[i, slots[template, 2]] = FIRST_VERB + verb
    sentences[i, slots[template, 3]] = FIRST_OBJECT + thing
    action: int = 1 + verb * limits[NUM_OBJECTS] + thing
    return action


@njit(cache=True, inline="always")
def _listen(
    state: I64,
    instructions: I64,
    due: I64,
    sentences: I64,
    rng: U64,
    limits: I64,
    templates: I64,
    slots: I64,
    kinds: I64,
    i: int,
) -> None:
    """Chooses and draws the sentence of the present step, and what is right there."""
    now = state[i, STEP_COUNT]
    received = state[i, RECEIVED]
    executed = state[i, EXECUTED]
    asked = 0
    if executed < received and due[i, executed] <= now:
        kind = MOMENT
    elif received < limits[NUM_INSTRUCTIONS] and state[i, NEXT] <= now:
        kind = INSTRUCTION
        asked = instructions[i, received]
    else:
        bits = np.int64(next_bits(rng, i) >> uint64(32))
        kind = int(bits >= limits[THRESHOLD_0])
        kind += int(bits >= limits[THRESHOLD_1])
        kind += int(bits >= limits[THRESHOLD_2])
    action = _say(kind, asked, sentences, rng, limits, templates, slots, kinds, i)
    required = 0
    if kind == MOMENT:
        required = instructions[i, executed]
    elif kind == JOB:
        required = action
    elif kind == INSTRUCTION:
        delays = limits[MAX_DELAY] - limits[MIN_DELAY] + 1
        gaps = limits[MAX_GAP] - limits[MIN_GAP] + 1
        instructions[i, received] = action
        due[i, received] = now + limits[MIN_DELAY] + below(next_bits(rng, i), delays)
        state[i, NEXT] = now + limits[MIN_GAP] + below(next_bits(rng, i), gaps)
        state[i, RECEIVED] = received + 1
    state[i, KIND] = kind
    state[i, REQUIRED] = required


@njit(cache=True, inline="always")
def _begin(state: I64, due: I64, rng: U64, limits: I64, i: int) -> None:
    due[i, :] = 0
    state[i, STEP_COUNT] = 0
    state[i, RECEIVED] = 0
    state[i, EXECUTED] = 0
    state[i, NEXT] = below(next_bits(rng, i), limits[MAX_GAP] + 1)


@njit(cache=True)
def start(
    mask: Bools,
    state: I64,
    instructions: I64,
    due: I64,
    sentences: I64,
    rng: U64,
    limits: I64,
    templates: I64,
    slots: I64,
    kinds: I64,
) -> None:
    """Starts new episodes in the environments in `mask` (N,); their `instructions` are those asked for."""
    for i in range(state.shape[0]):
        if mask[i]:
            _begin(state, due, rng, limits, i)
            _listen(state, instructions, due, sentences, rng, limits, templates, slots, kinds, i)


@njit(cache=True)
def step(
    actions: I64,
    state: I64,
    instructions: I64,
    due: I64,
    sentences: I64,
    rng: U64,
    limits: I64,
    templates: I64,
    slots: I64,
    kinds: I64,
    pay: F64,
    obs: I64,
    final_obs: I64,
    rewards: F64,
    flags: Bools,
    executed: I64,
) -> int:
    """Judges every action and says the next sentence, of the next episode where one has ended.

    Args:
        actions: (N,) int64.
        state: changed in place, as are `instructions`, `due`, `sentences` and `rng`.
        instructions: see the module.
        due: see the module.
        sentences: see the module.
        rng: see the module.
        limits: see the module.
        templates: see the module.
        slots: see the module.
        kinds: see the module.
        pay: see the module.
        obs: (N, W) out: what is heard now; the next episode's first sentence where one has ended.
        final_obs: (N, W) out, written only where an episode has ended: the sentence that was answered.
        rewards: (N,) out.
        flags: (4, N) out: terminated, truncated, success, done.
        executed: (N,) out: instructions executed so far in the episode that was acted in.

    Returns:
        The number of episodes that ended, or `INVALID` if an action is outside its range; then nothing was
        changed.
    """
    if any_outside(actions, limits[NUM_ACTIONS]):
        return INVALID

    ended = 0
    for i in range(state.shape[0]):
        kind = state[i, KIND]
        right = actions[i] == state[i, REQUIRED]
        state[i, EXECUTED] += right & (kind == MOMENT)
        success = right & (state[i, EXECUTED] == limits[NUM_INSTRUCTIONS])
        terminated = success | (not right)
        rewards[i] = pay[kind] if right else 0.0
        flags[TERMINATED, i] = terminated
        flags[TRUNCATED, i] = False
        flags[SUCCESS, i] = success
        flags[DONE, i] = terminated
        executed[i] = state[i, EXECUTED]
        if terminated:
            ended += 1
            for p in range(obs.shape[1]):
                final_obs[i, p] = sentences[i, p]
            instructions[i, :] = 0
            _begin(state, due, rng, limits, i)
        else:
            state[i, STEP_COUNT] += 1
        _listen(state, instructions, due, sentences, rng, limits, templates, slots, kinds, i)
        for p in range(obs.shape[1]):
            obs[i, p] = sentences[i, p]
    return ended
