"""A layer of `memspan.memory.linear_attention` for a step of few rows, on a CPU, in one call.

B rows, D width, H heads, d = D / H, P key features, E value features, F units of the feed-forward layer.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from memspan.memory.fast_exp import F32, exp, sigmoid, softmax
from memspan.memory.few_rows_kernel import FAST, feed_forward, linear, norm

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

ELU, FAVOR, DPFP = 0, 1, 2
"""Feature maps by number."""


@njit(error_model="numpy", fastmath=FAST)
def scan(
    query: Floats,
    key: Floats,
    value: Floats,
    rate: Any,
    decay: Any,
    adds: bool,
    matrix: Floats,
    out: Floats,
) -> None:
    """One head's step of the recurrence of `memspan.memory.chunked_scan`, in place.

    Args:
        query: (P,).
        key: (P,).
        value: (E,) overwritten with what is added under the key.
        rate: b of "delta".
        decay: a.
        adds: "sum": values are added as they are, and nothing decays.
        matrix: (P, E) read and written.
        out: (E,) written: what is read.
    """
    if not adds:
        for p in range(key.size):
            by, row = key[p] * decay, matrix[p]
            for e in range(value.size):
                value[e] -= by * row[e]
        for e in range(value.size):
            value[e] *= rate
    out[:] = F32(0)
    for p in range(key.size):
        k, q, row = key[p], query[p], matrix[p]
        for e in range(value.size):
            now = decay * row[e] + k * value[e]
            row[e] = now
            out[e] += q * now


@njit(error_model="numpy", fastmath=FAST)
def favor(x: Floats, directions: Floats, normalised: bool, out: Floats) -> None:
    """Of one head's x (d,), with directions (P / 2, d)."""
    n, by = len(directions), F32(1) / np.sqrt(np.sqrt(x.dtype.type(x.size)))
    shared = F32(0)
    for i in range(x.size):
        shared -= (x[i] * by) * (x[i] * by)
    for j in range(n):
        along, row = F32(0), directions[j]
        for i in range(x.size):
            along += row[i] * x[i]
        out[j], out[n + j] = along * by, -along * by
    if normalised:
        softmax(out)
    else:
        for j in range(out.size):
            out[j] = exp(out[j] + shared / F32(2))


@njit(error_model="numpy", fastmath=FAST)
def elu(x: Floats, out: Floats) -> None:
    """Of one head's x (d,)."""
    for i in range(x.size):
        out[i] = x[i] + F32(1) if x[i] > F32(0) else exp(x[i])


@njit(error_model="numpy", fastmath=FAST)
def dpfp(x: Floats, nu: int, out: Floats) -> None:
    """Of one head's x (d,)."""
    ring = np.empty(2 * x.size, x.dtype)
    for i in range(x.size):
        # A NaN is on neither side of 0, and stays to be seen.
        ring[i] = F32(0) if x[i] < F32(0) else x[i]
        ring[x.size + i] = F32(0) if x[i] > F32(0) else -x[i]
    for r in range(1, nu + 1):
        these = out[(r - 1) * ring.size : r * ring.size]
        for i in range(ring.size - r):
            these[i] = ring[i] * ring[i + r]
        for i in range(ring.size - r, ring.size):
            these[i] = ring[i] * ring[i + r - ring.size]


@njit(error_model="numpy", fastmath=FAST)
def features(
    x: Floats, kind: int, nu: int, directions: Floats, eps: float, normalised: bool, out: Floats
) -> None:
    """A feature map of `memspan.memory.feature_maps`, of one head's query or key.

    Args:
        x: (d,).
        kind: ELU, FAVOR or DPFP.
        nu: of dpfp.
        directions: (P / 2, d) of favor.
        eps: added to the sum that divides.
        normalised: whether features are divided by their sum.
        out: (P,) written.
    """
    if kind == FAVOR:
        favor(x, directions, normalised, out)
        return
    if kind == ELU:
        elu(x, out)
    else:
        dpfp(x, nu, out)
    if normalised:
        total = F32(0)
        for j in range(out.size):
            total += out[j]
        by = F32(1) / (total + x.dtype.type(eps))
        for j in range(out.size):
            out[j] *= by


@njit(cache=True, error_model="numpy", fastmath=FAST)
def linear_attention(
    x: Floats,
    starts: Bools,
    matrix: Floats,
    input_gain: Floats,
    input_offset: Floats,
    project: Floats,
    project_bias: Floats,
    out_weight: Floats,
    out_bias: Floats,
    gain: Floats,
    offset: Floats,
    up: Floats,
    up_bias: Floats,
    down: Floats,
    down_bias: Floats,
    rate: Floats,
    rate_bias: Floats,
    directions: Floats,
    kind: int,
    nu: int,
    input_eps: float,
    features_eps: float,
    norm_eps: float,
    out: Floats,
) -> None:
    """The whole layer.

    Args:
        x: (B, D).
        starts: (B,) where an episode starts.
        matrix: (B, H, P, E) fast weights, read and written.
        input_gain: (D,) of the norm before the layer.
        input_offset: (D,).
        project: (3 D, D) to query, key and value.
        project_bias: (3 D,).
        out_weight: (D, D).
        out_bias: (D,).
        gain: (D,) of the norm before the feed-forward layer.
        offset: (D,).
        up: (F, D).
        up_bias: (F,).
        down: (D, F).
        down_bias: (D,).
        rate: (H, D), or (0, 0) for "sum".
        rate_bias: (H,), or (0,).
        directions: (P / 2, d) of favor, or (0, 0).
        kind: see `features`.
        nu: of dpfp.
        input_eps: of the norm before the layer.
        features_eps: of `memspan.memory.feature_maps`.
        norm_eps: of the norm before the feed-forward layer.
        out: (B, D) written.
    """
    width = x.shape[1]
    _, n_heads, n_keys, n_values = matrix.shape
    head = width // n_heads
    adds = rate.size == 0
    one = x.dtype.type(1)
    u, read, joined = np.empty_like(x[:1]), np.empty(width, x.dtype), np.empty_like(x[:1])
    projected, rates = np.empty(3 * width, x.dtype), np.empty(len(rate), x.dtype)
    query, key = np.empty(n_keys, x.dtype), np.empty(n_keys, x.dtype)
    value, got = np.empty(n_values, x.dtype), np.empty(n_values, x.dtype)
    for b in range(len(x)):
        if starts[b]:
            matrix[b] = F32(0)
        norm(x[b : b + 1], input_gain, input_offset, input_eps, u)
        linear(u[0], project, project_bias, projected)
        linear(u[0], rate, rate_bias, rates)
        for h in range(n_heads):
            first = h * head
            features(projected[first : first + head], kind, nu, directions, features_eps, True, query)
            of_key = projected[width + first : width + first + head]
            features(of_key, kind, nu, directions, features_eps, not adds, key)
            value[:head] = projected[2 * width + first : 2 * width + first + head]
            value[head:] = one  # the column of the normaliser
            share = one if adds else sigmoid(rates[h])
            scan(query, key, value, share, one, adds, matrix[b, h], got)
            by = one / (got[head] + x.dtype.type(features_eps)) if adds else one
            for e in range(head):
                read[first + e] = got[e] * by
        linear(read, out_weight, out_bias, joined[0])
        for i in range(width):
            joined[0, i] += x[b, i]
        feed_forward(joined, gain, offset, up, up_bias, down, down_bias, norm_eps, out[b : b + 1])
        for i in range(width):
            out[b, i] += joined[0, i]
