"""Numba kernels of Instruction's engine.

Letters: N environments, I instructions of an episode, W words of a sentence, Y templates.

- state (N, 7) int64: the random stream and the columns below.
- instructions (N, I) int64: actions. Of those not yet received 0, or what the options asked for.
- due (N, I) int64: the step from which an instruction is to be executed; 0 if not yet received.
- sentences (N, W) int64: what is heard now.
- limits (12,) int64: the places below.
- templates (Y, W) int64: words, 0 where a slot is.
- slots (Y, 4, 3) int64: of each of `SLOTS` its place in a template, its first word, and 1. Where a template
  has no such slot, a place and the word that is there anyway, and 0: so there is nothing to decide.
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
    U8,
    Bools,
    any_outside,
    below,
    bits_ahead,
    go_on,
    next_bits,
    split,
)

# Columns of the state. NEXT is the step from which the next instruction is to be received.
STEP_COUNT, NEXT, RECEIVED, EXECUTED, KIND, REQUIRED = range(1, 7)
N_COLUMNS = 7

# Places of the limits. The thresholds part the range of 32 bits among the distractions.
NUM_INSTRUCTIONS, NUM_VERBS, NUM_OBJECTS, NUM_CHARACTERS, NUM_ACTIONS = range(5)
MIN_GAP, MAX_GAP, MIN_DELAY, MAX_DELAY, THRESHOLD_0, THRESHOLD_1, THRESHOLD_2 = range(5, 12)

JOB, INSTRUCTION, MOMENT = int(Kind.JOB), int(Kind.INSTRUCTION), int(Kind.MOMENT)
FIRST_WORDS = tuple(WORD_IDS[words[0]] for words in (CHARACTERS, CHARACTERS, VERBS, OBJECTS))
"""Of each of `SLOTS`."""


def build_templates() -> tuple[I64, I64, I64]:
    """Returns `templates` (Y, W), `slots` (Y, 4, 3) and `kinds` (6, 2), see the module."""
    lines = [template.split() for kind in Kind for template in TEMPLATES[kind]]
    templates = np.zeros((len(lines), SENTENCE_LENGTH), dtype=np.int64)
    slots = np.zeros((len(lines), len(SLOTS), 3), dtype=np.int64)
    for y, words in enumerate(lines):
        for p, word in enumerate(words):
            if word not in SLOTS:
                templates[y, p] = WORD_IDS[word]
                slots[y, :] = p, WORD_IDS[word], 0
        for p, word in enumerate(words):
            if word in SLOTS:
                s = SLOTS.index(word)
                slots[y, s] = p, FIRST_WORDS[s], 1
    counts = np.array([len(TEMPLATES[kind]) for kind in Kind])
    return templates, slots, np.stack([np.cumsum(counts) - counts, counts], axis=1)


@njit(cache=True, inline="always")
def _say(
    kind: int,
    asked: int,
    state: I64,
    sentences: I64,
    obs: I64,
    limits: I64,
    templates: I64,
    slots: I64,
    kinds: I64,
    i: int,
) -> int:
    """Draws a sentence of a kind; `asked` is the action that it must be about, or 0.

    Everything is drawn for every kind, needed or not, so that all kinds have the same distribution.
    """
    template = kinds[kind, 0] + below(bits_ahead(state, i, 1), kinds[kind, 1])
    character = below(bits_ahead(state, i, 2), limits[NUM_CHARACTERS])
    other = character + 1 + below(bits_ahead(state, i, 3), limits[NUM_CHARACTERS] - 1)
    other -= limits[NUM_CHARACTERS] * (other >= limits[NUM_CHARACTERS])
    verb = below(bits_ahead(state, i, 4), limits[NUM_VERBS])
    thing = below(bits_ahead(state, i, 5), limits[NUM_OBJECTS])
    go_on(state, i, 5)
    if asked > 0:
        verb = (asked - 1) // limits[NUM_OBJECTS]
        thing = (asked - 1) % limits[NUM_OBJECTS]
    # Written to both, because reading words back that have just been written one by one makes the CPU wait.
    for p in range(SENTENCE_LENGTH):
        sentences[i, p] = obs[i, p] = templates[template, p]
    for s, drawn in enumerate((character, other, verb, thing)):
        place = slots[template, s, 0]
        sentences[i, place] = obs[i, place] = slots[template, s, 1] + slots[template, s, 2] * drawn
    action: int = 1 + verb * limits[NUM_OBJECTS] + thing
    return action


@njit(cache=True, inline="always")
def _listen(
    state: I64,
    instructions: I64,
    due: I64,
    sentences: I64,
    obs: I64,
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
        bits = np.int64(next_bits(state, i) >> uint64(32))
        kind = int(bits >= limits[THRESHOLD_0])
        kind += int(bits >= limits[THRESHOLD_1])
        kind += int(bits >= limits[THRESHOLD_2])
    action = _say(kind, asked, state, sentences, obs, limits, templates, slots, kinds, i)
    required = action * (kind == JOB)
    if kind == MOMENT:
        required = instructions[i, executed]
    elif kind == INSTRUCTION:
        delays = limits[MAX_DELAY] - limits[MIN_DELAY] + 1
        gaps = limits[MAX_GAP] - limits[MIN_GAP] + 1
        instructions[i, received] = action
        due[i, received] = now + limits[MIN_DELAY] + below(bits_ahead(state, i, 1), delays)
        state[i, NEXT] = now + limits[MIN_GAP] + below(bits_ahead(state, i, 2), gaps)
        go_on(state, i, 2)
        state[i, RECEIVED] = received + 1
    state[i, KIND] = kind
    state[i, REQUIRED] = required


@njit(cache=True, inline="always")
def _begin(state: I64, due: I64, limits: I64, i: int) -> None:
    due[i, :] = 0
    state[i, STEP_COUNT] = 0
    state[i, RECEIVED] = 0
    state[i, EXECUTED] = 0
    state[i, NEXT] = below(next_bits(state, i), limits[MAX_GAP] + 1)


@njit(cache=True)
def start(
    mask: Bools,
    state: I64,
    instructions: I64,
    due: I64,
    sentences: I64,
    limits: I64,
    templates: I64,
    slots: I64,
    kinds: I64,
) -> None:
    """Starts new episodes in the environments in `mask` (N,); their `instructions` are those asked for."""
    for i in range(state.shape[0]):
        if mask[i]:
            _begin(state, due, limits, i)
            _listen(state, instructions, due, sentences, sentences, limits, templates, slots, kinds, i)


@njit(cache=True)
def step(
    actions: I64,
    state: I64,
    instructions: I64,
    due: I64,
    sentences: I64,
    limits: I64,
    templates: I64,
    slots: I64,
    kinds: I64,
    pay: F64,
    out: U8,
) -> int:
    """Judges every action and says the next sentence, of the next episode where one has ended.

    Args:
        actions: (N,) int64.
        state: changed in place, as are `instructions`, `due` and `sentences`.
        instructions: see the module.
        due: see the module.
        sentences: see the module.
        limits: see the module.
        templates: see the module.
        slots: see the module.
        kinds: see the module.
        pay: see the module.
        out: see `kernels.split`. `told` is the number of instructions executed so far in the episode that was
            acted in. `obs` is what is heard now, the next episode's first sentence where one has ended.
            `final_obs` is written only where one has: the sentence that was answered.

    Returns:
        The number of episodes that ended, or `INVALID` if an action is outside its range; then nothing was
        changed.
    """
    if any_outside(actions, limits[NUM_ACTIONS]):
        return INVALID

    rewards, told, obs_bytes, final_obs_bytes, flags = split(out, state.shape[0], 1, 8 * SENTENCE_LENGTH)
    obs, final_obs = obs_bytes.view(np.int64), final_obs_bytes.view(np.int64)
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
        told[0, i] = state[i, EXECUTED]
        if terminated:
            ended += 1
            for p in range(SENTENCE_LENGTH):
                final_obs[i, p] = sentences[i, p]
            instructions[i, :] = 0
            _begin(state, due, limits, i)
        else:
            state[i, STEP_COUNT] += 1
        _listen(state, instructions, due, sentences, obs, limits, templates, slots, kinds, i)
    return ended
