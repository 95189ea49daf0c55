"""A GRU layer over packed sequences, with its gradient written out. Why, and the packed order: `packed_lstm`.

Gate order: reset, update, new, as in torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from memspan.memory.packing import steps_before


class _PackedGRU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, from_input: Tensor, weight: Tensor, hidden: Tensor, batch_sizes: list[int]
    ) -> Tensor:
        units = weight.shape[1]
        gates = torch.empty_like(from_input)  # reset and update after their nonlinearities, and U h of new
        news = from_input.new_empty(len(from_input), units)
        hiddens = torch.empty_like(news)
        weight_t = weight.t()
        h = hidden
        per_step = zip(
            *(torch.split(each, batch_sizes) for each in (from_input, gates, news, hiddens)), strict=True
        )
        for add, gate, new, hidden_out in per_step:
            n = len(add)
            torch.mm(h[:n], weight_t, out=gate)
            r_z = gate[:, : 2 * units]
            r_z.add_(add[:, : 2 * units]).sigmoid_()
            torch.addcmul(add[:, 2 * units :], gate[:, :units], gate[:, 2 * units :], out=new).tanh_()
            h = torch.lerp(new, h[:n], gate[:, units : 2 * units], out=hidden_out)
        ctx.save_for_backward(weight, hidden, gates, news, hiddens)
        ctx.batch_sizes = batch_sizes
        return hiddens

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, hidden, gates, news, hiddens = ctx.saved_tensors
        sizes: list[int] = ctx.batch_sizes
        units = weight.shape[1]
        h_before = steps_before(hidden, hiddens, sizes)
        # All that does not depend on later steps is computed for all steps at once: how the hidden vector is
        # moved by the gates before their nonlinearities, and by U h of new.
        r, z, from_hidden = torch.split(gates, units, dim=1)
        by_new = (1 - z) * (1 - news * news)
        by_product = torch.stack(
            [by_new * from_hidden * r * (1 - r), (h_before - news) * z * (1 - z), by_new * r], dim=1
        )
        grad_product = gates.new_empty(len(gates), 3, units)
        grad_hiddens = torch.empty_like(hiddens)  # by way of later steps, too
        grad_h = hiddens.new_zeros(sizes[0], units)
        per_step = zip(
            *(torch.split(each, sizes) for each in (grads[0], z, by_product, grad_product, grad_hiddens)),
            strict=True,
        )
        for d_hidden, update, h_by_product, d_product, d_h in reversed(list(per_step)):
            n = len(d_hidden)
            torch.add(d_hidden, grad_h[:n], out=d_h)
            torch.mul(d_h.unsqueeze(1), h_by_product, out=d_product)
            torch.mul(d_h, update, out=grad_h[:n]).addmm_(d_product.view(n, -1), weight)
        grad_input = torch.cat([grad_product[:, :2].flatten(1), grad_hiddens * by_new], dim=1)
        return grad_input, grad_product.flatten(1).t() @ h_before, None, None


def packed_gru(from_input: Tensor, weight: Tensor, hidden: Tensor, batch_sizes: list[int]) -> Tensor:
    """Runs one layer.

    Args:
        from_input: (packed steps, 3 units) what the gates get from the input, biases included.
        weight: (3 units, units) what they get from the hidden vector.
        hidden: (sequences, units) before the first step; no gradient reaches it.
        batch_sizes: sequences still running at each step; never grows.

    Returns:
        Hidden vectors after each step, (packed steps, units).
    """
    out: Tensor = _PackedGRU.apply(from_input, weight, hidden, batch_sizes)  # type: ignore[no-untyped-call]
    return out
