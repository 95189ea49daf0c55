"""A layer of `memspan.memory.state_space` for a step of few rows, on a CPU, in one call.

B rows, D width, H heads, d = D / H, F units of the feed-forward layer.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from memspan.memory.fast_exp import F32, sigmoid
from memspan.memory.few_rows_kernel import FAST, feed_forward, linear, norm
from memspan.memory.linear_attention_kernel import scan

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


@njit(error_model="numpy", fastmath=FAST)
def silu(x: Floats) -> None:
    """Of each number: x sigmoid(x), in place."""
    for i in range(x.size):
        x[i] *= sigmoid(x[i])


@njit(error_model="numpy", fastmath=FAST)
def to_length_one(x: Floats) -> None:
    """Divides by the length, in place."""
    square = F32(0)
    for i in range(x.size):
        square += x[i] * x[i]
    by = F32(1) / max(np.sqrt(square), x.dtype.type(1e-12))  # as F.normalize
    for i in range(x.size):
        x[i] *= by


@njit(cache=True, error_model="numpy", fastmath=FAST)
def gated_delta(
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
    gate: Floats,
    gate_bias: Floats,
    rate: Floats,
    rate_bias: Floats,
    decay: Floats,
    decay_bias: Floats,
    read_gain: Floats,
    input_eps: float,
    read_eps: float,
    norm_eps: float,
    out: Floats,
) -> None:
    """The whole layer.

    Args:
        x: (B, D).
        starts: (B,) where an episode starts.
        matrix: (B, H, d, d) read and written.
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
        gate: (D, D).
        gate_bias: (D,).
        rate: (H, D).
        rate_bias: (H,).
        decay: (H, D).
        decay_bias: (H,).
        read_gain: (d,) of the norm of what is read.
        input_eps: of the norm before the layer.
        read_eps: of the norm of what is read.
        norm_eps: of the norm before the feed-forward layer.
        out: (B, D) written.
    """
    width = x.shape[1]
    n_heads, head = matrix.shape[1], matrix.shape[3]
    u, read, joined = np.empty_like(x[:1]), np.empty(width, x.dtype), np.empty_like(x[:1])
    projected, gates = np.empty(3 * width, x.dtype), np.empty(width, x.dtype)
    rates, decays = np.empty(n_heads, x.dtype), np.empty(n_heads, x.dtype)
    for b in range(len(x)):
        if starts[b]:
            matrix[b] = F32(0)
        norm(x[b : b + 1], input_gain, input_offset, input_eps, u)
        linear(u[0], project, project_bias, projected)
        linear(u[0], gate, gate_bias, gates)
        linear(u[0], rate, rate_bias, rates)
        linear(u[0], decay, decay_bias, decays)
        silu(projected)
        silu(gates)
        for h in range(n_heads):
            first = h * head
            query, key = projected[first : first + head], projected[width + first : width + first + head]
            value = projected[2 * width + first : 2 * width + first + head]
            to_length_one(query)
            to_length_one(key)
            got = read[first : first + head]
            scan(query, key, value, sigmoid(rates[h]), sigmoid(decays[h]), False, matrix[b, h], got)
            square = F32(0)
            for e in range(head):
                square += got[e] * got[e]
            by = F32(1) / np.sqrt(square / F32(head) + x.dtype.type(read_eps))
            for e in range(head):
                got[e] *= by * read_gain[e] * gates[first + e]
        linear(read, out_weight, out_bias, joined[0])
        for i in range(width):
            joined[0, i] += x[b, i]
        feed_forward(joined, gain, offset, up, up_bias, down, down_bias, norm_eps, out[b : b + 1])
        for i in range(width):
            out[b, i] += joined[0, i]
