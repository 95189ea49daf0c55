"""What an LSTM does between its matrix products, on a CPU: one call a step instead of ten.

A step of a few rows is less work than it takes to call torch for it. Arrays are those of
`memspan.memory.packed_lstm`, in packed order; a call is for the n sequences that still run at a step, whose
places are `now:now + n` and, at the step before, `before:before + n`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from memspan.memory.fast_exp import F32, sigmoid, tanh

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
def step_forward(
    gates: Floats, cells: Floats, hiddens: Floats, now: int, n: int, cells_before: Floats, before: int
) -> None:
    """Puts gates through their nonlinearities, in place, and computes cells and hidden vectors.

    Args:
        gates: (packed steps, 4 units).
        cells: (packed steps, units).
        hiddens: (packed steps, units).
        now: first place of the step.
        n: its sequences.
        cells_before: where the step before has its cells: `cells`, or what came before the first.
        before: first place there.
    """
    units = cells.shape[1]
    for row in range(n):
        gate = gates[now + row]
        i_f, g, o = gate[: 2 * units], gate[2 * units : 3 * units], gate[3 * units :]
        cell, cell_before, hidden = cells[now + row], cells_before[before + row], hiddens[now + row]
        for j in range(i_f.size):
            i_f[j] = sigmoid(i_f[j])
        for j in range(g.size):
            g[j] = tanh(g[j])
        for j in range(o.size):
            o[j] = sigmoid(o[j])
        i, f = i_f[:units], i_f[units:]
        for j in range(cell.size):
            cell[j] = f[j] * cell_before[j] + i[j] * g[j]
        for j in range(hidden.size):
            hidden[j] = tanh(cell[j])
        for j in range(hidden.size):
            hidden[j] *= o[j]


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
def step_backward(
    grad_gates: Floats,
    grad_h: Floats,
    grad_c: Floats,
    grad_hiddens: Floats,
    gates: Floats,
    cells: Floats,
    now: int,
    n: int,
    cells_before: Floats,
    before: int,
) -> None:
    """The gradient of `step_forward`.

    Args:
        grad_gates: (packed steps, 4 units) of the gates before their nonlinearities; written at the step.
        grad_h: (sequences, units) of the hidden vectors, by way of later steps.
        grad_c: (sequences, units) of the cells likewise; left as the step before needs it.
        grad_hiddens: (packed steps, units) of the hidden vectors, as the layer's output.
        gates: (packed steps, 4 units) as `step_forward` left them.
        cells: (packed steps, units).
        now: first place of the step.
        n: its sequences.
        cells_before: where the step before has its cells: `cells`, or what came before the first.
        before: first place there.
    """
    units = cells.shape[1]
    for row in range(n):
        gate, grad = gates[now + row], grad_gates[now + row]
        i, f = gate[:units], gate[units : 2 * units]
        g, o = gate[2 * units : 3 * units], gate[3 * units :]
        grad_i, grad_f = grad[:units], grad[units : 2 * units]
        grad_g, grad_o = grad[2 * units : 3 * units], grad[3 * units :]
        cell, cell_before = cells[now + row], cells_before[before + row]
        grad_hidden, later_h, later_c = grad_hiddens[now + row], grad_h[row], grad_c[row]
        for j in range(grad_o.size):
            grad_o[j] = tanh(cell[j])
        for j in range(units):
            tanh_c = grad_o[j]
            d_h = grad_hidden[j] + later_h[j]
            d_c = later_c[j] + d_h * o[j] * (F32(1) - tanh_c * tanh_c)
            grad_i[j] = d_c * g[j] * i[j] * (F32(1) - i[j])
            grad_f[j] = d_c * cell_before[j] * f[j] * (F32(1) - f[j])
            grad_g[j] = d_c * i[j] * (F32(1) - g[j] * g[j])
            grad_o[j] = d_h * tanh_c * o[j] * (F32(1) - o[j])
            later_c[j] = d_c * f[j]
