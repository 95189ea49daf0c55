"""The words of Instruction: lists, sentences with slots, and the numbers that observations show.

Any verb goes with any object, so that neither tells anything of the other. Verbs appear in one form only, the
same in instructions, in jobs and in what others do. No word of the lists stands in a sentence outside of its
slot.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

CHARACTERS = (
    "guard",
    "cook",
    "smith",
    "miller",
    "tailor",
    "farmer",
    "hunter",
    "sailor",
    "monk",
    "queen",
    "jester",
    "nurse",
)
VERBS = (
    "clean",
    "carry",
    "hide",
    "mend",
    "paint",
    "weigh",
    "fetch",
    "sell",
    "wrap",
    "count",
    "bury",
    "polish",
)
OBJECTS = (
    "lamp",
    "chest",
    "barrel",
    "basket",
    "bench",
    "ladder",
    "kettle",
    "drum",
    "crate",
    "cart",
    "bell",
    "rug",
)


class Kind(IntEnum):
    """Kinds of sentences; the first four are the distractions, in the order of their shares."""

    OTHERS = 0
    ACTING = 1
    SCENERY = 2
    JOB = 3
    INSTRUCTION = 4
    MOMENT = 5


SLOTS = ("{character}", "{other}", "{verb}", "{object}")

TEMPLATES: dict[Kind, tuple[str, ...]] = {
    Kind.OTHERS: (
        "the {character} tells the {other} to {verb} the {object} later",
        "the {other} is to {verb} the {object} later says the {character}",
        "later the {other} must {verb} the {object} for the {character}",
        "the {character} wants the {other} to {verb} the {object} when the time comes",
        "not now but later please {verb} the {object} says the {character} to the {other}",
        "remember to {verb} the {object} the {character} says to the {other}",
        "the {character} looks at the {other} and says you shall {verb} the {object} in a while",
        "the {character} tells the {other} to {verb} the {object} right now",
        "you hear the {character} ask the {other} to {verb} the {object} at once",
    ),
    Kind.ACTING: (
        "the {character} begins to {verb} the {object}",
        "you watch the {character} {verb} the {object}",
        "the {character} would like to {verb} the {object} later",
        "the {character} has no time to {verb} the {object} now",
        "the {character} tells you how to {verb} the {object}",
        "the {character} does not remember to {verb} the {object}",
        "the {character} and the {other} {verb} the {object} while you look on",
        "you see the {character} stop to {verb} the {object} for the {other}",
    ),
    Kind.SCENERY: (
        "rain falls on the roofs and the streets are empty",
        "a cold wind blows from the hills",
        "you hear music from behind the old wall",
        "smoke rises slowly above the houses near the river",
        "the sun goes down and the shadows grow long",
        "nobody says a word to you and time goes by",
        "two crows sit on the fence and look at you",
        "it smells of wet grass and of bread from the oven",
        "now and then a dog barks somewhere in the dark",
        "it is late and the moon stands over the water",
        "the {character} sits by the fire and tells you a story",
        "the {character} and the {other} walk past without a word to you",
    ),
    Kind.JOB: (
        "the {character} asks you to {verb} the {object} right now",
        "the {character} tells you to {verb} the {object} at once",
        "you are to {verb} the {object} now says the {character}",
        "now you must {verb} the {object} for the {character}",
        "please {verb} the {object} right now says the {character} to you",
        "the {character} looks at you and says you shall {verb} the {object} at once",
        "it cannot wait so {verb} the {object} the {character} says to you",
        "the {character} wants you to {verb} the {object} without delay",
    ),
    Kind.INSTRUCTION: (
        "the {character} asks you to {verb} the {object} later",
        "the {character} tells you to {verb} the {object} later",
        "you are to {verb} the {object} later says the {character}",
        "later you must {verb} the {object} for the {character}",
        "not now but later please {verb} the {object} says the {character} to you",
        "the {character} looks at you and says you shall {verb} the {object} in a while",
        "remember to {verb} the {object} the {character} says to you",
        "the {character} wants you to {verb} the {object} when the time comes",
    ),
    Kind.MOMENT: (
        "the time has come to do what you were told first",
        "now do the thing that has waited longest",
        "this is the moment so do what you still have to do",
        "now it is time for the oldest of your duties",
        "go and do at once what you put off the longest",
        "what you were asked to do must be done now",
        "it is time to keep your word",
        "the hour strikes and your next duty cannot wait",
    ),
}


def _vocabulary() -> tuple[str, ...]:
    lists = (*CHARACTERS, *VERBS, *OBJECTS)
    used = {word for templates in TEMPLATES.values() for template in templates for word in template.split()}
    return ("<pad>", *lists, *sorted(used - set(SLOTS)))


VOCABULARY = _vocabulary()
"""Every word that can be heard, whatever the parameters; a word's number is its position. 0 fills up."""

WORD_IDS = {word: number for number, word in enumerate(VOCABULARY)}

SENTENCE_LENGTH = max(len(template.split()) for templates in TEMPLATES.values() for template in templates)
"""Numbers in an observation."""


def encode(sentence: str) -> npt.NDArray[np.int64]:
    """The numbers of a sentence's words, (SENTENCE_LENGTH,), filled up with 0."""
    numbers = [WORD_IDS[word] for word in sentence.split()]
    return np.array(numbers + [0] * (SENTENCE_LENGTH - len(numbers)), dtype=np.int64)


def decode(observation: npt.NDArray[np.int64]) -> str | list[str]:
    """The sentence of one observation (W,), or a list of the sentences of many (N, W)."""
    if observation.ndim == 2:
        return [str(decode(one)) for one in observation]
    return " ".join(VOCABULARY[number] for number in observation if number)


def action_meaning(action: int, num_objects: int) -> str:
    """What an action does: "wait", or the likes of "paint the bench"."""
    if action == 0:
        return "wait"
    verb, thing = divmod(int(action) - 1, num_objects)
    return f"{VERBS[verb]} the {OBJECTS[thing]}"
