"""A block as packed sequences: how memories that go step by step run through it without padding.

An episode that starts inside a block must not see the one before. Instead of unrolling in Python, a block
is cut at every start and the pieces run as one packed sequence, longest first:

    row 0   a a a b b            a0 a1 a2          packed by step: a0 c0 b0 d0 | a1 c1 b1 | a2 c2 | c3
    row 1   c c c c d     ->     c0 c1 c2 c3
                                 b0 b1
                                 d0

so no step is padded and none is run twice. Only the pieces that begin a row get the carried state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the steps of a block (T, B) stand in packed order; P pieces, T * B packed steps."""

    position: Tensor
    """(T * B,) long: flat position, row * T + step, of each packed step."""
    unpack: Tensor
    """(B, T) long: where each step of a row ended up in packed order."""
    batch_sizes: list[int]
    """Pieces still running at each step; never grows."""
    row: Tensor
    """(P,) long: the row that a piece is cut from."""
    carried: Tensor
    """(P, 1) bool: whether the piece goes on with what was remembered before the block."""

    @classmethod
    def of(cls, episode_starts: Tensor) -> Packing:
        """Cuts a block at its starts, (T, B) bool."""
        n_steps, n_rows = episode_starts.shape
        # Pieces, numbered along the rows: piece k starts at flat position `start[k]`.
        first = episode_starts.T.clone()
        first[:, 0] = True
        start = first.flatten().nonzero().squeeze(-1)
        length = torch.diff(start, append=start.new_full((1,), n_rows * n_steps))
        length, order = length.sort(descending=True, stable=True)
        start = start[order]
        step = torch.arange(int(length[0]), device=start.device)[:, None]
        running = step < length  # (longest, P)
        position = (start + step)[running]
        row, begins_row = start // n_steps, start % n_steps == 0
        return cls(
            position,
            position.argsort().view(n_rows, n_steps),
            running.sum(1).tolist(),
            row,
            (begins_row & ~episode_starts[0, row])[:, None],
        )

    def packed(self, x: Tensor) -> Tensor:
        """(T, B, D) -> (T * B, D), in packed order."""
        return x.transpose(0, 1).reshape(-1, x.shape[-1])[self.position]

    def unpacked(self, packed: Tensor) -> Tensor:
        """(T * B, D), in packed order -> (T, B, D)."""
        return packed[self.unpack].transpose(0, 1)

    def first(self, carried: Tensor) -> Tensor:
        """What each piece starts with, (P, ...): what its row carries, of (B, ...), or zeros."""
        carries = self.carried.view(-1, *[1] * (carried.ndim - 1))
        return torch.where(carries, carried[self.row], 0.0)

    def last(self, packed: Tensor) -> Tensor:
        """What each row ends with: (T * B, ...), in packed order -> (B, ...)."""
        return packed[self.unpack[:, -1]]


def steps_before(first: Tensor, packed: Tensor, sizes: list[int]) -> Tensor:
    """What each step read of the step before, in packed order: of sequences that are still running."""
    before = (step[:n] for step, n in zip(torch.split(packed, sizes), sizes[1:], strict=False))
    return torch.cat([first, *before])
