"""Layers of a step of few rows, on a CPU: one call where torch would take ten.

For one environment a matrix product is a thousandth of a millisecond, less than it takes to call torch for
it. With many rows it is the other way round; see `memspan.memory.few_rows`. B rows, D width, H heads,
S slots, F frequencies.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from memspan.memory.fast_exp import F32, sigmoid, tanh
from memspan.memory.slot_kernel import read

Floats = npt.NDArray[np.floating[Any]]
Longs = npt.NDArray[np.int64]

FAST = {"contract", "nsz", "arcp", "reassoc"}


@njit(error_model="numpy", fastmath=FAST)
def linear(x: Floats, weight: Floats, bias: Floats, out: Floats) -> None:
    """Of one row: weight (out, in) times x, plus a bias that may be empty."""
    for i in range(out.size):
        row = weight[i]
        total = F32(0)
        for j in range(row.size):
            total += row[j] * x[j]
        out[i] = total
    if bias.size:
        for i in range(out.size):
            out[i] += bias[i]


@njit(error_model="numpy", fastmath=FAST)
def standardise(x: Floats, eps: float, out: Floats) -> None:
    """Of one row: less its mean, by its standard deviation."""
    total = F32(0)
    for i in range(x.size):
        total += x[i]
    mean = total / F32(x.size)
    square = F32(0)
    for i in range(x.size):
        square += (x[i] - mean) * (x[i] - mean)
    scale = F32(1) / np.sqrt(square / F32(x.size) + x.dtype.type(eps))
    for i in range(x.size):
        out[i] = (x[i] - mean) * scale


@njit(cache=True, error_model="numpy", fastmath=FAST)
def norm(x: Floats, gain: Floats, offset: Floats, eps: float, out: Floats) -> None:
    """A layer norm of rows (B, D); gain and offset (D,) may be empty."""
    for b in range(len(x)):
        standardise(x[b], eps, out[b])
        if gain.size:
            row = out[b]
            for i in range(row.size):
                row[i] = row[i] * gain[i] + offset[i]


@njit(cache=True, error_model="numpy", fastmath=FAST)
def feed_forward(
    x: Floats,
    gain: Floats,
    offset: Floats,
    up: Floats,
    up_bias: Floats,
    down: Floats,
    down_bias: Floats,
    eps: float,
    out: Floats,
) -> None:
    """What `memspan.memory.attention.FeedForward` answers, without its input: (B, D) to (B, D)."""
    hidden = np.empty(len(up), x.dtype)
    normed = np.empty_like(x[:1])
    for b in range(len(x)):
        norm(x[b : b + 1], gain, offset, eps, normed)
        linear(normed[0], up, up_bias, hidden)
        for i in range(hidden.size):
            # A NaN is not below 0, and stays to be seen.
            hidden[i] = F32(0) if hidden[i] < F32(0) else hidden[i]
        linear(hidden, down, down_bias, out[b])


@njit(cache=True, error_model="numpy", fastmath=FAST)
def attend(
    u: Floats,
    slots: Floats,
    place: Longs,
    code: Floats,
    bias: Floats,
    query: Floats,
    query_bias: Floats,
    position_query: Floats,
    position_bias: Floats,
    key: Floats,
    value: Floats,
    value_bias: Floats,
    out_weight: Floats,
    out_bias: Floats,
    position_value: Floats,
    n_heads: int,
    out: Floats,
) -> None:
    """What `memspan.memory.attention.AttentionLayer` reads of its slots, in terms of its input.

    Args:
        u: (B, D) normalised input.
        slots: (B, S, >= D), of which D numbers are read.
        place: (B, S) row of `code` of each slot.
        code: (n, 2 F).
        bias: (B, 1 or H, S).
        query: (D, D).
        query_bias: (D,).
        position_query: (H 2 F, D).
        position_bias: (H 2 F,).
        key: (D, D).
        value: (D, D).
        value_bias: (D,).
        out_weight: (D, D).
        out_bias: (D,).
        position_value: (D, H 2 F), or (D, 0): distances are in the scores alone.
        n_heads: H.
        out: (B, D) written.
    """
    n_rows, width = u.shape
    head = width // n_heads
    content = np.zeros((n_heads, n_rows, width), u.dtype)
    position = np.empty((n_rows, len(position_query)), u.dtype)
    q = np.empty(width, u.dtype)
    scale = u.dtype.type(1 / math.sqrt(head))
    for b in range(n_rows):
        linear(u[b], query, query_bias, q)
        linear(u[b], position_query, position_bias, position[b])
        for h in range(n_heads):
            asked = content[h, b]
            for e in range(h * head, (h + 1) * head):
                by, row = q[e] * scale, key[e]
                for d in range(width):
                    asked[d] += by * row[d]
    got = np.empty((n_heads, n_rows, width), u.dtype)
    got_code = np.empty((n_rows, n_heads, code.shape[1] if position_value.shape[1] else 0), u.dtype)
    asks_position = position.reshape(n_rows, n_heads, code.shape[1])
    read(content, asks_position, slots, place, code, bias, got, got_code)
    for b in range(n_rows):
        for h in range(n_heads):
            these = slice(h * head, (h + 1) * head)
            linear(got[h, b], value[these], value_bias[these], q[these])
        linear(q, out_weight, out_bias, out[b])
        if position_value.shape[1]:
            linear(got_code[b].reshape(-1), position_value, out_bias[:0], q)
            for i in range(width):
                out[b, i] += q[i]


@njit(cache=True, error_model="numpy", fastmath=FAST)
def spans(
    slots: Floats,
    weight: Floats,
    bias: Floats,
    mean: Floats,
    variance: Floats,
    eps: float,
    longest: float,
    scale: float,
    out: Floats,
) -> None:
    """Spans that `memspan.memory.expire_span.SpanPredictor` gives to slots (K, >= D): out (K,).

    Args:
        slots: their first D numbers are read.
        weight: (D,).
        bias: (1,).
        mean: (D,).
        variance: (D,).
        eps: added to the variance.
        longest: L.
        scale: of logits.
        out: written.
    """
    width = weight.size
    by = np.empty(width, weight.dtype)
    constant = F32(0)
    for d in range(width):
        by[d] = weight[d] / np.sqrt(variance[d] + weight.dtype.type(eps))
        constant -= by[d] * mean[d]
    constant += np.sqrt(weight.dtype.type(width)) * bias[0]
    for k in range(len(slots)):
        slot = slots[k, :width]
        total = F32(0)
        for d in range(by.size):
            total += by[d] * slot[d]
        out[k] = (total + constant) * weight.dtype.type(scale)
    for k in range(out.size):
        out[k] = weight.dtype.type(longest) * sigmoid(out[k])


@njit(cache=True, error_model="numpy", fastmath=FAST)
def dense(x: Floats, weight: Floats, bias: Floats, activation: int, out: Floats) -> None:
    """A linear layer of rows (B, in), and nothing (0), the rectifier (1) or tanh (2) after it: (B, out)."""
    for b in range(len(x)):
        row = out[b]
        linear(x[b], weight, bias, row)
        if activation == 1:
            for i in range(row.size):
                row[i] = F32(0) if row[i] < F32(0) else row[i]
        elif activation == 2:
            for i in range(row.size):
                row[i] = tanh(row[i])


@njit(cache=True, error_model="numpy", fastmath=FAST)
def lstm(
    x: Floats,
    from_input: Floats,
    from_hidden: Floats,
    bias: Floats,
    hidden: Floats,
    cell: Floats,
    hidden_after: Floats,
    cell_after: Floats,
) -> None:
    """A step of a layer of `memspan.memory.lstm`.

    Args:
        x: (B, in).
        from_input: (4 units, in) for input, forget, cell and output, here and below.
        from_hidden: (4 units, units).
        bias: (4 units,).
        hidden: (B, units) before the step.
        cell: (B, units) likewise.
        hidden_after: (B, units) written.
        cell_after: (B, units) written.
    """
    units = hidden.shape[1]
    gates, more = np.empty(4 * units, x.dtype), np.empty(4 * units, x.dtype)
    for b in range(len(x)):
        linear(x[b], from_input, bias, gates)
        linear(hidden[b], from_hidden, bias[:0], more)
        for j in range(gates.size):
            gates[j] += more[j]
        i, f = gates[:units], gates[units : 2 * units]
        g, o = gates[2 * units : 3 * units], gates[3 * units :]
        for j in range(units):
            c = sigmoid(f[j]) * cell[b, j] + sigmoid(i[j]) * tanh(g[j])
            cell_after[b, j] = c
            hidden_after[b, j] = sigmoid(o[j]) * tanh(c)


@njit(cache=True, error_model="numpy", fastmath=FAST)
def gru(
    x: Floats, from_input: Floats, from_hidden: Floats, bias: Floats, hidden: Floats, hidden_after: Floats
) -> None:
    """A step of a layer of `memspan.memory.gru`.

    Args:
        x: (B, in).
        from_input: (3 units, in) for reset, update and new, here and below.
        from_hidden: (3 units, units).
        bias: (3 units,).
        hidden: (B, units) before the step.
        hidden_after: (B, units) written.
    """
    units = hidden.shape[1]
    gates, more = np.empty(3 * units, x.dtype), np.empty(3 * units, x.dtype)
    for b in range(len(x)):
        linear(x[b], from_input, bias, gates)
        linear(hidden[b], from_hidden, bias[:0], more)
        for j in range(units):
            r = sigmoid(gates[j] + more[j])
            z = sigmoid(gates[units + j] + more[units + j])
            n = tanh(gates[2 * units + j] + r * more[2 * units + j])
            hidden_after[b, j] = n + z * (hidden[b, j] - n)
