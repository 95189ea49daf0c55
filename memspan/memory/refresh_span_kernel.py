"""What a step of `memspan.memory.refresh_span` does with its slots, on a CPU: all of it, in one call.

A row costs what its used slots cost. B rows, S slots, D width, r numbers in which memories are compared.
"""

import math
from typing import Any

import numpy as np
from numba import njit

from memspan.memory.fast_exp import F32, sigmoid, tanh
from memspan.memory.few_rows_kernel import FAST, Floats, Longs, linear
from memspan.memory.slot_kernel import FREE


@njit(error_model="numpy", fastmath=FAST)
def offer(distance: Any, longest: Any, score: Any) -> Any:
    """The span from birth that a score is worth at a distance."""
    share = tanh(score)
    # A NaN is not above 0, and stays to be seen.
    return distance + (longest - distance) * share if share > F32(0) else distance + longest * share


@njit(error_model="numpy", fastmath=FAST)
def of_standardised(
    weight: Floats, bias: Floats, mean: Floats, variance: Floats, eps: float
) -> tuple[Floats, Floats]:
    """Linear functions (n, D) of standardised memories, as functions of memories as they are."""
    folded, constant = np.empty_like(weight), bias.copy()
    for d in range(mean.size):
        by = F32(1) / np.sqrt(variance[d] + weight.dtype.type(eps))
        for i in range(len(weight)):
            folded[i, d] = weight[i, d] * by
            constant[i] -= folded[i, d] * mean[d]
    return folded, constant


@njit(error_model="numpy", fastmath=FAST)
def dot(weight: Floats, x: Floats) -> Any:
    """Of the first numbers of `x`, which may be longer."""
    total = F32(0)
    for d in range(weight.size):
        total += weight[d] * x[d]
    return total


@njit(error_model="numpy", fastmath=FAST)
def by_all(asked: Floats, keys: Floats, constant: Floats, scale: Any, out: Floats) -> Any:
    """The product of a query (r,) and a memory's keys as a function of the memory: returns its constant."""
    total = F32(0)
    out[:] = F32(0)
    for i in range(len(keys)):
        by, row = asked[i] * scale, keys[i]
        total += by * constant[i]
        for d in range(out.size):
            out[d] += by * row[d]
    return total


@njit(error_model="numpy", fastmath=FAST)
def renew_one(slot: Floats, distance: Any, span: Any, limit: Any, score: Any, asked: Floats) -> Any:
    """The span of a slot after a step's offer, which is noted if it is the best."""
    offered = offer(distance, limit, score)
    # What is no number passes on, as in a maximum.
    if offered < span or math.isnan(span):
        return span
    n_keys = asked.size
    slot[slot.size - 1 - n_keys : slot.size - 1] = asked
    slot[slot.size - 1] = distance
    return offered


@njit(error_model="numpy", fastmath=FAST)
def clear_expired(age: Longs, span: Floats, ramp: Any) -> int:
    """Ages slots (S,) by a step and frees those whose ramp is over: returns the first that is free.

    It is -1 where none is, and ages are as they were.
    """
    place = -1
    for s in range(age.size):
        if age[s] == FREE or span.dtype.type(age[s] + 1) >= span[s] + ramp:
            place = s
            break
    if place >= 0:
        for s in range(age.size):
            if age[s] != FREE:
                age[s] += 1
                if span.dtype.type(age[s]) >= span[s] + ramp:
                    age[s] = FREE
    return place


@njit(cache=True, error_model="numpy", fastmath=FAST)
def renew(
    hidden: Floats,
    age: Longs,
    u: Floats,
    query: Floats,
    query_bias: Floats,
    key: Floats,
    key_bias: Floats,
    gate_bias: Floats,
    span_weight: Floats,
    span_bias: Floats,
    mean: Floats,
    variance: Floats,
    eps: float,
    gate_scale: float,
    span_scale: float,
    longest: float,
    ramp: int,
    first: int,
    bias: Floats,
    count: Floats,
    given: Floats,
) -> int:
    """Ages slots by a step, frees what has expired, stores what is new, and renews what it resembles.

    Args:
        hidden: (B, S, D + r + 1) written in place, and so is `age` (B, S).
        age: steps since a slot was stored.
        u: (B, D) what is new.
        query: (r, D), and its bias (r,).
        query_bias: likewise.
        key: (r, D), and its bias (r,).
        key_bias: likewise.
        gate_bias: (1,) c.
        span_weight: (D,), and its bias (1,).
        span_bias: likewise.
        mean: (D,) of memories, and their variance.
        variance: likewise.
        eps: added to the variance.
        gate_scale: of products of query and key.
        span_scale: of the first span's logits.
        longest: L.
        ramp: R.
        first: row to begin with.
        bias: (B, 1, S) written: what is added to scores, -inf where a slot must not be read.
        count: (B,) written: slots that can be read, but for the step's own.
        given: (B,) written: the life that the step gives.

    Returns:
        -1, or the first row without a free slot: it and those after it are as they were.
    """
    width, number = u.shape[1], u.dtype.type
    limit, fade, scale = number(longest), number(ramp), number(gate_scale)
    root, by_logit = np.sqrt(number(width)), number(span_scale)
    for_span, span_constant = of_standardised(
        span_weight.reshape(1, -1), root * span_bias, mean, variance, eps
    )
    asking, asking_constant = of_standardised(query, query_bias, mean, variance, eps)
    keys, constant = of_standardised(key, key_bias, mean, variance, eps)
    asked, in_all, span = np.empty_like(key_bias), np.empty_like(mean), np.empty(age.shape[1], u.dtype)
    for b in range(first, len(age)):
        for s in range(span.size):
            slot = hidden[b, s]
            at = slot[slot.size - 1]
            if age[b, s] == FREE:
                continue
            if at > F32(0):
                score = by_all(slot[width:], keys, constant, scale, in_all) + gate_bias[0]
                span[s] = offer(at, limit, score + dot(in_all, slot))
            else:
                span[s] = limit * sigmoid((dot(for_span[0], slot) + span_constant[0]) * by_logit)
        place = clear_expired(age[b], span, fade)
        if place < 0:
            return b
        linear(u[b], asking, asking_constant, asked)
        score = by_all(asked, keys, constant, scale, in_all) + gate_bias[0]
        count[b] = F32(0)
        given[b] = limit * sigmoid((dot(for_span[0], u[b]) + span_constant[0]) * by_logit)
        for s in range(span.size):
            bias[b, 0, s] = F32(-np.inf)
            if age[b, s] == FREE:
                continue
            distance, slot, before = number(age[b, s]), hidden[b, s], span[s]
            if distance < limit:  # beyond there is nothing to offer
                span[s] = renew_one(slot, distance, before, limit, score + dot(in_all, slot), asked)
                given[b] += span[s] - before
            left = F32(1) + (span[s] - distance) / fade
            if not left <= F32(0):
                count[b] += F32(1)
                bias[b, 0, s] = F32(0) if left >= F32(1) else np.log(left)
        age[b, place] = 0
        bias[b, 0, place] = F32(0)
        hidden[b, place, :width] = u[b]
        hidden[b, place, width:] = F32(0)
    return -1
