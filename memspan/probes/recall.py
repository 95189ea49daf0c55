"""Recall: which symbol was shown first, after a gap of noise?

    step      0        1 ... gap      gap + 1
    input     symbol   noise          "which?"
    answer                            the symbol

Symbols are V random vectors, drawn once for a seed, and noise is drawn from the same distribution at every
step: nothing marks the symbol but that it is one of V. A memory is trained on gaps drawn log-uniformly from
1 to the gap that it is tested at, from scratch for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from memspan.probes.base import Probe, Sequences, register

N_NUMBERS = 16
"""Of a symbol's vector."""


@register("recall")
@dataclass(frozen=True)
class Recall(Probe):
    """Remember the first symbol over a gap of noise."""

    gaps: tuple[int, ...] = (10, 100, 1000)
    """Steps of noise between symbol and question; trained and tested at each."""
    n_symbols: int = 8
    """V, symbols to tell apart."""

    size_name = "gaps"
    size_label = "gap (steps)"

    def validate(self) -> None:
        super().validate()
        self._require("n_symbols", self.n_symbols >= 2, "at least 2")

    @property
    def chance(self) -> float:
        return 1 / self.n_symbols

    def n_inputs(self, size: int) -> int:
        return N_NUMBERS + 1

    def n_outputs(self, size: int) -> int:
        return self.n_symbols

    @cached_property
    def symbols(self) -> Tensor:
        """(V, 16)."""
        drawn = torch.randn(self.n_symbols, N_NUMBERS, generator=self.generator("symbols"))
        return drawn / math.sqrt(N_NUMBERS)

    def draw(self, size: int, batch_size: int, generator: torch.Generator) -> Sequences:
        answers = torch.randint(self.n_symbols, (1, batch_size), generator=generator)
        x = torch.zeros(size + 2, batch_size, N_NUMBERS + 1)
        noise = torch.randn(size, batch_size, N_NUMBERS, generator=generator)
        x[0, :, :-1] = self.symbols[answers[0]]
        x[1:-1, :, :-1] = noise / math.sqrt(N_NUMBERS)
        x[-1, :, -1] = 1
        return Sequences(x, answers)
