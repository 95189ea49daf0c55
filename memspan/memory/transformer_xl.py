"""Transformer-XL: the last M steps, all equal.

Source: Dai et al., Transformer-XL: Attentive Language Models beyond a Fixed-Length Context, 2019,
arXiv 1901.02860.

What is remembered: each layer's inputs at the last M steps of the episode, without gradient. State: see
`memspan.memory.slots`, with S at most M + 1 after a block.

Where we differ from the paper: the window is exactly M steps for every query (the paper's cache reaches
between M and M + T), layers are pre-norm, position queries have a projection of their own instead of
sharing the content queries' (a superset of the paper's terms b and d), and few frequencies are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memspan.memory.attention import Residual
from memspan.memory.masked_block import NEVER, Readable
from memspan.memory.registry import register
from memspan.memory.slots import Remembering, SlotTransformer
from memspan.memory.span_attention import Fading
from memspan.memory.transformer import TransformerConfig
from memspan.memory.windows import remember_in_windows


@dataclass(frozen=True)
class TransformerXLConfig(TransformerConfig):
    """Settings of `transformer-xl`."""

    memory_size: int = 200
    """M: how many past steps a layer can read."""

    def validate(self) -> None:
        super().validate()
        self._require("memory_size", self.memory_size >= 1, "at least 1")


@register("transformer-xl")
class TransformerXL(SlotTransformer):
    """A sliding window over the last `memory_size` steps."""

    Config = TransformerXLConfig
    same_slots_in_all_layers = True
    fades = True

    def __init__(
        self,
        width: int,
        config: TransformerXLConfig | None = None,
        residual: Callable[[], Residual] = Residual,
    ) -> None:
        config = config or TransformerXLConfig()
        super().__init__(width, config, horizon=config.memory_size, residual=residual)
        self.memory_size = config.memory_size
        self.initial_slots = config.memory_size + 1

    def lifetime(self, layer: int, slots: Tensor) -> float:
        return self.memory_size + 1

    def readable(self, layer: int, slots: Tensor, distance: Tensor) -> Readable:
        outside = (distance < 0) | (distance > self.memory_size)
        bias = torch.zeros_like(distance).masked_fill_(outside, -NEVER)
        return Readable(bias, {})

    def fading(self, layer: int, slots: Tensor) -> Fading:
        return Fading(slots.new_full((len(slots),), self.memory_size), 1, {})

    def _remember_by_span(self, layer: int, hidden: Tensor, age: Tensor, u: Tensor) -> Remembering:
        spans = np.ones(1, hidden.numpy().dtype), self.memory_size, 1
        hidden, age, bias, count, _ = remember_in_windows(hidden, age, u, spans, self._grow)
        return hidden, age, bias, count, {}

    @property
    def capacity(self) -> float:
        return float(self.memory_size)
