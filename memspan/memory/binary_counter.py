"""A tree of summaries that grows like a binary counter, in which a 1 is a summary.

After n things have been counted there is one summary for each 1 of n in binary. That of level l sums up 2^l
things, and the higher its level, the older they are:

    n = 13 = 1101b     things    0 1 2 3 4 5 6 7 | 8 9 10 11 | 12
                       level     3               | 2         | 0

To count one more is to carry. A new summary of level 0 arrives, and as long as there is one of its level,
the two merge into one of the next; so of one more, exactly one summary comes out:

    n        1   2   3   4   5   6   7   8   9
    level    0   1   0   2   0   1   0   3   0     how often 2 divides n

A summary has the number n at which it came out, its arrival; its level follows. It lasts for as many counts
as it sums up things, until those that come after it are as many and the two merge. Of the highest level no
two merge: the new one replaces the old one, whose things are forgotten, after as many counts again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Merge = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""(older, newer, their level) -> the summary of both, and what it lacks: (n, D), (n, D) -> (n, D), (n,)."""


def size(arrival: Tensor, n_levels: int) -> Tensor:
    """How many things a summary sums up, and how many counts it lasts; `arrival` from 1."""
    return (arrival & -arrival).clamp(max=2 ** (n_levels - 1))


def arrivals(count: Tensor, n_levels: int) -> Tensor:
    """(...,) counts -> (..., levels) arrival of the summary that there is of each level; 0: there is none."""
    level = torch.arange(n_levels, device=count.device)
    many = count.clamp(min=0).unsqueeze(-1) >> level
    there = (many % 2 == 1) | (level == n_levels - 1)
    return torch.where(there, many << level, 0)


class Carry(NamedTuple):
    """The merges of one level in a block, of T counts in each of B rows."""

    row: Tensor
    """(n,) where the newer one is, and their summary will be:"""
    step: Tensor
    """(n,) among the T."""
    older: Tensor
    """(n,) where the older one is: among the levels from before, and the T after them."""


def carries(count: Tensor, n_levels: int) -> list[Carry]:
    """All merges of a block, one level after the other.

                           t=0      t=1      t=2      t=3
        count              6        7        8        9
        things             5        6        7        8       (those before n are 0..n-1)
        level 0 merges     4 5               6 7              4 : was held, as level 0
        level 1 merges                       4 5 6 7          4 5 : came out at t=0
        level 2 merges                       0 .. 7           0 1 2 3 : was held, as level 2
        come out           4 5      6        0 .. 7   8

    Args:
        count: (B, T) n after each; where it is below 1, nothing is counted. It may start anew in a row.
        n_levels: how many levels there are.
    """
    found: list[Carry] = []
    for level in range(n_levels - 1):
        row, step = ((count > 0) & (count % 2 ** (level + 1) == 0)).nonzero(as_tuple=True)
        if not len(row):
            break
        # What came out 2^level counts ago is of this level, and has waited since.
        before = step - 2**level
        found.append(Carry(row, step, torch.where(before < 0, level, n_levels + before)))
    return found


def carry(held: Tensor, things: Tensor, merges: list[Carry], merge: Merge) -> tuple[Tensor, Tensor]:
    """Counts T things of each row.

    Args:
        held: (B, levels, D) summaries from before; where there is none, any.
        things: (B, T, D) what is counted.
        merges: of the block, see `carries`.
        merge: see `Merge`.

    Returns:
        (B, T, D) the summary that came out each time, and (B, T) the sum of what the merges' summaries lack.
    """
    n_levels = held.shape[1]
    known = torch.cat([held, things], dim=1)
    lacking = things.new_zeros(things.shape[:2])
    for level, (row, step, older) in enumerate(merges):
        newer = n_levels + step
        summary, lacks = merge(known[row, older], known[row, newer], level)
        known[row, newer] = summary
        lacking[row, step] += lacks
    return known[:, n_levels:], lacking
