"""What a step of `memspan.memory.windows` does with its slots before it reads them, on a CPU.

B rows, H heads, S slots, D width.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from memspan.memory.fast_exp import F32
from memspan.memory.slot_kernel import FREE, store

Floats = npt.NDArray[np.floating[Any]]
Longs = npt.NDArray[np.int64]


@njit(cache=True, error_model="numpy")
def mask_by_heads(
    age: Longs, fraction: Floats, max_span: int, ramp: int, bias: Floats, count: Floats, mean: Floats
) -> None:
    """The log of what remains of each slot for each head: log clip(1 + (z - age) / R, 0, 1).

    Args:
        age: (B, S), -1 where a slot is free.
        fraction: (H,) spans as fractions of `max_span`, not clipped yet.
        max_span: L.
        ramp: R.
        bias: (B, H, S) written, -inf where a slot is free.
        count: (B,) written: slots that any head can read, but for the step's own.
        mean: (B,) written: mean of the spans.
    """
    zero, one = F32(0), F32(1)
    span = np.empty_like(fraction)
    total = zero
    for h in range(fraction.size):
        # Comparisons that are false of NaN, which stays to be seen.
        below = one if fraction[h] > one else fraction[h]
        span[h] = bias.dtype.type(max_span) * (zero if below < zero else below)
        total += span[h]
    mean[:] = total / bias.dtype.type(span.size)
    for b in range(len(age)):
        count[b] = 0
        for s in range(age.shape[1]):
            can_be_read = False
            for h in range(span.size):
                left = one + (span[h] - bias.dtype.type(age[b, s])) / bias.dtype.type(ramp)
                if age[b, s] == FREE or left <= zero:
                    bias[b, h, s] = -np.inf
                else:
                    can_be_read = True
                    bias[b, h, s] = zero if left >= one else math.log(left)
            if can_be_read and age[b, s] > 0:
                count[b] += 1


@njit(cache=True, error_model="numpy")
def store_and_mask(
    hidden: Floats,
    age: Longs,
    fraction: Floats,
    max_span: int,
    ramp: int,
    new: Floats,
    bias: Floats,
    count: Floats,
    mean: Floats,
) -> int:
    """Ages slots by a step, frees what no head can read, stores what is new, and masks.

    Args:
        hidden: (B, S, D) written, and so is `age`.
        age: (B, S).
        fraction: as in `mask_by_heads`, and so the rest.
        max_span: L.
        ramp: R.
        new: (B, D).
        bias: (B, H, S) written.
        count: (B,) written.
        mean: (B,) written.

    Returns:
        As `memspan.memory.slot_kernel.store`.
    """
    longest = fraction[0]
    for h in range(fraction.size):
        longest = max(longest, fraction[h])
    lifetime = np.empty((1, 1), fraction.dtype)
    lifetime[0, 0] = max_span * min(max(longest, F32(0)), F32(1)) + ramp
    full = store(hidden, age, lifetime, new)
    if full < 0:
        mask_by_heads(age, fraction, max_span, ramp, bias, count, mean)
    return full
