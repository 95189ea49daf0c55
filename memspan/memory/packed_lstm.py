"""An LSTM layer over packed sequences, with its gradient written out.

torch's own `nn.LSTM` takes packed sequences too, but on a CPU its backward pass fills a block-sized
gradient with zeros at every step, which costs T times the work of the layer itself. Here a step of the
backward pass touches what belongs to the step, and the weights' gradient is one product at the end.

Packed order: all first steps, then all second steps, ...; sequences longest first, so that those still
running at a step are the first `batch_sizes[step]` of them.

Gate order: input, forget, cell, output, as in torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from memspan.memory.packing import steps_before
from memspan.memory.step_attention import has_kernels


class _PackedLSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        from_input: Tensor,
        weight: Tensor,
        hidden: Tensor,
        cell: Tensor,
        batch_sizes: list[int],
    ) -> tuple[Tensor, Tensor]:
        units = weight.shape[1]
        gates = torch.empty_like(from_input)  # after their nonlinearities
        cells = from_input.new_empty(len(from_input), units)
        hiddens = torch.empty_like(cells)
        weight_t = weight.t()
        h, c = hidden, cell
        per_step = zip(
            *(torch.split(each, batch_sizes) for each in (from_input, gates, cells, hiddens)), strict=True
        )
        for add, gate, cell_out, hidden_out in per_step:
            n = len(add)
            torch.addmm(add, h[:n], weight_t, out=gate)
            i_f, g, o = torch.split(gate, [2 * units, units, units], dim=1)
            i_f.sigmoid_()
            g.tanh_()
            o.sigmoid_()
            c = torch.mul(i_f[:, units:], c[:n], out=cell_out).addcmul_(i_f[:, :units], g)
            h = torch.mul(o, c.tanh(), out=hidden_out)
        ctx.save_for_backward(weight, hidden, cell, gates, cells, hiddens)
        ctx.batch_sizes = batch_sizes
        ctx.mark_non_differentiable(cells)
        return hiddens, cells

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, hidden, cell, gates, cells, hiddens = ctx.saved_tensors
        sizes: list[int] = ctx.batch_sizes
        units = weight.shape[1]
        h_before = steps_before(hidden, hiddens, sizes)
        c_before = steps_before(cell, cells, sizes)
        # All that does not depend on later steps is computed for all steps at once: how the gates before
        # their nonlinearities move the cell (input, forget, cell) and the hidden vector (output).
        i, f, g, o = torch.split(gates, units, dim=1)
        tanh_c = cells.tanh()
        cell_per_gate = torch.stack([g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g)], dim=1)
        hidden_per_gate = tanh_c * o * (1 - o)
        hidden_per_cell = o * (1 - tanh_c * tanh_c)
        grad_gates = gates.new_empty(len(gates), 4, units)
        grad_h = hiddens.new_zeros(sizes[0], units)
        grad_c = torch.zeros_like(grad_h)
        per_step = zip(
            *(
                torch.split(each, sizes)
                for each in (grads[0], hidden_per_cell, hidden_per_gate, cell_per_gate, f, grad_gates)
            ),
            strict=True,
        )
        for d_hidden, h_by_c, h_by_gate, c_by_gate, forget, d_gates in reversed(list(per_step)):
            n = len(d_hidden)
            d_h = d_hidden + grad_h[:n]
            d_c = grad_c[:n].addcmul_(d_h, h_by_c)
            torch.mul(d_c.unsqueeze(1), c_by_gate, out=d_gates[:, :3])
            torch.mul(d_h, h_by_gate, out=d_gates[:, 3])
            d_c *= forget
            torch.mm(d_gates.view(n, -1), weight, out=grad_h[:n])
        grad_gates = grad_gates.view(len(gates), -1)
        return grad_gates, grad_gates.t() @ h_before, None, None, None


def packed_lstm(
    from_input: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, batch_sizes: list[int]
) -> tuple[Tensor, Tensor]:
    """Runs one layer.

    Args:
        from_input: (packed steps, 4 units) what the gates get from the input, biases included.
        weight: (4 units, units) what they get from the hidden vector.
        hidden: (sequences, units) before the first step; no gradient reaches it.
        cell: (sequences, units) likewise.
        batch_sizes: sequences still running at each step; never grows.

    Returns:
        Hidden and (without gradient) cell vectors after each step, both (packed steps, units).
    """
    function: type[torch.autograd.Function] = _PackedLSTM
    if has_kernels(from_input):
        from memspan.memory.packed_lstm_cpu import PackedLSTMOnCPU  # numba, where it is needed

        function = PackedLSTMOnCPU
    out: tuple[Tensor, Tensor] = function.apply(from_input, weight, hidden, cell, batch_sizes)  # type: ignore[no-untyped-call]
    return out
