"""`packed_lstm` on a CPU: torch for matrix products, one kernel for all between them."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from memspan.memory.lstm_kernel import step_backward, step_forward
from memspan.memory.packing import steps_before


class PackedLSTMOnCPU(torch.autograd.Function):
    """See `memspan.memory.packed_lstm.packed_lstm` for shapes."""

    @staticmethod
    def forward(
        ctx: Any, from_input: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, batch_sizes: list[int]
    ) -> tuple[Tensor, Tensor]:
        gates = torch.empty_like(from_input)
        cells = from_input.new_empty(len(from_input), weight.shape[1])
        hiddens = torch.empty_like(cells)
        arrays = gates.numpy(), cells.numpy(), hiddens.numpy()
        h, weight_t = hidden, weight.t()
        c, before, now = cell.detach().contiguous().numpy(), 0, 0
        per_step = zip(
            *(torch.split(each, batch_sizes) for each in (from_input, gates, hiddens)), strict=True
        )
        for n, (add, gate, hidden_out) in zip(batch_sizes, per_step, strict=True):
            torch.addmm(add, h[:n], weight_t, out=gate)
            step_forward(*arrays, now, n, c, before)
            h, c, before, now = hidden_out, arrays[1], now, now + n
        ctx.save_for_backward(weight, hidden, cell, gates, cells, hiddens)
        ctx.batch_sizes = batch_sizes
        ctx.mark_non_differentiable(cells)
        return hiddens, cells

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, hidden, cell, gates, cells, hiddens = ctx.saved_tensors
        sizes: list[int] = ctx.batch_sizes
        grad_gates = torch.empty_like(gates)
        grad_h = hiddens.new_zeros(sizes[0], hiddens.shape[1])
        written = grad_gates.numpy(), grad_h.numpy(), torch.zeros_like(grad_h).numpy()
        read = grads[0].contiguous().numpy(), gates.numpy(), cells.numpy()
        first_cells = cell.contiguous().numpy()
        starts = [0, *accumulate(sizes)]
        for step in range(len(sizes) - 1, -1, -1):
            before = (read[2], starts[step - 1]) if step else (first_cells, 0)
            now, n = starts[step], sizes[step]
            step_backward(*written, *read, now, n, *before)
            torch.mm(grad_gates[now : now + n], weight, out=grad_h[:n])
        return grad_gates, grad_gates.t() @ steps_before(hidden, hiddens, sizes), None, None, None
