"""Sort: which of two symbols was more frequent in a long stream?

    step      0 ... length - 1     then, Q times
    input     symbol               two symbols, a and b
    answer                         0: a was more frequent; 1: b was

Source: Martins et al., infinity-former: Infinite Memory Transformer, 2021, arXiv 2109.00301, section 4.1.
The stream has V = 20 symbols. At step t it is drawn from the mixture (1 - r) p0 + r p1 with r = (t + 1) /
length: p0 and p1 are drawn anew for each stream, proportional to whole numbers from 1 to 9. So the end of
the stream misleads about its beginning, and all of it has to be remembered.

Where we differ: the paper has all symbols written out in the order of their frequency; here the order is
asked for pair by pair, of symbols whose counts differ. The accuracy over all pairs is (1 + tau) / 2, with
Kendall's tau of the order that a memory would sort the symbols into. While training, lengths vary
log-uniformly from 1 to the length that is tested.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from memspan.probes.base import Probe, Sequences, register

LARGEST_WEIGHT = 9


@register("sort")
@dataclass(frozen=True)
class Sort(Probe):
    """Tell which symbols of a drifting stream were the more frequent ones."""

    lengths: tuple[int, ...] = (100, 1000)
    """Symbols of a stream; trained and tested at each."""
    n_symbols: int = 20
    """V, symbols in the stream."""
    n_questions: int = 16
    """Q, pairs that are asked about at the end of a stream."""

    size_name = "lengths"
    size_label = "length of the stream (steps)"

    def validate(self) -> None:
        super().validate()
        self._require("n_symbols", self.n_symbols >= 2, "at least 2")
        # So many pairs, in both orders, differ where all counts but one are equal.
        most = 2 * (self.n_symbols - 1)
        self._require("n_questions", 1 <= self.n_questions <= most, f"from 1 to {most}")

    @property
    def chance(self) -> float:
        return 0.5

    def n_inputs(self, size: int) -> int:
        return 3 * self.n_symbols

    def n_outputs(self, size: int) -> int:
        return 2

    def draw(self, size: int, batch_size: int, generator: torch.Generator) -> Sequences:
        n = self.n_symbols
        weights = torch.randint(1, LARGEST_WEIGHT + 1, (2, batch_size, n), generator=generator).float()
        first, last = weights / weights.sum(-1, keepdim=True)
        share = (torch.arange(1, size + 1) / size)[:, None, None]
        chances = (1 - share) * first + share * last  # (T, B, V)
        stream = torch.multinomial(chances.flatten(0, 1), 1, generator=generator).view(size, batch_size)
        counts = F.one_hot(stream, n).sum(0)  # (B, V)
        # Where all symbols are equally frequent there is nothing to ask.
        level = (counts == counts[:, :1]).all(1)
        stream[-1, level] = (stream[-1, level] + 1) % n
        shown = F.one_hot(stream, n).float()
        counts = shown.sum(0)
        pairs = self._pairs(counts, generator)  # (B, Q)
        a, b = pairs // n, pairs % n
        asked = torch.cat([torch.zeros(*pairs.shape, n), F.one_hot(a, n), F.one_hot(b, n)], dim=-1)
        x = torch.cat([F.pad(shown, (0, 2 * n)), asked.transpose(0, 1) / 2**0.5])
        return Sequences(x, (counts.gather(1, b) > counts.gather(1, a)).long().T)

    def _pairs(self, counts: Tensor, generator: torch.Generator) -> Tensor:
        """(B, V) -> (B, Q): different pairs a * V + b whose counts differ, any as likely as another."""
        differ = counts[:, :, None] != counts[:, None, :]
        lot = torch.rand(differ.shape, generator=generator).masked_fill_(~differ, -1)
        return lot.flatten(1).topk(self.n_questions).indices
