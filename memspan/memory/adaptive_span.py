"""Adaptive-Span: every head learns how far back it reads.

Source: Sukhbaatar et al., Adaptive Attention Span in Transformers, 2019, arXiv 1905.07799.

For a head with span z, a learnt number between 0 and L, and a memory at distance d from the query:

    mask        m   = clip((R + z - d) / R, 0, 1)   R: ramp length
    attention   softmax(score + log m)              the same as masking the softmax and renormalising
    penalty     z, mean over heads, at every step

What is remembered: the inputs of each layer for as long as one of its heads can read them, without
gradient. State: see `memspan.memory.slots`; S is at most L + R after a block. What was dropped while spans
were short does not come back as they grow.

Where we differ from the paper: a pre-norm layer, positions are those of `memspan.memory.attention`, and
instead of clipping z after each update its gradient is (`within`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memspan.memory.base import ParameterGroup
from memspan.memory.few_rows import Weights
from memspan.memory.masked_block import Readable
from memspan.memory.ramp import SpanConfig, log_ramp_mask, span_groups
from memspan.memory.registry import register
from memspan.memory.slots import Remembering, SlotTransformer
from memspan.memory.step_attention import on_cpu_without_graph
from memspan.memory.windows import remember_in_windows


@dataclass(frozen=True)
class AdaptiveSpanConfig(SpanConfig):
    """Settings of `adaptive-span`."""

    initial_span: float = 0.5
    """First spans as a fraction of max_span."""

    def validate(self) -> None:
        super().validate()
        self._require("initial_span", 0 <= self.initial_span <= 1, "from 0 to 1")


class _Within(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fraction: Tensor) -> Tensor:
        ctx.save_for_backward(fraction)
        return fraction.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (fraction,) = ctx.saved_tensors
        # A step goes against the gradient.
        outwards = ((fraction <= 0) & (grads[0] > 0)) | ((fraction >= 1) & (grads[0] < 0))
        return grads[0].masked_fill(outwards, 0.0)


def within(fraction: Tensor) -> Tensor:
    """clip(fraction, 0, 1) with a gradient that can lead back from the limits, but not further out."""
    clipped: Tensor = _Within.apply(fraction)  # type: ignore[no-untyped-call]
    return clipped


@register("adaptive-span")
class AdaptiveSpan(SlotTransformer):
    """A sliding window for each head, as long as it has learnt to be."""

    Config = AdaptiveSpanConfig

    def __init__(self, width: int, config: AdaptiveSpanConfig | None = None) -> None:
        config = config or AdaptiveSpanConfig()
        super().__init__(width, config, horizon=config.max_span + config.ramp)
        self.max_span = config.max_span
        self.ramp = config.ramp
        self.span_learning_rate = config.span_learning_rate
        self.initial_slots = 16
        self.span_fractions = nn.ParameterList(
            torch.full((config.n_heads,), float(config.initial_span)) for _ in range(config.n_layers)
        )
        self._weights = [Weights(self, f"span_fractions.{n}") for n in range(config.n_layers)]

    def spans(self, layer: int) -> Tensor:
        """Spans of a layer's heads in steps, (H,)."""
        return self.max_span * within(self.span_fractions[layer])

    def lifetime(self, layer: int, slots: Tensor) -> Tensor:
        return self.spans(layer).detach().amax() + self.ramp

    def readable(self, layer: int, slots: Tensor, distance: Tensor) -> Readable:
        span = self.spans(layer)
        bias = log_ramp_mask(span[:, None, None], distance.unsqueeze(1), self.ramp)  # (B, H, T, K)
        return Readable(bias, {"span": span.mean().expand(distance.shape[:2])})

    def _remember_by_mask(self, layer: int, hidden: Tensor, age: Tensor, u: Tensor) -> Remembering:
        if not (on_cpu_without_graph(u) and (weights := self._weights[layer].arrays())):
            return super()._remember_by_mask(layer, hidden, age, u)
        spans = weights[0], self.max_span, self.ramp
        return remember_in_windows(hidden, age, u, spans, self._grow)

    @property
    def capacity(self) -> float:
        return float(self.max_span + self.ramp - 1)

    def parameter_groups(self) -> list[ParameterGroup]:
        # The learning rate is that of spans as fractions of L.
        return span_groups(self.span_learning_rate, self.span_fractions)
