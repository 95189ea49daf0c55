"""The hand-written policy of Instruction: what a memory has to learn to do."""

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from memspan.envs.instruction_grammar import (
    CHARACTERS,
    OBJECTS,
    TEMPLATES,
    VERBS,
    VOCABULARY,
    WORD_IDS,
    Kind,
    encode,
)

Integers = npt.NDArray[np.int64]

_LISTS = {"{character}": CHARACTERS, "{other}": CHARACTERS, "{verb}": VERBS, "{object}": OBJECTS}


def _shape(template: str) -> str:
    """The template with the first word of its list in every slot."""
    return " ".join(_LISTS.get(word, (word,))[0] for word in template.split())


def _places(slot: str) -> Integers:
    """Where a slot is in every template; 0 if it is not there."""
    lines = [template.split() for _, template in _TEMPLATES]
    return np.array([words.index(slot) if slot in words else 0 for words in lines])


# Every word, with the first of its list for those of the lists: what sentences of a template have in common.
_CLASSES = np.arange(len(VOCABULARY))
for _words in _LISTS.values():
    _CLASSES[[WORD_IDS[word] for word in _words]] = WORD_IDS[_words[0]]

_TEMPLATES = [(kind, template) for kind in Kind for template in TEMPLATES[kind]]
_KINDS = np.array([kind for kind, _ in _TEMPLATES])
_BY_SHAPE = {encode(_shape(template)).tobytes(): y for y, (_, template) in enumerate(_TEMPLATES)}
_VERB_PLACES, _OBJECT_PLACES = _places("{verb}"), _places("{object}")


def read_sentences(observations: Integers, num_objects: int) -> tuple[Integers, Integers]:
    """Understands sentences.

    Args:
        observations: (N, W).
        num_objects: objects in use, which the numbers of the actions depend on.

    Returns:
        kinds (N,), and actions (N,) that the sentences are about; those mean nothing where there is no verb.

    Raises:
        ValueError: an observation is no sentence of the grammar.
    """
    shapes = _CLASSES[observations]
    template = np.array([_BY_SHAPE.get(shape.tobytes(), -1) for shape in shapes])
    if (template < 0).any():
        raise ValueError("observations must be sentences of the grammar, each (W,) numbers of words")
    rows = np.arange(len(observations))
    verb = observations[rows, _VERB_PLACES[template]] - WORD_IDS[VERBS[0]]
    thing = observations[rows, _OBJECT_PLACES[template]] - WORD_IDS[OBJECTS[0]]
    return _KINDS[template], 1 + verb * num_objects + thing


class ScriptedInstructionPolicy:
    """Solves Instruction from its observations alone.

    Its memory is a queue of instructions per environment. With a `horizon` it forgets, without a trace, what
    it was told more than that many steps ago, and then takes the oldest that it still knows, or waits.

    Args:
        num_objects: the environment's, which the numbers of the actions depend on.
        horizon: steps; None never forgets.
    """

    def __init__(self, num_objects: int = 4, horizon: int | None = None) -> None:
        self.num_objects = num_objects
        self.horizon = horizon
        self.now = 0
        self.pending: list[deque[tuple[int, int]]] = []
        """Of every environment the instructions known, oldest first: when received, and their actions."""

    def act(self, observations: Integers, episode_starts: npt.ArrayLike) -> npt.NDArray[Any]:
        """Chooses the next actions.

        Args:
            observations: (N, W), or (W,) of a single environment.
            episode_starts: (N,), or one, bool: whether the observation is the first of its episode.

        Returns:
            Actions (N,) int64, or () of a single environment.
        """
        sentences = np.atleast_2d(observations)
        if len(self.pending) != len(sentences):
            self.pending = [deque() for _ in sentences]
        for i in np.flatnonzero(episode_starts):
            self.pending[i].clear()
        self.now += 1
        kinds, told = read_sentences(sentences, self.num_objects)
        actions = np.where(kinds == Kind.JOB, told, 0)
        for i in np.flatnonzero(kinds == Kind.INSTRUCTION):
            self.pending[i].append((self.now, int(told[i])))
        for i in np.flatnonzero(kinds == Kind.MOMENT):
            known = self.pending[i]
            while known and self.horizon is not None and self.now - known[0][0] > self.horizon:
                known.popleft()
            if known:
                actions[i] = known.popleft()[1]
        return actions.reshape(np.shape(observations)[:-1])
