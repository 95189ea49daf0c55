"""Attention of a block over memories that fade, on a CPU: a query costs what it can still read.

B rows of T steps, H heads, E numbers of a query and a key, V of a value, R ramp length. Keys are packed:
those that row 0 has cached, its block's T, those that row 1 has cached, ... What a query can read is a list:

    keys of a row     cached: a b      block: 0 1 2 3         an episode starts at t=2; 0 fades after one step
    t=0               a b 0
    t=1               a b 0 1                                  entries, query after query: a b 0 a b 0 1 2 2 3
    t=2                         2                              firsts: 0 3 7 8 10
    t=3                         2 3

A memory that has expired is dropped from the list, for good, and so is everything where an episode starts.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from memspan.memory.fast_exp import F32, softmax

Floats = npt.NDArray[np.floating[Any]]
Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


@njit(error_model="numpy")
def mask(span: float, distance: int, ramp: int) -> float:
    """1 within the span, falling to 0 over the ramp."""
    return 1.0 + (span - distance) / ramp  # double precision: distances may be large


@njit(cache=True, error_model="numpy")
def list_readable(
    starts: Bools, n_cached: Longs, birth: Longs, span: Floats, ramp: int, firsts: Longs, keys: Ints
) -> None:
    """Writes, for every query, where its list begins, and if there is room the list.

    Args:
        starts: (B, T) where episodes start.
        n_cached: (B,) keys before the block's.
        birth: (packed keys,) when each was made; the block's first step is 0.
        span: (packed keys,) for which it is read in full.
        ramp: R.
        firsts: (B * T + 1,) written: place of each query's first entry; the last is their number.
        keys: (entries,) written: the packed key of each entry; or (0,), to count alone.
    """
    n_rows, n_steps = starts.shape
    live = np.empty(n_steps + n_cached.max(), np.int32)
    at = 0
    packed = 0
    for b in range(n_rows):
        n = n_cached[b]
        for k in range(n):
            live[k] = packed + k
        block = packed + n
        for t in range(n_steps):
            if starts[b, t]:
                n = 0
            live[n] = block + t
            n += 1
            left = 0
            for k in range(n):
                key = live[k]
                if not mask(span[key], t - birth[key], ramp) <= 0.0:  # a NaN stays, to be seen
                    live[left] = key
                    left += 1
            n = left
            firsts[b * n_steps + t] = at
            if keys.size:
                keys[at : at + n] = live[:n]
            at += n
        packed = block + n_steps
    firsts[n_rows * n_steps] = at


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "arcp", "reassoc"})
def attend(  # the loops of one pass
    q: Floats,
    k: Floats,
    v: Floats,
    birth: Longs,
    span: Floats,
    ramp: int,
    n_steps: int,
    firsts: Longs,
    keys: Ints,
    weights: Floats,
    out: Floats,
) -> None:
    """Softmax of scores plus the log of the mask, and what it reads.

    Args:
        q: (B * T, H, E).
        k: (packed keys, H, E).
        v: (packed keys, H, V).
        birth: (packed keys,), and all that follows but `n_steps` as in `list_readable`.
        span: (packed keys,).
        ramp: R.
        n_steps: T.
        firsts: (B * T + 1,).
        keys: (entries,).
        weights: (H, entries) written.
        out: (B * T, H, V) written.
    """
    n_heads = q.shape[1]
    for i in range(len(q)):
        begin, end = firsts[i], firsts[i + 1]
        t = i % n_steps
        for entry in range(begin, end):
            key = keys[entry]
            remaining = mask(span[key], t - birth[key], ramp)
            shift: Any = F32(0)
            if not remaining >= 1.0:
                shift = math.log(remaining)
            for h in range(n_heads):
                query, one = q[i, h], k[key, h]
                score = F32(0)
                for e in range(query.size):
                    score += query[e] * one[e]
                weights[h, entry] = score + shift
        for h in range(n_heads):
            softmax(weights[h, begin:end])
        out[i] = F32(0)
        for entry in range(begin, end):
            key = keys[entry]
            for h in range(n_heads):
                answer, one, weight = out[i, h], v[key, h], weights[h, entry]
                for e in range(answer.size):
                    answer[e] += weight * one[e]


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "arcp", "reassoc"})
def attend_backward(  # noqa: PLR0912
    q: Floats,
    k: Floats,
    v: Floats,
    birth: Longs,
    span: Floats,
    ramp: int,
    n_steps: int,
    firsts: Longs,
    keys: Ints,
    weights: Floats,
    grad_out: Floats,
    grad_q: Floats,
    grad_k: Floats,
    grad_v: Floats,
    grad_span: Floats,
) -> None:
    """The gradient of `attend`; `grad_*` are written, zeros before, of the shape of what they are of."""
    n_heads = q.shape[1]
    longest = 0
    for i in range(len(q)):
        longest = max(longest, firsts[i + 1] - firsts[i])
    grad_scores = np.empty((n_heads, longest), q.dtype)
    for i in range(len(q)):
        begin = firsts[i]
        n = firsts[i + 1] - begin
        t = i % n_steps
        for j in range(n):
            key = keys[begin + j]
            for h in range(n_heads):
                grad, value, grad_value = grad_out[i, h], v[key, h], grad_v[key, h]
                weight = weights[h, begin + j]
                total = F32(0)
                for e in range(grad.size):
                    total += grad[e] * value[e]
                for e in range(grad.size):
                    grad_value[e] += weight * grad[e]
                grad_scores[h, j] = total
        for h in range(n_heads):
            row, shares = grad_scores[h, :n], weights[h, begin : begin + n]
            mean = F32(0)
            for j in range(row.size):
                mean += row[j] * shares[j]
            for j in range(row.size):
                row[j] = shares[j] * (row[j] - mean)
        for j in range(n):
            key = keys[begin + j]
            summed = F32(0)
            for h in range(n_heads):
                grad = grad_scores[h, j]
                summed += grad
                query, grad_query, one, grad_one = q[i, h], grad_q[i, h], k[key, h], grad_k[key, h]
                for e in range(query.size):
                    grad_query[e] += grad * one[e]
                for e in range(query.size):
                    grad_one[e] += grad * query[e]
            remaining = mask(span[key], t - birth[key], ramp)
            if remaining < 1.0:
                grad_span[key] += summed / (remaining * ramp)
