"""When a memory that changes every few steps of an episode changes in a block.

What a step reads must not depend on where a block begins, so updates are counted from the episode's start:
one after step M, M + C, M + 2 C, ... Rows have theirs at different steps of a block. Cut there, all rows'
first segments can be run at once, then all their second ones, ...
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


class Segments:
    """A block cut where signals change: segment k of a row reads the signal after its k-th update.

    Of a row with M = 3 and C = 2 that carries a signal, with an episode that starts in the block:

        step of the episode     6 7 8 9 0 1 2 3 4 5 6
        update at its end         x   x       x   x
        segment                 0 0 1 1 2 2 2 2 3 3 4
        has a signal            x x x x         x x x

    Args:
        steps: (B,) of the episode before the block.
        starts: (B, T) where episodes start.
        memory_size: M.
        chunk: C.
    """

    def __init__(self, steps: Tensor, starts: Tensor, memory_size: int, chunk: int) -> None:
        n_steps = starts.shape[1]
        time = torch.arange(n_steps, device=starts.device).expand_as(starts)
        step = time - torch.where(starts, time, -steps[:, None]).cummax(1).values  # of the episode
        update = (step >= memory_size) & ((step - memory_size) % chunk == 0)
        segment = update.cumsum(1) - update.long()
        self.steps = step[:, -1] + 1
        """(B,) steps of the episode after the block."""
        self.readable = step > memory_size
        """(B, T): there is a signal."""
        self.carried = (steps > memory_size) & ~starts[:, 0]
        """(B,): the signal from before the block is of use."""
        self.left = self.steps > memory_size
        """(B,): the signal after the block is of use."""
        self.n_updates = int(update.sum(1).max())
        self.n_read = int(segment.masked_fill(~self.readable, -1).max()) + 1
        """Segments in which any row reads a signal."""
        self.update_time = torch.where(update, time, n_steps).sort(1).values[:, : self.n_updates]
        """(B, updates): at whose end; T where a row has fewer."""
        self.first_update = step.gather(1, self.update_time.clamp(max=n_steps - 1)) == memory_size
        """(B, updates): it is the first of the episode."""
        # A signal is read for C steps at most, the first ones of its segment.
        longest = min(chunk, n_steps)
        begin = F.pad(self.update_time + 1, (1, 0))  # (B, segments)
        query = begin[..., None] + torch.arange(longest, device=starts.device)
        self.query = query.clamp(max=n_steps - 1)
        """(B, segments, longest): time of each query."""
        same = segment.gather(1, self.query.flatten(1)).view_as(query) == torch.arange(
            self.n_updates + 1, device=starts.device
        ).unsqueeze(-1)
        readable = self.readable.gather(1, self.query.flatten(1)).view_as(query)
        self.valid = same & readable & (query < n_steps)
        """(B, segments, longest): it is one."""
        place = segment * longest + time - begin.gather(1, segment)
        self.place = torch.where(self.readable, place, 0)
        """(B, T): where a step's answer stands when those of all segments stand in a row."""
