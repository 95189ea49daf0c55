"""What the Compressive Transformer keeps where, and when: all follows from the step of the episode.

Letters: n_m steps in full, c steps of a group, n_cm compressed memories, R = n_m + c columns of steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from memspan.memory.base import FREE
from memspan.memory.step_attention import on_cpu_without_graph


def take(values: Tensor, columns: Tensor, used: Tensor) -> Tensor:
    """Columns (B, C) of values (B, K, D), 0 where not used: leftovers may be NaN."""
    columns = torch.where(used, columns, 0)
    taken = values.gather(1, columns[..., None].expand(-1, -1, values.shape[-1]))
    return torch.where(used[..., None], taken, 0.0)


def store(hidden: Tensor, episode_start: Tensor, column: Tensor, new: Tensor) -> None:
    """Puts a step (B, D) in its column (B,) of hidden (B, S, D), and clears what was of another episode."""
    if on_cpu_without_graph(new):
        from memspan.memory.compressive_kernel import store_step

        store_step(*(each.numpy() for each in (hidden, episode_start, column, new.contiguous())))
        return
    # Leftovers would pass on a NaN even at a weight of 0.
    hidden.masked_fill_(episode_start[:, None, None], 0.0)
    hidden[torch.arange(len(new), device=new.device), column] = new.detach()


@dataclass(frozen=True)
class Block:
    """Of B rows and T steps. Steps are in order of time, the R before the block and then its own T.

    A group's number counts a row's groups among those R + T steps.
    """

    birth: Tensor
    """(B, K) time of each key: compressed before the block, compressed in the block, steps."""
    bias: Tensor
    """(B, T, K) 0 where a query may read a key, else -inf."""
    n_readable: Tensor
    """(B, T) how many memories that are."""
    members: Tensor
    """(B, groups, c) long: among the R + T steps."""
    n_new: int
    """The first so many groups are those that may be compressed in the block."""
    compressing: tuple[Tensor, Tensor]
    """Rows and times (P,) at which a group is compressed."""
    compressed_group: Tensor
    """(P,) that group's number."""
    in_order: Tensor
    """(B, n_cm + R) columns of the state before the block: compressed as they are, then steps in order."""
    in_use: Tensor
    """(B, n_cm + R) bool: which of those hold something."""
    to_keep: Tensor
    """(B, n_cm + R) for each column of the state after the block which of the K keys it holds."""
    to_use: Tensor
    """(B, n_cm + R) bool: whether it holds one."""
    last_index: Tensor
    """(B,) step of the episode with which the block ends."""


class Step(NamedTuple):
    """Of B rows."""

    distance: Tensor
    """(B, n_cm + R) age of what each column holds; 0 where it holds nothing."""
    bias: Tensor
    """(B, n_cm + R) 0 where the step may read a column, else -inf."""
    n_readable: Tensor
    """(B,) how many memories that are, of the bias's kind."""
    column: Tensor
    """(B,) where the step is stored."""
    compressing: Tensor | None
    """(P,) rows that compress a group; None: none does."""


@dataclass(frozen=True)
class Layout:
    """Columns of the state: group g in g % n_cm, step i in n_cm + i % R."""

    memory_size: int
    rate: int
    compressed_size: int

    @property
    def n_full(self) -> int:
        """R: when a group is compressed, its first step is R steps back."""
        return self.memory_size + self.rate

    @property
    def n_groups(self) -> int:
        """Groups among the last R steps at that moment."""
        return self.n_full // self.rate

    @property
    def longest_distance(self) -> int:
        """How far back a compressed memory's last step can be."""
        return self.memory_size + self.rate * self.compressed_size

    def ages(self, index: Tensor) -> Tensor:
        """(B, n_cm + R) age of what each column holds after step `index` (B,); FREE: nothing."""
        index = index[:, None]
        newest = (index - self.memory_size) // self.rate - 1  # of the groups that are compressed
        column = torch.arange(self.compressed_size, device=index.device)
        group = newest - (newest - column) % self.compressed_size
        compressed = torch.where(group >= 0, index - (group * self.rate + self.rate - 1), FREE)
        age = (index - torch.arange(self.n_full, device=index.device)) % self.n_full
        step = index - age
        full = torch.where((step >= 0) & (step // self.rate > newest), age, FREE)
        return torch.cat([compressed, full], dim=1)

    def steps_left(self, index: Tensor, ages: Tensor) -> Tensor:
        """(B, n_cm + R) further steps that can read what the columns hold.

        A compressed memory has the age of its group's last step: it is told as that step, living on. The
        other steps end when the group is compressed.
        """
        until_last = self.rate - 1 - (index[:, None] - ages) % self.rate
        longest = torch.where(until_last > 0, self.memory_size + until_last, self.longest_distance)
        return torch.where(ages == FREE, 0, longest - ages)

    def step(self, index: Tensor, episode_start: Tensor, x: Tensor) -> Step:
        """Plans a step.

        Args:
            index: (B,) step of the episode before it, -1: none; written: the step's.
            episode_start: (B,).
            x: (B, D) what is read, for its kind.
        """
        if on_cpu_without_graph(x):
            from memspan.memory.compressive_kernel import plan_step

            bias = x.new_empty(len(x), self.compressed_size + self.n_full)
            distance = torch.empty_like(bias, dtype=torch.long)
            n_readable, column = x.new_empty(len(x)), torch.empty_like(index)
            written = (each.numpy() for each in (distance, bias, n_readable, column))
            sizes = self.memory_size, self.rate, self.compressed_size
            n_compressing = plan_step(index.numpy(), episode_start.numpy(), *sizes, *written)
            rows = self._compressing(index) if n_compressing else None
            return Step(distance, bias, n_readable, column, rows)
        index.masked_fill_(episode_start, -1).add_(1)
        ages = self.ages(index)
        bias = torch.zeros_like(ages, dtype=x.dtype).masked_fill_(ages == FREE, -math.inf)
        n_readable = ((ages != FREE).sum(1) - 1).to(x.dtype)
        rows = self._compressing(index)
        column = self.compressed_size + index % self.n_full
        return Step(ages.clamp(min=0), bias, n_readable, column, rows if len(rows) else None)

    def _compressing(self, index: Tensor) -> Tensor:
        """(P,) rows in which the first of the groups of the last R steps is compressed now."""
        first = index - self.n_full
        return ((first >= 0) & (first % self.rate == 0)).nonzero().squeeze(-1)

    def block(self, index: Tensor, episode_starts: Tensor, dtype: torch.dtype) -> Block:
        """Plans a block.

        Args:
            index: (B,) step of the episode before the block, -1: none.
            episode_starts: (T, B).
            dtype: of times and bias.
        """
        starts, device = episode_starts.T, index.device
        n_steps, n_full, rate, n_cm = len(episode_starts), self.n_full, self.rate, self.compressed_size
        index = torch.where(starts[:, 0], -1, index)
        ages = self.ages(index)
        time = torch.arange(-n_full, n_steps, device=device)  # of the R + T steps
        now = time[n_full:]
        # When the episode of each step began; below 0: before the block.
        began = torch.where(starts, now, -1 - index[:, None]).cummax(1).values  # (B, T)
        began_before = (-1 - index)[:, None].expand(-1, n_full)
        own_index = time - torch.cat([began_before, began], dim=1)  # (B, R + T); negative: no step

        # Groups by their last steps. A group whose first is older than R steps was compressed before.
        is_last = own_index % rate == rate - 1
        is_last[:, : rate - 1] = False
        number = is_last.cumsum(1) - 1
        # They are at least c steps apart, so that there is room for so many:
        n_groups = -(-(len(time) - rate + 1) // rate)
        last = is_last.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :n_groups]
        exists = is_last.gather(1, last)
        members = (last[..., None] + torch.arange(1 - rate, 1, device=device)).clamp(min=0)
        n_new = -(-n_steps // rate)  # and for those that end before step T - 1 - n_m: so many

        # Times of compressed memories' last steps, first those from before the block.
        before, new = ages[:, :n_cm], last[:, :n_new]
        born = torch.cat(
            [
                torch.where(before == FREE, -math.inf, (-1 - before).to(dtype)),
                torch.where(exists[:, :n_new], (new - n_full).to(dtype), -math.inf),
            ],
            dim=1,
        )
        distance = now[:, None] - born[:, None]  # (B, T, n_cm + new)
        compressed = (distance > self.memory_size) & (distance <= self.longest_distance)
        compressed &= born[:, None] >= began[..., None]
        # A step can be read until its group's last step is out of the window.
        group_ends = time + (rate - 1 - own_index % rate)  # (B, R + T)
        full = (group_ends[:, None] >= (now - self.memory_size)[:, None]) & (time <= now[:, None])
        full &= time >= began[..., None]
        readable = torch.cat([compressed, full], dim=2)
        bias = torch.zeros_like(readable, dtype=dtype).masked_fill_(~readable, -math.inf)

        since = own_index[:, n_full:] - n_full
        rows, steps = ((since >= 0) & (since % rate == 0)).nonzero(as_tuple=True)

        order = (index[:, None] - torch.arange(n_full - 1, -1, -1, device=device)) % n_full + n_cm
        columns = torch.arange(n_cm, device=device).expand(len(index), -1)
        in_order = torch.cat([columns, order], dim=1)

        after = self.ages(own_index[:, -1])
        born_after = n_steps - 1 - after[:, :n_cm]  # < T - n_m
        its_number = number.gather(1, (born_after + n_full).clamp(0, len(time) - 1))
        kept = torch.where(born_after >= -self.memory_size - 1, n_cm + its_number, columns)
        kept_full = n_cm + n_new + len(time) - 1 - after[:, n_cm:]
        return Block(
            birth=torch.cat([born, time.to(dtype).expand(len(index), -1)], dim=1),
            bias=bias,
            n_readable=readable.sum(2) - 1,  # the step itself is no memory
            members=members,
            n_new=n_new,
            compressing=(rows, steps),
            compressed_group=number[rows, steps + rate - 1],
            in_order=in_order,
            in_use=ages.gather(1, in_order) != FREE,
            to_keep=torch.cat([kept, kept_full], dim=1),
            to_use=after != FREE,
            last_index=own_index[:, -1],
        )
