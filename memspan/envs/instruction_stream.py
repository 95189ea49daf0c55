"""The stream of sentences of Instruction's form to read: its random numbers, and what they make it say."""

from typing import NamedTuple

from memspan.envs.instruction_grammar import CHARACTERS, OBJECTS, TEMPLATES, VERBS, Kind
from memspan.envs.instruction_rules import InstructionParameters

BITS_64 = 2**64 - 1


class Received(NamedTuple):
    """An instruction: its action, and the step from which it is to be executed."""

    action: int
    due: int


class SentenceStream:
    """Draws kinds, sentences and times.

    The random numbers are those of `kernels`, in plain Python: a counter that is hashed (splitmix64).

    Args:
        seed: any integer; seeds next to each other give streams far apart.
        parameters: the environment's.
    """

    def __init__(self, seed: int, parameters: InstructionParameters) -> None:
        self.parameters = parameters
        self._thresholds = parameters.thresholds()
        self._counter = self._mix(seed & BITS_64)

    @staticmethod
    def _mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & BITS_64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & BITS_64
        return z ^ (z >> 31)

    def _bits(self) -> int:
        """32 random bits."""
        self._counter = (self._counter + 0x9E3779B97F4A7C15) & BITS_64
        return self._mix(self._counter) >> 32

    def between(self, lowest: int, highest: int) -> int:
        """A number from `lowest` to `highest`, both included."""
        return lowest + (self._bits() * (highest - lowest + 1) >> 32)

    def distraction(self) -> Kind:
        """Which of the distractions is heard."""
        bits = self._bits()
        return Kind(sum(bits >= threshold for threshold in self._thresholds))

    def say(self, kind: Kind, asked: int = 0) -> tuple[str, int]:
        """Draws a sentence.

        Everything is drawn for every kind, needed or not, so that all kinds have the same distribution.

        Args:
            kind: of the sentence.
            asked: the action that it must be about; 0: any.

        Returns:
            The sentence, and the action that it is about.
        """
        p = self.parameters
        template = TEMPLATES[kind][self.between(0, len(TEMPLATES[kind]) - 1)]
        character = self.between(0, p.num_characters - 1)
        other = (character + self.between(1, p.num_characters - 1)) % p.num_characters
        verb = self.between(0, p.num_verbs - 1)
        thing = self.between(0, p.num_objects - 1)
        if asked:
            verb, thing = divmod(asked - 1, p.num_objects)
        sentence = template.format(
            character=CHARACTERS[character],
            other=CHARACTERS[other],
            verb=VERBS[verb],
            object=OBJECTS[thing],
        )
        return sentence, 1 + verb * p.num_objects + thing
