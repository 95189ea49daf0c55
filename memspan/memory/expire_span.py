"""Expire-Span: every memory gets a span, and is dropped when it is over.

Source: Sukhbaatar et al., Not All Memories are Created Equal: Learning to Forget by Expiring, ICML 2021,
arXiv 2105.06548.

For a memory i with hidden state h_i, at distance d from the query:

    span        e_i = L sigmoid(w.h_i + b)          one predictor per layer, shared by the heads
    remaining   r   = e_i - d
    mask        m   = clip(1 + r / R, 0, 1)         R: ramp length; at 0 the memory has expired, for good
    attention   softmax(score + log m)              the same as masking the softmax and renormalising
    penalty     e_i once per memory: "new" charges it when the memory is made, "ramp" in R parts while the
                memory passes through its ramp, so that what outlives its episode is charged less

What is remembered: the inputs of each layer whose span is not over, without gradient; their spans are
computed from them anew, with today's w and b, so that the predictor learns from however old a memory.
State: see `memspan.memory.slots`; S follows what is kept.

Where we differ from the paper: a pre-norm layer, h_i is the normalised input, positions are those of
`memspan.memory.attention`, and the span predictor reads standardised memories (`SpanPredictor`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from memspan.memory.base import ParameterGroup
from memspan.memory.few_rows import Weights
from memspan.memory.masked_block import Readable
from memspan.memory.ramp import SpanConfig, log_ramp_mask, span_groups
from memspan.memory.registry import register
from memspan.memory.slots import SlotTransformer
from memspan.memory.span_attention import Fading
from memspan.memory.spread import over_all
from memspan.memory.step_attention import on_cpu_without_graph


@dataclass(frozen=True)
class ExpireSpanConfig(SpanConfig):
    """Settings of `expire-span`."""

    initial_span: float = 0.9
    """First spans as a fraction of max_span; above 0.5, see `SpanPredictor`."""
    divide_logit_by_ramp: bool = False
    """e = L sigmoid((w.h + b) / R): for an L of thousands, where a small step of w would move spans far."""
    shorten_spans: bool = False
    """While training, cut all spans to a random limit from U(0, L): a regulariser for large L."""
    penalty: Literal["new", "ramp"] = "new"
    """When a memory's span is charged: when it is made, or while it passes through its ramp."""

    def validate(self) -> None:
        super().validate()
        self._require("initial_span", 0 < self.initial_span < 1, "between 0 and 1, both excluded")
        self._require("penalty", self.penalty in ("new", "ramp"), "'new' or 'ramp'")


class SpanPredictor(nn.Module):
    """w.z + sqrt(D) b', with z the memory standardised over memories in general, as by a batch norm.

    A linear function of the memory, but one that learns differently. The penalty's gradient goes with the
    slope of the sigmoid. On average z is 0, so that where all slopes are equal the penalty moves b' alone;
    and as the spans of the many fall from near L, where slopes are small, to L / 2, where they are
    steepest, w is moved so that what is rare, far from the average, gets longer spans than before. Only
    below L / 2 it turns against the rare. So first spans near L separate the two before any is too short.

    The factor sqrt(D) sets the pace of b' under an optimiser with steps of fixed length, like Adam: faster
    than one weight of w, slower than all of them together on a rare memory.

    Args:
        width: D.
        logit: first output, whatever the memory.
    """

    mean: Tensor
    variance: Tensor
    decay = 0.99
    eps = 1e-3

    def __init__(self, width: int, logit: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.tensor(logit / width**0.5))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, slots: Tensor) -> Tensor:
        """(..., D) memories -> (...) logits."""
        weight = self.weight / (self.variance + self.eps).sqrt()
        constant = len(weight) ** 0.5 * self.bias - weight @ self.mean
        logit: Tensor = slots @ weight + constant
        return logit

    @torch.no_grad()
    def update_statistics(self, slots: Tensor) -> None:
        """Moves mean and variance towards those of memories (B, T, D)."""
        own = slots.mean((0, 1))
        mean = over_all(own)
        variance = over_all(slots.var((0, 1), correction=0) + (own - mean).square())
        # New tensors: a graph may still hold the old ones.
        self.mean = torch.lerp(mean, self.mean, self.decay)
        self.variance = torch.lerp(variance, self.variance, self.decay)


@register("expire-span")
class ExpireSpan(SlotTransformer):
    """Slots that expire."""

    Config = ExpireSpanConfig

    def __init__(self, width: int, config: ExpireSpanConfig | None = None) -> None:
        config = config or ExpireSpanConfig()
        super().__init__(width, config, horizon=config.max_span + config.ramp)
        self.max_span = config.max_span
        self.ramp = config.ramp
        self.penalty = config.penalty
        self.shorten_spans = config.shorten_spans
        self.span_learning_rate = config.span_learning_rate
        self.logit_scale = 1 / config.ramp if config.divide_logit_by_ramp else 1.0
        self.initial_slots = 16
        logit = math.log(config.initial_span / (1 - config.initial_span)) / self.logit_scale
        self.span_predictors = nn.ModuleList(SpanPredictor(width, logit) for _ in range(config.n_layers))
        names = "weight", "bias", "mean", "variance"
        self._weights = [
            Weights(self, *(f"span_predictors.{n}.{name}" for name in names)) for n in range(config.n_layers)
        ]

    def spans(self, layer: int, slots: Tensor) -> Tensor:
        """Spans in steps, (...), of slots (..., D)."""
        if on_cpu_without_graph(slots) and (weights := self._weights[layer].arrays()):
            from memspan.memory.few_rows_kernel import spans

            out = slots.new_empty(slots.shape[:-1])
            arguments: list[Any] = [slots.reshape(-1, self.width).numpy(), *weights]
            arguments += [SpanPredictor.eps, self.max_span, self.logit_scale, out.view(-1).numpy()]
            spans(*arguments)
            return out
        logit: Tensor = self.span_predictors[layer](slots)
        return self.max_span * torch.sigmoid(logit * self.logit_scale)

    def lifetime(self, layer: int, slots: Tensor) -> Tensor:
        return self.spans(layer, slots) + self.ramp

    def readable(self, layer: int, slots: Tensor, distance: Tensor) -> Readable:
        slots = slots.detach()
        span = self.spans(layer, slots)
        bias = log_ramp_mask(self._shorten(span).unsqueeze(1), distance, self.ramp)
        if self.penalty == "new":
            share = (distance == 0).to(span.dtype)  # (B, T, K)
        else:
            share = ((bias < 0) & bias.isfinite()).to(span.dtype) / self.ramp
        return Readable(bias, {"span": (share @ span.unsqueeze(-1)).squeeze(-1)})

    @property
    def fades(self) -> bool:
        # Charged on the ramp, a memory's price depends on every query that reads it there.
        return self.penalty == "new"

    def fading(self, layer: int, slots: Tensor) -> Fading:
        span = self.spans(layer, slots.detach())
        return Fading(self._shorten(span), self.ramp, {"span": span})

    def learn_about(self, layer: int, slots: Tensor) -> None:
        """While training, lets the predictor see a block's memories (B, T, D).

        Not before: slots read by one predictor and kept by another could come back after they had expired.
        """
        if self.training and torch.is_grad_enabled():
            predictor = self.span_predictors[layer]
            assert isinstance(predictor, SpanPredictor)
            predictor.update_statistics(slots)

    def _shorten(self, span: Tensor) -> Tensor:
        """While training, cuts spans to a random limit, if that is asked for."""
        if self.shorten_spans and self.training and torch.is_grad_enabled():
            return span.clamp(max=self.max_span * torch.rand(1, device=span.device))
        return span

    @property
    def capacity(self) -> float:
        return float(self.max_span + self.ramp - 1)

    def parameter_groups(self) -> list[ParameterGroup]:
        return span_groups(self.span_learning_rate, self.span_predictors.parameters())
