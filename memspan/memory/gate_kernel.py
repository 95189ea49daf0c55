"""The gate of `memspan.memory.gated_transformer_xl` for few rows, on a CPU, in one call."""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from memspan.memory.fast_exp import F32, sigmoid, tanh
from memspan.memory.few_rows_kernel import FAST, linear

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, error_model="numpy", fastmath=FAST)
def gru_gate(
    x: Floats,
    answer: Floats,
    of_answer: Floats,
    of_input: Floats,
    of_reset_input: Floats,
    bias: Floats,
    out: Floats,
) -> None:
    """Joins input and answer of a sub-layer; B rows, D width.

    Args:
        x: (B, D).
        answer: (B, D).
        of_answer: (3 D, D) for reset, update and new.
        of_input: (2 D, D) for reset and update.
        of_reset_input: (D, D).
        bias: (D,).
        out: (B, D) written.
    """
    width = x.shape[1]
    heard, reset_input, more = np.empty((3, width), x.dtype)
    gates, from_input = np.empty(3 * width, x.dtype), np.empty(2 * width, x.dtype)
    for b in range(len(x)):
        for i in range(width):
            # A NaN is not below 0, and stays to be seen.
            heard[i] = F32(0) if answer[b, i] < F32(0) else answer[b, i]
        linear(heard, of_answer, bias[:0], gates)
        linear(x[b], of_input, bias[:0], from_input)
        for i in range(width):
            reset_input[i] = sigmoid(gates[i] + from_input[i]) * x[b, i]
        linear(reset_input, of_reset_input, bias[:0], more)
        for i in range(width):
            z = sigmoid(gates[width + i] + from_input[width + i] - bias[i])
            out[b, i] = x[b, i] + z * (tanh(gates[2 * width + i] + more[i]) - x[b, i])
