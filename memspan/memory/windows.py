"""What a step remembers where each head reads back as far as its own span, whatever the slots hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from memspan.memory.few_rows import Array
from memspan.memory.slots import Remembering
from memspan.memory.step_attention import store_in_slots

Grow = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def remember_in_windows(
    hidden: Tensor, age: Tensor, u: Tensor, spans: tuple[Array, int, int], grow: Grow
) -> Remembering:
    """Ages slots by a step, frees those that no head can read, stores what is new, and masks; by kernels.

    Args:
        hidden: (B, S, D); written, and so is `age`.
        age: (B, S).
        u: (B, D) what is new.
        spans: as fractions of the longest span, (H,) or (1,), which are clipped to what is from 0 to 1; the
            longest span; the ramp.
        grow: adds free slots to every row.

    Returns:
        What the step remembers; its losses are (B,) "span", the mean span.
    """
    from memspan.memory.windows_kernel import mask_by_heads, store_and_mask

    new, n_heads = u.contiguous().numpy(), len(spans[0])
    bias = np.empty((len(new), n_heads, age.shape[1]), new.dtype)
    count, span = np.empty(len(new), new.dtype), np.empty(len(new), new.dtype)
    full = store_and_mask(hidden.numpy(), age.numpy(), *spans, new, bias, count, span)
    if full >= 0:
        hidden, age = grow(hidden, age)
        store_in_slots(hidden, age, None, u, full)
        bias = np.empty((len(new), n_heads, age.shape[1]), new.dtype)
        mask_by_heads(age.numpy(), *spans, bias, count, span)
    losses = {"span": torch.from_numpy(span)}
    return hidden, age, torch.from_numpy(bias), torch.from_numpy(count), losses
