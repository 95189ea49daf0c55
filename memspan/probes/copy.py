"""Copy: repeat a sequence of symbols after a gap in which nothing happens.

    step      0 ... 9               10 ... 9 + gap    then, ten times
    input     symbol and place      blank             "which, at this place?"
    answer                                            the symbol

Source: the copying task of Hochreiter and Schmidhuber, Long Short-Term Memory, 1997, in the form of Arjovsky
et al., Unitary Evolution Recurrent Neural Networks, 2016, arXiv 1511.06464: 8 symbols, ten of them, blanks.

Where we differ: symbols and questions come with their place, so that what is asked for is to keep ten
things; `unnumbered`, as in the papers, the memory has to count them too. And gaps vary while training,
log-uniformly from 1 to the gap that is tested.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from memspan.probes.base import Probe, Sequences, register


@register("copy")
@dataclass(frozen=True)
class Copy(Probe):
    """Repeat a sequence of symbols after a long gap."""

    gaps: tuple[int, ...] = (100, 1000)
    """Blank steps between symbols and questions; trained and tested at each."""
    n_symbols: int = 8
    """V, symbols to tell apart."""
    length: int = 10
    """Symbols of a sequence."""
    unnumbered: bool = False
    """Do not show which place in the sequence a symbol or a question has: it has to be counted."""

    size_name = "gaps"
    size_label = "gap (steps)"

    def validate(self) -> None:
        super().validate()
        self._require("n_symbols", self.n_symbols >= 2, "at least 2")
        self._require("length", self.length >= 1, "at least 1")

    @property
    def chance(self) -> float:
        return 1 / self.n_symbols

    def n_inputs(self, size: int) -> int:
        return self.n_symbols + 1 + self.length

    def n_outputs(self, size: int) -> int:
        return self.n_symbols

    def draw(self, size: int, batch_size: int, generator: torch.Generator) -> Sequences:
        answers = torch.randint(self.n_symbols, (self.length, batch_size), generator=generator)
        x = torch.zeros(2 * self.length + size, batch_size, self.n_inputs(size))
        x[: self.length, :, : self.n_symbols] = F.one_hot(answers, self.n_symbols).float()
        x[-self.length :, :, self.n_symbols] = 1
        if not self.unnumbered:
            place = torch.eye(self.length)[:, None]
            x[: self.length, :, -self.length :] = place
            x[-self.length :, :, -self.length :] = place
        return Sequences(x, answers)
