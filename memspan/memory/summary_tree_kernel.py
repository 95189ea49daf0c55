"""What a step of `memspan.memory.summary_tree` does with its slots, on a CPU.

B rows, S = M + 1 + levels slots, D width.
"""

from typing import Any

import numpy as np
from numba import njit

from memspan.memory.fast_exp import F32
from memspan.memory.few_rows_kernel import FAST, Floats, Longs, linear, standardise
from memspan.memory.slot_kernel import Bools


@njit(cache=True, error_model="numpy")
def tell_ages(
    steps: Longs,
    starts: Bools,
    memory_size: int,
    after: Longs,
    distance: Longs,
    bias: Floats,
    visible: Floats,
) -> int:
    """Which slots hold something once a step is stored, and how far away that is.

    Args:
        steps: (B,) of the episode before the step.
        starts: (B,) where an episode starts.
        memory_size: M.
        after: (B,) written: steps after it.
        distance: (B, S) written; 0 where there is nothing.
        bias: (B, 1, S) written: -inf where there is nothing, 0 elsewhere.
        visible: (B,) written: slots that hold something, but for the step's own.

    Returns:
        The longest distance.
    """
    window = memory_size + 1
    n_levels = distance.shape[1] - window
    farthest = 0
    for b in range(len(steps)):
        number = 0 if starts[b] else steps[b]
        after[b] = number + 1
        visible[b] = -1
        for s in range(distance.shape[1]):
            if s < window:
                age = (number - s) % window
                there = age <= number
            else:
                # See `memspan.memory.binary_counter.arrivals`.
                many = max(number - memory_size, 0) >> (s - window)
                there = many > 0 if s == window + n_levels - 1 else many % 2 == 1
                age = number + 1 - (many << (s - window))
            distance[b, s] = age if there else 0
            bias[b, 0, s] = F32(0) if there else F32(-np.inf)
            visible[b] += there
            farthest = max(farthest, distance[b, s])
    return farthest


@njit(error_model="numpy", fastmath=FAST)
def merge(
    both: Floats,
    mix: Floats,
    up: Floats,
    level: Floats,
    down: Floats,
    down_bias: Floats,
    split: Floats,
    split_bias: Floats,
    eps: float,
    hidden: Floats,
    out: Floats,
) -> Any:
    """What `memspan.memory.summary_merge.Merge` makes of (2 D,): writes `out` (D,), returns what that lacks.

    There is room for (2 D,) in `hidden`; the weights are as in `store`.
    """
    linear(both, up, level, hidden)
    for i in range(hidden.size):
        hidden[i] = F32(0) if hidden[i] < F32(0) else hidden[i]
    mixed, change = np.empty_like(out), np.empty_like(out)
    linear(both, mix, both[:0], mixed)
    linear(hidden, down, down_bias, change)
    for i in range(out.size):
        change[i] += mixed[i]
    standardise(change, eps, out)
    linear(out, split, split_bias, hidden)
    total = F32(0)
    for i in range(both.size):
        total += (hidden[i] - both[i]) * (hidden[i] - both[i])
    return total / both.dtype.type(both.size)


@njit(cache=True, error_model="numpy", fastmath=FAST)
def store(
    slots: Floats,
    steps: Longs,
    starts: Bools,
    memory_size: int,
    u: Floats,
    mix: Floats,
    up: Floats,
    level: Floats,
    down: Floats,
    down_bias: Floats,
    split: Floats,
    split_bias: Floats,
    eps: float,
    share: float,
    lacks: Floats,
) -> None:
    """Stores what is new in a layer's slots; what leaves the window for it is counted.

    Args:
        slots: (B, S, D) written in place.
        steps: (B,) of the episode, the step included.
        starts: (B,) where an episode starts.
        memory_size: M.
        u: (B, D) what is new.
        mix: (D, 2 D), and so on: weights of `memspan.memory.summary_merge.Merge`.
        up: (2 D, 2 D).
        level: (levels - 1, 2 D).
        down: (D, 2 D).
        down_bias: (D,).
        split: (2 D, D).
        split_bias: (2 D,).
        eps: of the norm.
        share: of the layer among all, for the loss.
        lacks: (B,) of which that share is added.
    """
    window, width = memory_size + 1, u.shape[1]
    both, hidden = np.empty(2 * width, u.dtype), np.empty(2 * width, u.dtype)
    for b in range(len(u)):
        row = slots[b]
        if starts[b]:
            # Leftovers would pass on a NaN even at a weight of 0.
            row[:] = F32(0)
        place, count = (steps[b] - 1) % window, steps[b] - window
        if count > 0:
            summary, n = row[place].copy(), 0
            while n < len(level) and (count >> n) % 2 == 0:
                both[:width] = row[window + n]
                both[width:] = summary
                lack = merge(
                    both, mix, up, level[n], down, down_bias, split, split_bias, eps, hidden, summary
                )
                lacks[b] += lack * u.dtype.type(share)
                n += 1
            row[window + n] = summary
        row[place] = u[b]
