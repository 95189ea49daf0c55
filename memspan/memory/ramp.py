"""A span's soft end: what lies within it is read in full, and what lies beyond fades over a ramp."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
