"""Summary tree: the last steps, and a tree of summaries of all before.

Source: none is built on. A window as in Transformer-XL (Dai et al., 2019, arXiv 1901.02860), and beyond it
what Compressive Transformers (Rae et al., 2019, arXiv 1911.05507) do once, again and again: summaries are
summed up in their turn, so that n steps take log n of them.

A layer reads the last M steps in full. The step that leaves this window becomes a summary of level 0, and two
of a level merge into one of the next (`memspan.memory.binary_counter`), by a map that is learnt and shared
by all levels:

    merge       s = norm(W [a; b] + W'' relu(W' [a; b] + c_l) + w)      first: s = norm((a + b) / 2)
    loss        || V s + v - [a; b] ||^2 / 2D, the sum over a step's merges; a and b as they are (constant)

A summary is as far away as the newest step that it sums up. The gradient of what is read flows through all
merges of the block, back to its steps, and no further; the loss reaches the merging alone.

State, S = M + 1 + levels:

    hidden.n  (B, S, D) float   per layer n: the last M + 1 steps, that with number p in its episode at
                                p % (M + 1), then a summary of each level
    steps     (B,)      long    steps of the episode so far; all else follows from it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memspan.memory import binary_counter
from memspan.memory.attention import AttentionLayer
from memspan.memory.base import FREE, Memory, MemoryOutput, Remembered, State
from memspan.memory.block_attention import cut_block
from memspan.memory.few_rows import Arrays, Weights, are_few
from memspan.memory.masked_block import NEVER
from memspan.memory.registry import register
from memspan.memory.summary_merge import EPS, Merge
from memspan.memory.transformer import TransformerConfig, attention_layers


@dataclass(frozen=True)
class SummaryTreeConfig(TransformerConfig):
    """Settings of `summary-tree`."""

    memory_size: int = 64
    """M: how many past steps a layer can read in full."""
    n_levels: int = 16
    """Levels of summaries: the highest sum up 2 ** (n_levels - 1) steps, and last for as many more."""

    def validate(self) -> None:
        super().validate()
        self._require("memory_size", self.memory_size >= 1, "at least 1")
        self._require("n_levels", 2 <= self.n_levels <= 24, "from 2 to 24")


@dataclass
class Plan:
    """What a block can read, the same in all layers. Slots come as window, oldest first, then summaries."""

    in_time: Tensor
    """(B, S) where each slot of this order stands in the state."""
    there: Tensor
    """(B, S) bool: whether there is anything in it."""
    order: Tensor
    """(B, S') slots that can be read by a step of the block; a row's used ones are the last."""
    birth: Tensor
    """(B, K) as `AttentionLayer.attend_block` takes it, for S' slots and the block."""
    bias: Tensor
    """(B, T, K)."""
    visible: Tensor
    """(B, T) how many memories each step can read."""
    count: Tensor
    """(B, T) steps that have left the window."""


@register("summary-tree")
class SummaryTree(Memory):
    """A window over the last `memory_size` steps, and summaries of what came before."""

    Config = SummaryTreeConfig

    def __init__(self, width: int, config: SummaryTreeConfig | None = None) -> None:
        super().__init__(width)
        config = config or SummaryTreeConfig()
        self.memory_size = config.memory_size
        self.n_levels = config.n_levels
        # The newest step of a summary is M + 1 away when that comes out.
        self.longest_distance = config.memory_size + 2 ** (config.n_levels - 1)
        self.layers = attention_layers(width, config, self.longest_distance)
        self.merges = nn.ModuleList(Merge(width, config.n_levels) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(width)
        names = "mix.weight", "up.weight", "level", "down.weight", "down.bias", "split.weight", "split.bias"
        self._merge_weights = [
            Weights(self, *(f"merges.{n}.{name}" for name in names)) for n in range(config.n_layers)
        ]

    def initial_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        shape = (batch_size, self.memory_size + 1 + self.n_levels, self.width)
        state: State = {f"hidden.{n}": torch.zeros(shape, device=device) for n in range(len(self.layers))}
        return state | {"steps": torch.zeros(batch_size, dtype=torch.long, device=device)}

    def forward(
        self, x: Tensor, state: State, episode_starts: Tensor, keep_state: bool = True
    ) -> MemoryOutput:
        n_steps, window = len(x), self.memory_size + 1
        plan = self._plan(state["steps"], episode_starts.T, x.dtype)
        pieces = None
        if x.device.type == "cpu":
            used = (plan.birth[:, : -2 * n_steps] > -NEVER).sum(1).tolist()
            pieces = cut_block(episode_starts.T, used, plan.birth.shape[1], per_step=2)
        merges = binary_counter.carries(plan.count, self.n_levels)
        steps = plan.count[:, -1] + window
        new_state: State = {"steps": steps}
        lacking = []
        h = x.transpose(0, 1)
        for n, (layer, merge) in enumerate(zip(self.layers, self.merges, strict=True)):
            assert isinstance(layer, AttentionLayer)
            u = layer.normalise(h)
            # Leftovers would pass on a NaN even at a weight of 0.
            hidden = torch.where(plan.there[..., None], _pick(state[f"hidden.{n}"], plan.in_time), 0.0)
            seen = torch.cat([hidden[:, :window], u], dim=1)
            summaries, lacks = binary_counter.carry(hidden[:, window:], seen[:, :n_steps], merges, merge)
            lacking.append(lacks)
            block = torch.stack([summaries, u], dim=2).flatten(1, 2)
            h = layer.attend_block(h, u, _pick(hidden, plan.order), plan.birth, plan.bias, pieces, block)
            if keep_state:
                known = torch.cat([seen[:, n_steps:], hidden[:, window:], summaries], dim=1)
                new_state[f"hidden.{n}"] = _pick(known.detach(), self._kept(plan.count[:, -1], n_steps))
        return MemoryOutput(
            self.norm(h.transpose(0, 1)),
            new_state,
            {"summary": torch.stack(lacking).mean(0).T},
            {"effective_memory": plan.visible.to(x.dtype).T},
        )

    def _plan(self, steps: Tensor, starts: Tensor, dtype: torch.dtype) -> Plan:
        """Of a block, after `steps` (B,) of each row's episode; an episode starts where `starts` (B, T)."""
        M, window, n_steps = self.memory_size, self.memory_size + 1, starts.shape[1]
        steps = torch.where(starts[:, 0], 0, steps)[:, None]
        time = torch.arange(n_steps, device=starts.device)
        newest_start = torch.where(starts, time, -1).cummax(1).values
        count = torch.where(newest_start < 0, steps + time, time - newest_start) - M  # (B, T)
        # Time 0 is the block's first step. A step can be read by itself and M more, a summary as often as it
        # sums up steps, from when it comes out. With M = 2, and steps 0 to 4 of an episode before the block:
        #            slots           block, each step after the summary that comes out with it
        #            3  4  01        2  5     0123  6     4  7
        #   t=0      x  x  x         x  x     .     .     .  .
        #   t=1      .  x  .         .  x     x     x     .  .
        #   t=2      .  .  .         .  x     x     x     x  x
        age = torch.arange(M, -1, -1, device=starts.device).expand(len(steps), -1)
        arrival = binary_counter.arrivals(steps[:, 0] - window, self.n_levels)
        there = torch.cat([age < steps, arrival > 0], dim=1)
        until = torch.cat([M - age, arrival + binary_counter.size(arrival, self.n_levels) + M - steps], dim=1)
        birth = torch.cat([-1 - age, arrival - 1 - steps], dim=1)
        used = there & (until > 0)
        order = used.to(torch.uint8).argsort(dim=1, stable=True)
        order = order[:, order.shape[1] - int(used.sum(1).amax()) :]
        used, until, birth = (each.gather(1, order) for each in (used, until, birth))
        # The clock leaps at a start, so that what was before it is over.
        clock = time + (self.longest_distance + n_steps + 1) * starts.cumsum(1)
        lasts = torch.where(count > 0, binary_counter.size(count, self.n_levels), 0)
        until_of_block = clock[..., None] + torch.stack([lasts, torch.full_like(lasts, window)], dim=2)
        until = torch.cat([torch.where(used, until, -1), until_of_block.flatten(1)], dim=1)
        since = torch.cat([torch.full_like(birth, -1), clock.repeat_interleave(2, dim=1)], dim=1)
        now = clock[:, :, None]
        readable = (since[:, None] <= now) & (now < until[:, None])  # (B, T, K)
        birth_of_block = torch.stack([time - window, time], dim=1).flatten().expand(len(steps), -1)
        return Plan(
            in_time=torch.cat([(steps - 1 - age) % window, self._levels(steps)], dim=1),
            there=there,
            order=order,
            birth=torch.cat([torch.where(used, birth.to(dtype), -NEVER), birth_of_block.to(dtype)], dim=1),
            bias=torch.zeros_like(readable, dtype=dtype).masked_fill_(~readable, -NEVER),
            visible=readable.sum(-1) - 1,  # the step itself is no memory
            count=count,
        )

    def _levels(self, rows: Tensor) -> Tensor:
        """(B, levels) where summaries stand in the state."""
        first = self.memory_size + 1
        return torch.arange(first, first + self.n_levels, device=rows.device).expand(len(rows), -1)

    def _kept(self, count: Tensor, n_steps: int) -> Tensor:
        """(B, S) where the state after a block is found: last M + 1 steps, summaries before, block's."""
        window = self.memory_size + 1
        slot = torch.arange(window, device=count.device)
        # Oldest first; the oldest is where the next step will be, which is number `count + window`.
        steps = (slot - count[:, None]) % window
        arrival = binary_counter.arrivals(count, self.n_levels)
        ago, old = count[:, None] - arrival, self._levels(count)
        came_out = (arrival > 0) & (ago < n_steps)
        return torch.cat([steps, torch.where(came_out, old[:, -1:] + n_steps - ago, old)], dim=1)

    def step(self, x: Tensor, state: State, episode_start: Tensor) -> MemoryOutput:
        if are_few(x):
            weights = [each for of_layer in self._merge_weights if (each := of_layer.arrays())]
            if len(weights) == len(self.layers):
                return self._step_of_few_rows(x, state, episode_start, weights)
        window = self.memory_size + 1
        number = torch.where(episode_start, 0, state["steps"])
        started = episode_start.nonzero().squeeze(-1)
        count = number - self.memory_size
        rows, slot = torch.arange(len(x), device=x.device), number % window
        age, used, arrival = self._slots(number)
        bias = torch.zeros_like(age, dtype=x.dtype).masked_fill_(~used, -NEVER)
        merges = binary_counter.carries(count[:, None], self.n_levels)
        changed, level = (arrival == count.clamp(min=1)[:, None]).nonzero(as_tuple=True)
        new_state: State = {"steps": number + 1}
        lacking = []
        h = x
        for n, (layer, merge) in enumerate(zip(self.layers, self.merges, strict=True)):
            assert isinstance(layer, AttentionLayer)
            hidden = state[f"hidden.{n}"]
            if len(started):
                # Leftovers would pass on a NaN even at a weight of 0.
                hidden.index_fill_(0, started, 0.0)
            summary, lacks = binary_counter.carry(hidden[:, window:], hidden[rows, slot, None], merges, merge)
            lacking.append(lacks[:, 0])
            u = layer.normalise(h)
            hidden[rows, slot] = u.detach()
            hidden[changed, window + level] = summary[changed, 0].detach()
            h = layer.attend_step(h, u, hidden, age.clamp(min=0), None, bias)
            new_state[f"hidden.{n}"] = hidden
        return MemoryOutput(
            self.norm(h),
            new_state,
            {"summary": torch.stack(lacking).mean(0)},
            {"effective_memory": (used.sum(-1) - 1).to(x.dtype)},
        )

    def _step_of_few_rows(
        self, x: Tensor, state: State, episode_start: Tensor, weights: list[Arrays]
    ) -> MemoryOutput:
        """As `step`, with the weights of the merges."""
        from memspan.memory.summary_tree_kernel import store, tell_ages

        steps, (n_rows, n_slots, _) = torch.empty_like(state["steps"]), state["hidden.0"].shape
        distance = steps.new_empty(n_rows, n_slots)
        bias = x.new_empty(n_rows, 1, n_slots)
        visible, lacks = x.new_zeros(2, n_rows).unbind()
        starts, after, lacking = episode_start.contiguous().numpy(), steps.numpy(), lacks.numpy()
        arguments: list[Any] = [state["steps"].contiguous().numpy(), starts, self.memory_size, after]
        arguments += [distance.numpy(), bias.numpy(), visible.numpy()]
        farthest: int = tell_ages(*arguments)
        new_state: State = {"steps": steps}
        h = x
        for n, layer in enumerate(self.layers):
            assert isinstance(layer, AttentionLayer)
            hidden = new_state[f"hidden.{n}"] = state[f"hidden.{n}"]
            u = layer.normalise(h)
            arguments = [hidden.numpy(), after, starts, self.memory_size, u.contiguous().numpy()]
            arguments += [*weights[n], EPS, 1 / len(self.layers), lacking]
            store(*arguments)
            # A table of twice as many distances each time that there are more.
            h = layer.attend_step(h, u, hidden, distance, 1 << farthest.bit_length(), bias)
        return MemoryOutput(self.norm(h), new_state, {"summary": lacks}, {"effective_memory": visible})

    def _slots(self, number: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the state after step `number` (B,): (B, S) ages and which are used, (B, levels) arrivals."""
        slot = torch.arange(self.memory_size + 1, device=number.device)
        age = (number[:, None] - slot) % (self.memory_size + 1)
        arrival = binary_counter.arrivals(number - self.memory_size, self.n_levels)
        used = torch.cat([age <= number[:, None], arrival > 0], dim=1)
        age = torch.cat([age, number[:, None] + 1 - arrival], dim=1)
        return age.masked_fill_(~used, FREE), used, arrival

    def remembered(self, state: State) -> list[Remembered]:
        number = state["steps"] - 1
        age, used, arrival = self._slots(number)
        since = (number - self.memory_size)[:, None] - arrival
        window = age[:, : self.memory_size + 1]
        left = torch.cat(
            [self.memory_size - window, binary_counter.size(arrival, self.n_levels) - 1 - since], dim=1
        )
        left = torch.where(used, left, 0).to(state["hidden.0"].dtype)
        # A summary is made when its step comes, of what the step before had left.
        made = torch.cat([window, since + 1], dim=1).masked_fill_(~used, FREE)
        bias = torch.zeros_like(left).masked_fill_(~used, -NEVER)
        layers = []
        for n, layer in enumerate(self.layers):
            assert isinstance(layer, AttentionLayer)
            hidden = torch.where(used[..., None], state[f"hidden.{n}"], 0.0)
            shares = layer.shares_of_last_step(hidden, age, bias)
            layers.append(Remembered(age, used.to(left.dtype), left, made=made, attention=shares))
        return layers

    @property
    def capacity(self) -> float:
        return float(self.memory_size + self.n_levels)


def _pick(slots: Tensor, index: Tensor) -> Tensor:
    """(B, S, D) slots, (B, S') which of them -> (B, S', D)."""
    return slots.gather(1, index[..., None].expand(-1, -1, slots.shape[-1]))
