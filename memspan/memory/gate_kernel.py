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
    heard, reset_input = np.empty(width, x.dtype), np.empty(width, x.dtype)
    more = np.empty(width, x.dtype)
    gates, from_input = np.empty(3 * width, x.dtype), np.empty(2 * width, x.dtype)
    # Views: an index that is a sum might be negative, and would keep loops from vector instructions.
    reset, update, new = gates[:width], gates[width : 2 * width], gates[2 * width :]
    reset_by_input, update_by_input = from_input[:width], from_input[width:]
    for b in range(len(x)):
        given, said, row = x[b], answer[b], out[b]
        for i in range(width):
            # A NaN is not below 0, and stays to be seen.
            heard[i] = F32(0) if said[i] < F32(0) else said[i]
        linear(heard, of_answer, bias[:0], gates)
        linear(given, of_input, bias[:0], from_input)
        for i in range(width):
            reset_input[i] = sigmoid(reset[i] + reset_by_input[i]) * given[i]
        linear(reset_input, of_reset_input, bias[:0], more)
        for i in range(width):
            update[i] = sigmoid(update[i] + update_by_input[i] - bias[i])
        for i in range(width):
            new[i] = tanh(new[i] + more[i])
        for i in range(width):
            row[i] = given[i] + update[i] * (new[i] - given[i])
