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
        offset = 0
        h, c = hidden, cell
        for n in batch_sizes:
            now = slice(offset, offset + n)
            gate = torch.addmm(from_input[now], h[:n], weight_t, out=gates[now])
            gate[:, : 2 * units].sigmoid_()
            gate[:, 2 * units : 3 * units].tanh_()
            gate[:, 3 * units :].sigmoid_()
            i, f, g, o = gate.split(units, dim=1)
            c = torch.mul(f, c[:n], out=cells[now]).addcmul_(i, g)
            h = torch.mul(o, c.tanh(), out=hiddens[now])
            offset += n
        ctx.save_for_backward(weight, hidden, cell, gates, cells, hiddens)
        ctx.batch_sizes = batch_sizes
        ctx.mark_non_differentiable(cells)
        return hiddens, cells

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, hidden, cell, gates, cells, hiddens = ctx.saved_tensors
        batch_sizes: list[int] = ctx.batch_sizes
        units = weight.shape[1]
        grad_hiddens = grads[0]
        grad_gates = torch.empty_like(gates)
        # What each step read: the hidden vectors of the step before, in packed order.
        grad_h = hiddens.new_zeros(batch_sizes[0], units)
        grad_c = torch.zeros_like(grad_h)
        previous_hiddens = torch.empty_like(hiddens)
        offset = len(gates)
        for step in reversed(range(len(batch_sizes))):
            n = batch_sizes[step]
            offset -= n
            now = slice(offset, offset + n)
            before = offset - batch_sizes[step - 1]
            c_before = cells[before : before + n] if step else cell[:n]
            previous_hiddens[now] = hiddens[before : before + n] if step else hidden[:n]
            i, f, g, o = gates[now].split(units, dim=1)
            tanh_c = cells[now].tanh()
            dh = grad_hiddens[now] + grad_h[:n]
            dc = grad_c[:n].addcmul_(dh * o, 1 - tanh_c * tanh_c)
            d_i, d_f, d_g, d_o = grad_gates[now].split(units, dim=1)
            torch.mul(dc * g, i * (1 - i), out=d_i)
            torch.mul(dc * c_before, f * (1 - f), out=d_f)
            torch.mul(dc * i, 1 - g * g, out=d_g)
            torch.mul(dh * tanh_c, o * (1 - o), out=d_o)
            dc *= f
            torch.mm(grad_gates[now], weight, out=grad_h[:n])
        return grad_gates, grad_gates.t() @ previous_hiddens, None, None, None


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
    out: tuple[Tensor, Tensor] = _PackedLSTM.apply(from_input, weight, hidden, cell, batch_sizes)  # type: ignore[no-untyped-call]
    return out
