"""A step of `memspan.memory.compressive` on a CPU: what torch would do call by call for a few numbers each.

Letters: n_m steps in full, c steps of a group, n_cm compressed memories, R = n_m + c columns of steps,
S = n_cm + R slots, B rows, D width, H heads, P rows that compress, G groups that one of them reads.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from memspan.memory.fast_exp import F32, softmax
from memspan.memory.few_rows_kernel import FAST, linear

Floats = npt.NDArray[np.floating[Any]]
Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@njit(cache=True)
def plan_step(
    index: Longs,
    starts: Bools,
    memory_size: int,
    rate: int,
    compressed_size: int,
    distance: Longs,
    bias: Floats,
    count: Floats,
    column: Longs,
) -> int:
    """Moves on by a step, and says what the columns then hold, as `memspan.memory.compressive_layout` does.

    Args:
        index: (B,) step of the episode, read and written.
        starts: (B,) where an episode starts.
        memory_size: n_m.
        rate: c.
        compressed_size: n_cm.
        distance: (B, S) written: ages, 0 where there is nothing.
        bias: (B, S) written: -inf where there is nothing, else 0.
        count: (B,) written: slots that can be read, but for the step's own.
        column: (B,) written: where the step is stored.

    Returns:
        How many rows compress a group at this step.
    """
    n_full = memory_size + rate
    n_compressing = 0
    for b in range(len(index)):
        now = 0 if starts[b] else index[b] + 1
        index[b] = now
        column[b] = compressed_size + now % n_full
        n_compressing += now >= n_full and (now - n_full) % rate == 0
        newest = (now - memory_size) // rate - 1  # of the groups that are compressed
        count[b] = -1
        for s in range(distance.shape[1]):
            if s < compressed_size:
                group = newest - (newest - s) % compressed_size
                age = now - (group * rate + rate - 1)
                holds = group >= 0
            else:
                age = (now - (s - compressed_size)) % n_full
                holds = now >= age and (now - age) // rate > newest
            distance[b, s] = age if holds else 0
            bias[b, s] = 0 if holds else -np.inf
            count[b] += 1 if holds else 0
    return n_compressing


@njit(cache=True)
def store_step(hidden: Floats, starts: Bools, column: Longs, new: Floats) -> None:
    """As `memspan.memory.compressive_layout.store`."""
    for b in range(len(hidden)):
        if starts[b]:
            hidden[b] = 0
        hidden[b, column[b]] = new[b]


@njit(error_model="numpy", fastmath=FAST)
def add_read(asked: Floats, slots: Floats, sign: float, out: Floats) -> None:
    """Adds to out (D,) what a query (D,) reads of slots (K, D), or takes it away."""
    scores = np.empty(len(slots), asked.dtype)
    for k in range(scores.size):
        slot, score = slots[k], F32(0)
        for d in range(asked.size):
            score += asked[d] * slot[d]
        scores[k] = score
    softmax(scores)
    for k in range(scores.size):
        slot, weight = slots[k], asked.dtype.type(sign) * scores[k]
        for d in range(out.size):
            out[d] += weight * slot[d]


@njit(cache=True, error_model="numpy", fastmath=FAST)
def reconstruction_errors(
    u: Floats,
    members: Floats,
    compressed: Floats,
    query: Floats,
    query_bias: Floats,
    key: Floats,
    value: Floats,
    n_heads: int,
    out: Floats,
) -> None:
    """Mean squares of what `memspan.memory.compression.content_attention` no longer reads.

    Args:
        u: (P, D) queries.
        members: (P, G c, D) of groups.
        compressed: (P, G, D) the same groups as compressed memories.
        query: (D, D).
        query_bias: (D,).
        key: (D, D).
        value: (D, D).
        n_heads: H.
        out: (P,) written.
    """
    width = u.shape[1]
    head = width // n_heads
    q, asked, lost = np.empty(width, u.dtype), np.empty(width, u.dtype), np.empty(width, u.dtype)
    scale = u.dtype.type(1 / math.sqrt(head))
    for p in range(len(u)):
        linear(u[p], query, query_bias, q)
        total = F32(0)
        for h in range(n_heads):
            asked[:] = F32(0)
            lost[:] = F32(0)
            for e in range(h * head, (h + 1) * head):
                by, row = q[e] * scale, key[e]
                for d in range(width):
                    asked[d] += by * row[d]
            add_read(asked, members[p], 1.0, lost)
            add_read(asked, compressed[p], -1.0, lost)
            for e in range(h * head, (h + 1) * head):
                row, error = value[e], F32(0)
                for d in range(width):
                    error += row[d] * lost[d]
                total += error * error
        out[p] = total / F32(width)
