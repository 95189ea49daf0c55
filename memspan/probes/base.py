"""What every probe is: a question about the past, asked of a memory that learns to answer by supervision.

Dimension letters, besides those of `memspan.memory.base`:
    F  numbers of an input          Q  questions at the end of a sequence
    O  numbers of an output         V  symbols
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Sequences:
    """B sequences of T steps. The last Q steps ask; every row is asked at the same steps."""

    x: Tensor
    """(T, B, F) inputs; a step is a vector whose length is about 1."""
    answers: Tensor
    """(Q, B) long: symbols; or (Q, B, O): values."""


@dataclass(frozen=True)
class Probe(ABC):
    """Settings and data of a probe. It is trained and tested anew at each of its sizes."""

    seed: int = 0
    """Of everything random: symbols, sequences, first weights."""

    name: ClassVar[str]
    measure: ClassVar[Literal["accuracy", "error"]] = "accuracy"
    """Accuracy: share of right answers. Error: squared, 1 for the best constant answer."""
    size_name: ClassVar[str]
    """The field with the sizes."""
    size_label: ClassVar[str]
    """What a size is, for a figure's axis."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rising, each once."""
        return tuple(sorted(set(getattr(self, self.size_name))))

    @property
    @abstractmethod
    def chance(self) -> float:
        """What is measured without memory, at best."""

    @abstractmethod
    def n_inputs(self, size: int) -> int:
        """F."""

    @abstractmethod
    def n_outputs(self, size: int) -> int:
        """O."""

    @abstractmethod
    def draw(self, size: int, batch_size: int, generator: torch.Generator) -> Sequences:
        """Sequences of exactly this size."""

    def training_size(self, size: int, generator: torch.Generator) -> int:
        """The size of the next batch to learn from, of a memory that will be tested at `size`.

        By default log-uniform in 1..size, so that what is learnt over short times, within one block,
        can teach what has to last for long.
        """
        drawn = torch.rand((), generator=generator, dtype=torch.float64).item()
        return min(size, int(math.exp(drawn * math.log(size + 1))))

    def loss(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """Mean over outputs (..., O) and their answers."""
        return F.cross_entropy(outputs.flatten(0, -2), answers.flatten())

    def scores(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """What is measured, per question: (..., O) -> (...)."""
        return (outputs.argmax(-1) == answers).float()

    def solved(self, score: float) -> bool:
        """Whether this mean score leaves nothing to be learnt."""
        return score == 1

    def generator(self, purpose: str) -> torch.Generator:
        """A source of chance of its own; the same for the same seed, class of probe and purpose."""
        return torch.Generator().manual_seed(
            random.Random(f"{self.seed} {self.name} {purpose}").getrandbits(63)
        )

    def validate(self) -> None:
        """Raises ValueError that names the field, its value and what is allowed."""
        self._require("seed", self.seed >= 0, "at least 0")
        sizes: tuple[int, ...] = getattr(self, self.size_name)
        self._require(self.size_name, len(sizes) > 0 and min(sizes) >= 1, "one number or more, of at least 1")

    def _require(self, name: str, allowed: bool, what: str) -> None:
        if not allowed:
            value = getattr(self, name)
            # As it is typed: --gaps 10 0.
            told = " ".join(map(str, value)) if isinstance(value, tuple) else repr(value)
            raise ValueError(f"{name}={told}: must be {what}")


PROBES: dict[str, type[Probe]] = {}
"""Name -> class; `register` adds to it."""

P = TypeVar("P", bound=type[Probe])


def register(name: str) -> Callable[[P], P]:
    """Class decorator that makes a probe known as `name`."""

    def add(probe_class: P) -> P:
        probe_class.name = name
        PROBES[name] = probe_class
        return probe_class

    return add
