"""A span's soft end: what lies within it is read in full, and what lies beyond fades over a ramp."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memspan.memory.base import ParameterGroup
from memspan.memory.transformer import TransformerConfig


@dataclass(frozen=True)
class SpanConfig(TransformerConfig):
    """Settings that Transformers with learnt spans share."""

    max_span: int = 256
    """L: longest span in steps. Leave slack over the longest gap: a span only approaches L."""
    ramp: int = 16
    """R: steps over which what leaves its span fades."""
    span_learning_rate: float | None = None
    """Learning rate of the spans at the start; None: as everything else."""

    def validate(self) -> None:
        super().validate()
        self._require("max_span", self.max_span >= 1, "at least 1")
        self._require("ramp", self.ramp >= 1, "at least 1")
        self._require(
            "span_learning_rate",
            self.span_learning_rate is None or self.span_learning_rate >= 0,
            "at least 0",
        )


def span_groups(learning_rate: float | None, parameters: Iterable[nn.Parameter]) -> list[ParameterGroup]:
    """The spans' parameters at a pace of their own, if they have one."""
    if learning_rate is None:
        return []
    # Adam divides out how large gradients are: without an eps above their noise, spans would wander at
    # full pace before there is a penalty or a use for memory.
    return [ParameterGroup(list(parameters), learning_rate, {"eps": 1e-3})]


class _LogRampMask(torch.autograd.Function):
    # Autograd's own gradient would multiply 0 by infinity where the mask is 0.

    @staticmethod
    def forward(ctx: Any, span: Tensor, distance: Tensor, ramp: int) -> Tensor:
        mask = (span - distance).div_(ramp).add_(1).clamp_(0, 1)
        mask.masked_fill_(distance < 0, 0)
        ctx.save_for_backward(mask)
        ctx.ramp, ctx.shape = ramp, span.shape
        return mask.log()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        inside = (mask > 0) & (mask < 1)
        grad = torch.where(inside, grads[0] / (mask * ctx.ramp), 0.0)
        return grad.sum_to_size(ctx.shape), None, None


def log_ramp_mask(span: Tensor, distance: Tensor, ramp: int) -> Tensor:
    """The log of clip(1 + (span - distance) / R, 0, 1), -inf in the future.

    Spans and distances are broadcast; spans have a gradient inside the ramp only.
    """
    bias: Tensor = _LogRampMask.apply(span, distance, ramp)  # type: ignore[no-untyped-call]
    return bias
