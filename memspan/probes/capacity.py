"""Capacity: of k pairs of a key and a value, what was the value to this key?

    step      0 ... k - 1        then, Q times
    input     key and value      key and "which value?"
    answer                       the value

Source: Schlag et al., Linear Transformers are Secretly Fast Weight Programmers, 2021, arXiv 2102.11174,
section 6.1. Setting 1, capacity: each of k keys is shown once, in random order. Setting 2 (`replace`): 2 k
keys are drawn from k with replacement, and the last value that a key was shown with is the right one.

What is measured is the squared error, divided by that of the best constant answer. A memory that keeps n
values at right angles has an error of about 0 up to k = n, and of about 1 - n / k from there on: for fast
weights, n is the number of dimensions of their feature map. Values are fresh random numbers, so no pair can
be recognised, and few, so that a key may use almost all of the width.

Where we differ: keys and values are no learnt embeddings of tokens, but one-hot keys and Gaussian values,
which go through one learnt linear map; Q questions follow one another, where the paper asks one; and half of
the batches have fewer keys, any number of them. With all of 128 keys from the start, one value is lost among
the others: in 1,000 batches fast weights did not begin to learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from memspan.probes.base import Probe, Sequences, register

N_NUMBERS = 4
"""Of a value."""
SOLVED = 0.005


@register("capacity")
@dataclass(frozen=True)
class Capacity(Probe):
    """Write pairs of key and value, then look values up by their keys."""

    pairs: tuple[int, ...] = (8, 16, 32, 64, 96, 128)
    """k, keys, the first of max(pairs); tested with each number of them, and trained with up to as many."""
    replace: bool = False
    """Show 2 k pairs with keys drawn with replacement: the last value counts."""
    n_questions: int = 8
    """Q, keys that are asked for at the end of a sequence."""

    measure = "error"
    size_name = "pairs"
    size_label = "keys"

    def validate(self) -> None:
        super().validate()
        self._require("n_questions", self.n_questions >= 1, "at least 1")

    @property
    def chance(self) -> float:
        return 1.0

    def n_inputs(self, size: int) -> int:
        # The same for each size: a key is the same one-hot vector among few keys and among many.
        return self.sizes[-1] + N_NUMBERS + 1

    def n_outputs(self, size: int) -> int:
        return N_NUMBERS

    def training_size(self, size: int, generator: torch.Generator) -> int:
        """The size itself, or uniform in 1..size: among few keys it is learnt what to do."""
        if torch.rand((), generator=generator) < 0.5:
            return size
        return int(torch.randint(1, size + 1, (), generator=generator))

    def draw(self, size: int, batch_size: int, generator: torch.Generator) -> Sequences:
        if self.replace:
            keys = torch.randint(size, (batch_size, 2 * size), generator=generator)
        else:
            keys = torch.rand(batch_size, size, generator=generator).argsort(1)
        n_pairs = keys.shape[1]
        values = torch.randn(batch_size, n_pairs, N_NUMBERS, generator=generator)
        asked = keys.gather(1, torch.randint(n_pairs, (batch_size, self.n_questions), generator=generator))
        # Of equal keys the last pair.
        step = torch.arange(n_pairs).expand_as(keys)
        last = torch.zeros(batch_size, size, dtype=torch.long).scatter_reduce(1, keys, step, "amax")
        answers = values[torch.arange(batch_size)[:, None], last.gather(1, asked)]
        x = torch.zeros(batch_size, n_pairs + self.n_questions, self.n_inputs(size))
        n_keys = self.sizes[-1]
        x[:, :, :n_keys] = F.one_hot(torch.cat([keys, asked], 1), n_keys).float()
        x[:, :n_pairs, n_keys:-1] = values / N_NUMBERS**0.5
        x[:, n_pairs:, -1] = 1
        return Sequences(x.transpose(0, 1).contiguous(), answers.transpose(0, 1))

    def loss(self, outputs: Tensor, answers: Tensor) -> Tensor:
        return F.mse_loss(outputs, answers)

    def scores(self, outputs: Tensor, answers: Tensor) -> Tensor:
        # Values have a variance of 1: that is the error of answering 0.
        return (outputs - answers).square().mean(-1)

    def solved(self, score: float) -> bool:
        return score < SOLVED
