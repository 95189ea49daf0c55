"""Compression of c memories into one, and what teaches it: the parts of the Compressive Transformer.

Source: Rae et al., Compressive Transformers for Long-Range Sequence Modelling, 2019, arXiv 1911.05507.

A group is c memories, oldest first, of which a compression makes one. Compressions that learn start as the
mean of the group, so that a compressed memory means to the attention above what its members meant.

Letters: c members of a group, P steps that compress, of any rows and times, G groups that one of them reads.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.memory.attention import AttentionLayer

Function = Literal["mean", "max", "conv", "dilated-conv", "most-used"]
Loss = Literal["none", "bptt", "auto-encoding", "attention-reconstruction"]
FUNCTIONS: tuple[Function, ...] = ("mean", "max", "conv", "dilated-conv", "most-used")
LEARNING_FUNCTIONS: tuple[Function, ...] = ("conv", "dilated-conv")
LEARNING_LOSSES: tuple[Loss, ...] = ("bptt", "auto-encoding", "attention-reconstruction")


class Mean(nn.Module):
    """Mean pooling."""

    def forward(self, members: Tensor, usage: Tensor | None = None) -> Tensor:
        return members.mean(-2)


class Max(nn.Module):
    """Max pooling."""

    def forward(self, members: Tensor, usage: Tensor | None = None) -> Tensor:
        return members.amax(-2)


class MostUsed(nn.Module):
    """The member that got the most attention, as it is."""

    def forward(self, members: Tensor, usage: Tensor | None = None) -> Tensor:
        assert usage is not None
        chosen = usage.argmax(-1)[..., None, None].expand(*members.shape[:-2], 1, members.shape[-1])
        return members.gather(-2, chosen).squeeze(-2)


class Conv(nn.Module):
    """1D convolution whose kernel and stride are c: for one group a linear map of all its members."""

    def __init__(self, width: int, rate: int) -> None:
        super().__init__()
        self.linear = nn.Linear(rate * width, width)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(width).repeat(1, rate) / rate)
            self.linear.bias.zero_()

    def forward(self, members: Tensor, usage: Tensor | None = None) -> Tensor:
        out: Tensor = self.linear(members.flatten(-2))
        return out


class DilatedConv(nn.Module):
    """Residual convolutions with kernel 2 and dilations 1, 2, 4, ... until the last member has seen all.

    With c = 4, and the first member in place of what would be before it:

        members            0    1    2    3
        dilation 1              01        23
        dilation 2                        0123    the compressed memory
    """

    def __init__(self, width: int, rate: int) -> None:
        super().__init__()
        self.dilations = [2**n for n in range(math.ceil(math.log2(rate)))]
        self.up = nn.ModuleList(nn.Linear(2 * width, width) for _ in self.dilations)
        self.down = nn.ModuleList(nn.Linear(width, width) for _ in self.dilations)
        for linear in self.down:
            assert isinstance(linear, nn.Linear)
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, members: Tensor, usage: Tensor | None = None) -> Tensor:
        at = torch.arange(members.shape[-2], device=members.device)
        for dilation, up, down in zip(self.dilations, self.up, self.down, strict=True):
            before = members[..., (at - dilation).clamp(min=0), :]
            change = down(F.relu(up(torch.cat([before, members], dim=-1))))
            members = (before + members) / 2 + change
        return members[..., -1, :]


def content_attention(layer: AttentionLayer, queries: Tensor, slots: Tensor) -> Tensor:
    """What the heads read by content alone, with projections that are given.

    Args:
        layer: whose projections are used, without gradient.
        queries: (P, D).
        slots: (P, K, D).

    Returns:
        (P, D).
    """
    query, query_bias, key, value, value_bias = (
        weight.detach()
        for weight in (
            layer.query.weight,
            layer.query.bias,
            layer.key.weight,
            layer.value.weight,
            layer.value.bias,
        )
    )
    q = F.linear(queries, query, query_bias).view(-1, layer.n_heads, layer.head_width)
    key, value = (weight.view(layer.n_heads, layer.head_width, -1) for weight in (key, value))
    # As in a step of the layer, projections move to the query's side.
    q = torch.einsum("phe,hed->phd", q / math.sqrt(layer.head_width), key)
    read = torch.softmax(q @ slots.transpose(1, 2), dim=-1) @ slots  # (P, H, D)
    return torch.einsum("phd,hed->phe", read, value).flatten(1) + value_bias


class Compressor(nn.Module):
    """A layer's compression and its loss.

    Who learns from what, by stop-gradients:

                                 weights of the compression   hidden states   attention
        the task, reading            with bptt only                yes            yes
        the compression's loss            yes                       no             no

    Args:
        width: D.
        rate: c.
        function: how c memories become one.
        loss: what teaches it.
    """

    def __init__(self, width: int, rate: int, function: Function, loss: Loss) -> None:
        super().__init__()
        self.rate = rate
        self.loss_name = loss
        self.function: nn.Module
        match function:
            case "mean":
                self.function = Mean()
            case "max":
                self.function = Max()
            case "most-used":
                self.function = MostUsed()
            case "conv":
                self.function = Conv(width, rate)
            case "dilated-conv":
                self.function = DilatedConv(width, rate)
        self.decode = nn.Linear(width, rate * width) if loss == "auto-encoding" else None

    @property
    def has_loss(self) -> bool:
        return self.loss_name in ("auto-encoding", "attention-reconstruction")

    def forward(self, members: Tensor, usage: Tensor | None = None) -> Tensor:
        """Compressed memories (..., D), to be read, of groups (..., c, D).

        Args:
            members: oldest first.
            usage: (..., c) attention that each got; needed by `most-used`.
        """
        if self.loss_name == "bptt" or not torch.is_grad_enabled():
            out: Tensor = self.function(members, usage)
        else:
            given = {name: parameter.detach() for name, parameter in self.function.named_parameters()}
            out = torch.func.functional_call(self.function, given, (members, usage))
        return out

    def losses(self, layer: AttentionLayer, queries: Tensor, groups: Tensor, read: Tensor) -> Tensor:
        """The loss of P steps at which a group is compressed.

        Args:
            layer: that reads.
            queries: (P, D) `layer.normalise(x)` of the step.
            groups: (U, c, D) members of all groups that one of the steps reads.
            read: (P, G) which groups: the one that is compressed now, and all that are in full after it.

        Returns:
            (P,) mean squared errors.
        """
        queries, groups = queries.detach(), groups.detach()
        if self.decode is not None:
            now = groups[read[:, 0]]
            error: Tensor = self.decode(self.function(now)).view_as(now) - now
            return error.square().mean((1, 2))
        full = content_attention(layer, queries, groups[read].flatten(1, 2))
        compressed: Tensor = self.function(groups)
        return (full - content_attention(layer, queries, compressed[read])).square().mean(1)
