"""What a step does with its slots, on a CPU: it ages them, stores its own, and reads those that are left.

torch would compute scores for free slots and mask them, and give every comparison of ages a pass of its own.
Here a row costs what its used slots cost. H heads, D width, E = 2 * frequencies numbers that tell a distance.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from memspan.memory.fast_exp import F32, softmax

Floats = npt.NDArray[np.floating[Any]]
Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FREE = -1
"""As `memspan.memory.base.FREE`."""


@njit(cache=True)
def store(hidden: Floats, age: Longs, lifetime: Floats, new: Floats) -> int:
    """Ages slots by a step, frees those whose lifetime is over, and stores what is new in a free one.

    Args:
        hidden: (B, S, D) written in place, and so is `age` (B, S).
        age: steps since a slot was stored.
        lifetime: (B, S) of each slot, or (1, 1) of all.
        new: (B, D).

    Returns:
        -1, or the first row without a free slot: it and those after it have nothing stored yet, and are aged.
    """
    one = lifetime.size == 1
    full = -1
    for b in range(len(age)):
        place = -1
        for s in range(age.shape[1]):
            if age[b, s] != FREE:
                age[b, s] += 1
                if age[b, s] >= (lifetime[0, 0] if one else lifetime[b, s]):
                    age[b, s] = FREE
            if place < 0 and age[b, s] == FREE:
                place = s
        if place < 0 and full < 0:
            full = b
        if full < 0:
            age[b, place] = 0
            hidden[b, place] = new[b]
    return full


@njit(cache=True)
def store_rest(hidden: Floats, age: Longs, new: Floats, first: int) -> None:
    """Stores what is new in rows from `first` on, which have been aged, once they have room."""
    for b in range(first, len(age)):
        for s in range(age.shape[1]):
            if age[b, s] == FREE:
                age[b, s] = 0
                hidden[b, s] = new[b]
                break


@njit(error_model="numpy", fastmath={"contract", "nsz", "arcp", "reassoc"})
def add_up(
    out: Floats, out_code: Floats, weights: Floats, live: Longs, slots: Floats, place: Longs, code: Floats
) -> None:
    """What one head reads: the weighted sum of slots, and of their distances' codes."""
    out[:] = F32(0)
    out_code[:] = F32(0)
    for k in range(live.size):
        weight, slot = weights[k], slots[live[k]]
        for d in range(out.size):
            out[d] += weight * slot[d]
        if out_code.size:
            c = code[place[live[k]]]
            for e in range(out_code.size):
                out_code[e] += weight * c[e]


@njit(cache=True, error_model="numpy")
def mask_by_span(age: Longs, span: Floats, ramp: int, bias: Floats, count: Floats) -> None:
    """The log of what remains of each slot: log clip(1 + (span - age) / R, 0, 1), -inf where it is free.

    Args:
        age: (B, S).
        span: (B, S) of each slot, or (1, 1) of all; of slots of age 0, which are read in full, any number.
        ramp: R.
        bias: (B, 1, S) written.
        count: (B,) written: slots that can be read, but for the step's own.
    """
    one = span.size == 1
    for b in range(len(age)):
        count[b] = 0
        for s in range(age.shape[1]):
            if age[b, s] == FREE:
                bias[b, 0, s] = -np.inf
            elif age[b, s] == 0:
                bias[b, 0, s] = 0.0
            else:
                left = 1.0 + ((span[0, 0] if one else span[b, s]) - age[b, s]) / ramp
                if left <= 0.0:
                    bias[b, 0, s] = -np.inf
                else:  # a NaN stays, to be seen
                    count[b] += 1
                    bias[b, 0, s] = 0.0 if left >= 1.0 else math.log(left)


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "arcp", "reassoc"})
def read(
    query: Floats,
    position_query: Floats,
    slots: Floats,
    place: Longs,
    code: Floats,
    bias: Floats,
    out: Floats,
    out_code: Floats,
) -> None:
    """Attention of one query a row over its slots, as they were stored.

    Args:
        query: (H, B, D) of a slot's content.
        position_query: (B, H, E) of its distance.
        slots: (B, S, >= D), of which D numbers are read.
        place: (B, S) row of `code` that tells a slot's distance.
        code: (n, E).
        bias: (B, 1 or H, S), -inf where a slot must not be read; it is not touched then.
        out: (H, B, D) written: what each head reads.
        out_code: (B, H, E) likewise of the code, or nothing, (B, H, 0).
    """
    n_heads, n_slots = query.shape[0], slots.shape[1]
    live = np.empty(n_slots, np.int64)
    scores = np.empty((2, n_slots), slots.dtype)
    for b in range(len(slots)):
        # Two heads at a time share what is loaded of a slot; an odd last one goes twice, and is written once.
        for h in range(0, n_heads, 2):
            other = min(h + 1, n_heads - 1)
            q0, q1 = query[h, b], query[other, b]
            p0, p1 = position_query[b, h], position_query[b, other]
            bias0 = bias[b, h if bias.shape[1] > 1 else 0]
            bias1 = bias[b, other if bias.shape[1] > 1 else 0]
            n = 0
            for s in range(n_slots):
                if bias0[s] == F32(-np.inf) and bias1[s] == F32(-np.inf):
                    continue
                slot, c = slots[b, s], code[place[b, s]]
                score0 = score1 = F32(0)
                for d in range(q0.size):
                    score0 += q0[d] * slot[d]
                    score1 += q1[d] * slot[d]
                for e in range(p0.size):
                    score0 += p0[e] * c[e]
                    score1 += p1[e] * c[e]
                live[n] = s
                scores[0, n] = score0 + bias0[s]
                scores[1, n] = score1 + bias1[s]
                n += 1
            softmax(scores[0, :n])
            add_up(out[h, b], out_code[b, h], scores[0], live[:n], slots[b], place[b], code)
            if other != h:
                softmax(scores[1, :n])
                add_up(out[other, b], out_code[b, other], scores[1], live[:n], slots[b], place[b], code)
