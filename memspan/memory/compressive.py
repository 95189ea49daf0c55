"""Compressive Transformer: the last steps in full, and what leaves them c to 1.

Source: Rae et al., Compressive Transformers for Long-Range Sequence Modelling, 2019, arXiv 1911.05507.

The steps of an episode fall into groups of c. A step is read in full until all of its group are more than
n_m steps back. Then the group is compressed, at the same step of the episode however it is cut into blocks.
The last n_cm compressed memories are kept:

    n_m = 3, c = 2, n_cm = 2         * the query    x read in full    === read as one    . gone

    step of the episode   0 1   2 3   4 5   6 7   8 9
    t=3                   x x   x *
    t=4                   x x   x x   *                    step 0 is out of the window, but waits for 1
    t=5                   ===   x x   x *
    t=6                   ===   x x   x x   *
    t=7                   ===   ===   x x   x *
    t=8                   ===   ===   x x   x x   *
    t=9                   . .   ===   ===   x x   x *

What is remembered: the layer-normalised inputs of each layer, in full or compressed, without gradient.
State, with R = n_m + c:

    index     (B,)              long    which step of its episode the last step was; -1: none
    hidden.n  (B, n_cm + R, D)  float   per layer n: group g in column g % n_cm, step i in n_cm + i % R
    usage.n   (B, R)            float   with most-used: attention that step i got so far, in column i % R

A compressed memory stands at the time of its group's last step, in positions and ages.

Where we differ from the paper: what is compressed when depends on the step, not on the block; layers,
positions and the window are those of `memspan.memory.transformer_xl`; a compressed memory that is read in
the block in which its group was made passes the task's gradient on to the group; most-used compares
attention among memories in full only: shares of all attention would depend on what was chosen before, which
a block could not compute at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.memory.attention import AttentionLayer
from memspan.memory.base import FREE, Memory, MemoryOutput, Remembered, State
from memspan.memory.compression import (
    FUNCTIONS,
    LEARNING_FUNCTIONS,
    LEARNING_LOSSES,
    Compressor,
    Function,
    Loss,
)
from memspan.memory.compressive_layout import Block, Layout, store, take
from memspan.memory.few_rows import Weights, are_few
from memspan.memory.registry import register
from memspan.memory.transformer import TransformerConfig, attention_layers


@dataclass(frozen=True)
class CompressiveConfig(TransformerConfig):
    """Settings of `compressive`."""

    memory_size: int = 40
    """n_m: how many past steps a layer can read in full."""
    compression_rate: int = 4
    """c: how many steps become one compressed memory."""
    compressed_size: int = 40
    """n_cm: how many compressed memories a layer can read."""
    compression: Function = "conv"
    """How steps become one: a pooling, a convolution, or the one that got the most attention."""
    compression_loss: Loss = "attention-reconstruction"
    """What teaches a convolution; none for the others."""

    def validate(self) -> None:
        super().validate()
        self._require("memory_size", self.memory_size >= 1, "at least 1")
        self._require("compression_rate", self.compression_rate >= 2, "at least 2")
        self._require("compressed_size", self.compressed_size >= 1, "at least 1")
        self._require("compression", self.compression in FUNCTIONS, f"one of {', '.join(FUNCTIONS)}")
        if self.compression in LEARNING_FUNCTIONS:
            allowed = f"one of {', '.join(LEARNING_LOSSES)} for compression={self.compression!r}"
            self._require("compression_loss", self.compression_loss in LEARNING_LOSSES, allowed)
        else:
            allowed = f"'none' for compression={self.compression!r}, which learns nothing"
            self._require("compression_loss", self.compression_loss == "none", allowed)


@register("compressive")
class Compressive(Memory):
    """A window over the last steps, and a longer one over what was compressed."""

    Config = CompressiveConfig
    readers: Tensor

    def __init__(self, width: int, config: CompressiveConfig | None = None) -> None:
        super().__init__(width)
        config = config or CompressiveConfig()
        self.n_layers = config.n_layers
        self.rate = config.compression_rate
        self.compressed_size = config.compressed_size
        self.layout = Layout(config.memory_size, config.compression_rate, config.compressed_size)
        self.counts_usage = config.compression == "most-used"
        self.has_loss = config.compression_loss in ("auto-encoding", "attention-reconstruction")
        self.layers = attention_layers(width, config, self.layout.longest_distance)
        self.compressors = nn.ModuleList(
            Compressor(width, self.rate, config.compression, config.compression_loss)
            for _ in range(config.n_layers)
        )
        # Over how many steps the attention to a group's members is the mean, by the time it is compressed.
        readers = self.layout.n_full - 1 - torch.arange(self.rate)
        self.register_buffer("readers", readers, persistent=False)
        self.norm = nn.LayerNorm(width)
        names = "query.weight", "query.bias", "key.weight", "value.weight"
        self._weights = [
            Weights(self, *(f"layers.{n}.{name}" for name in names)) for n in range(config.n_layers)
        ]

    def initial_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        state: State = {"index": torch.full((batch_size,), -1, device=device)}
        n_full = self.layout.n_full
        for n in range(self.n_layers):
            state[f"hidden.{n}"] = torch.zeros(
                batch_size, self.compressed_size + n_full, self.width, device=device
            )
            if self.counts_usage:
                state[f"usage.{n}"] = torch.zeros(batch_size, n_full, device=device)
        return state

    def forward(
        self, x: Tensor, state: State, episode_starts: Tensor, keep_state: bool = True
    ) -> MemoryOutput:
        block = self.layout.block(state["index"], episode_starts, x.dtype)
        h = x.transpose(0, 1)
        new_state: State = {"index": block.last_index}
        losses: list[Tensor] = []
        for n, layer, compressor in self._parts():
            u = layer.normalise(h)
            stored = take(state[f"hidden.{n}"], block.in_order, block.in_use)
            steps = torch.cat([stored[:, self.compressed_size :], u], dim=1)  # (B, R + T, D)
            rows = torch.arange(len(u), device=x.device)[:, None, None]
            groups = steps[rows, block.members]  # (B, groups, c, D)
            usage = None
            if self.counts_usage:
                usage = self._usage(layer, u, steps, state[f"usage.{n}"], block)  # (B, R + T)
            new = groups[:, : block.n_new]
            new = compressor(new, self._of_groups(usage, rows, block.members[:, : block.n_new]))
            # (B, S, D), in the order of `Block.birth`
            slots = torch.cat([stored[:, : self.compressed_size], new, stored[:, self.compressed_size :]], 1)
            if compressor.has_loss:
                losses.append(self._losses(layer, compressor, u, groups, block))
            h = layer.attend_block(h, u, slots, block.birth, block.bias, None)
            if keep_state:
                with torch.no_grad():
                    new_state[f"hidden.{n}"] = take(torch.cat([slots, u], 1), block.to_keep, block.to_use)
                    if usage is not None:
                        usage = F.pad(usage, (slots.shape[1] + u.shape[1] - usage.shape[1], 0))
                        kept = take(usage[..., None], block.to_keep, block.to_use).squeeze(-1)
                        new_state[f"usage.{n}"] = kept[:, self.compressed_size :]
        return MemoryOutput(
            self.norm(h.transpose(0, 1)),
            new_state if keep_state else {},
            {"compression": torch.stack(losses).mean(0).T} if losses else {},
            {"effective_memory": block.n_readable.T.to(x.dtype)},
        )

    def step(self, x: Tensor, state: State, episode_start: Tensor) -> MemoryOutput:
        index = state["index"]
        distance, bias, n_readable, column, rows = self.layout.step(index, episode_start, x)
        losses: list[Tensor] = []
        h = x
        for n, layer, compressor in self._parts():
            hidden, usage = state[f"hidden.{n}"], state.get(f"usage.{n}")
            u = layer.normalise(h)
            if rows is not None:
                losses.append(self._compress(n, layer, compressor, u, hidden, usage, index, rows))
            store(hidden, episode_start, column, u)
            if usage is not None:
                full = slice(self.compressed_size, None)
                shares = layer.shares(
                    u[:, None], hidden[:, full], -distance[:, full].to(x.dtype), bias[:, None, full]
                )
                usage.masked_fill_(episode_start[:, None], 0.0).add_(shares.squeeze(1))
                # For the step itself: what its column held was of another.
                usage.scatter_(1, (column - self.compressed_size)[:, None], 0.0)
            h = layer.attend_step(h, u, hidden, distance, self.layout.longest_distance + 1, bias)
        loss = torch.stack(losses).mean(0) if losses else x.new_zeros(len(x))
        return MemoryOutput(
            self.norm(h),
            state,
            {"compression": loss} if self.has_loss else {},
            {"effective_memory": n_readable},
        )

    def _compress(
        self,
        n: int,
        layer: AttentionLayer,
        compressor: Compressor,
        u: Tensor,
        hidden: Tensor,
        usage: Tensor | None,
        index: Tensor,
        rows: Tensor,
    ) -> Tensor:
        """Compresses a group in some rows of a layer's slots, at a step.

        Args:
            n: number of the layer.
            layer: that reads.
            compressor: of the layer.
            u: (B, D) `layer.normalise(x)` of the step.
            hidden: (B, S, D) written.
            usage: (B, R), or None.
            index: (B,) of the step.
            rows: (P,) that compress.

        Returns:
            (B,) losses, 0 in other rows.
        """
        # The step itself will take the column of the group's first step.
        first = index[rows] - self.layout.n_full
        members = torch.arange(self.layout.n_groups * self.rate, device=u.device) + first[:, None]
        members = (members % self.layout.n_full).view(-1, self.layout.n_groups, self.rate)
        groups = hidden[rows[:, None, None], members + self.compressed_size]  # (P, groups, c, D)
        new = compressor(groups[:, 0], self._of_groups(usage, rows[:, None], members[:, 0]))
        hidden[rows, first // self.rate % self.compressed_size] = new.detach()
        loss = u.new_zeros(len(u))
        if not compressor.has_loss:
            return loss
        found = self._losses_of_few(n, layer, compressor, u[rows], groups)
        if found is None:
            read = torch.arange(groups[..., 0, 0].numel(), device=u.device).view(groups.shape[:2])
            found = compressor.losses(layer, u[rows], groups.flatten(0, 1), read)
        return loss.index_put((rows,), found)

    def _losses_of_few(
        self, n: int, layer: AttentionLayer, compressor: Compressor, u: Tensor, groups: Tensor
    ) -> Tensor | None:
        """(P,) losses of a step at which few rows, u (P, D), compress; None where torch has to be called."""
        if compressor.decode is not None or not are_few(u) or not (weights := self._weights[n].arrays()):
            return None
        from memspan.memory.compressive_kernel import reconstruction_errors

        compressed = compressor.function(groups)  # (P, groups, D)
        out = torch.empty(len(u), dtype=u.dtype)
        given = (each.contiguous().numpy() for each in (u, groups.flatten(1, 2), compressed))
        arguments: list[Any] = [*given, *weights, layer.n_heads, out.numpy()]
        reconstruction_errors(*arguments)
        return out

    def _parts(self) -> Iterator[tuple[int, AttentionLayer, Compressor]]:
        for n, (layer, compressor) in enumerate(zip(self.layers, self.compressors, strict=True)):
            assert isinstance(layer, AttentionLayer)
            assert isinstance(compressor, Compressor)
            yield n, layer, compressor

    def _losses(
        self, layer: AttentionLayer, compressor: Compressor, u: Tensor, groups: Tensor, block: Block
    ) -> Tensor:
        """(B, T): 0 where nothing is compressed."""
        rows, steps = block.compressing
        first = block.compressed_group + rows * groups.shape[1]
        read = first[:, None] + torch.arange(self.layout.n_groups, device=u.device)
        found = compressor.losses(layer, u[rows, steps], groups.flatten(0, 1), read)
        return u.new_zeros(u.shape[:2]).index_put((rows, steps), found)

    def _usage(self, layer: AttentionLayer, u: Tensor, steps: Tensor, usage: Tensor, block: Block) -> Tensor:
        """(B, R + T) attention that each step got by the end of the block, or until it was compressed."""
        n_full, n_steps = usage.shape[1], steps.shape[1]
        shares = layer.shares(u, steps, block.birth[:, -n_steps:], block.bias[..., -n_steps:])
        shares.diagonal(n_full, 1, 2).zero_()  # what a step gives to itself is not given to a memory
        order = block.in_order[:, -n_full:] - self.compressed_size
        before = take(usage[..., None], order, block.in_use[:, -n_full:]).squeeze(-1)
        return F.pad(before, (0, u.shape[1])) + shares.sum(1)

    def _of_groups(self, usage: Tensor | None, rows: Tensor, members: Tensor) -> Tensor | None:
        """(..., c) mean attention to the members by the time that their group is compressed."""
        return None if usage is None else usage[rows, members] / self.readers

    @torch.no_grad()
    def remembered(self, state: State) -> list[Remembered]:
        ages = self.layout.ages(state["index"])
        strength = (ages != FREE).to(state["hidden.0"].dtype)
        left = self.layout.steps_left(state["index"], ages).to(strength.dtype)
        bias = torch.zeros_like(strength).masked_fill_(ages == FREE, -math.inf)
        layers = []
        for n, layer, _ in self._parts():
            hidden = torch.where((ages == FREE)[..., None], 0.0, state[f"hidden.{n}"])
            shares = layer.shares_of_last_step(hidden, ages, bias)
            layers.append(Remembered(ages, strength, left, attention=shares))
        return layers

    @property
    def capacity(self) -> float:
        return float(self.layout.n_full - 1 + self.compressed_size)
