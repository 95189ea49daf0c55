"""The recurrence of a matrix per head: step by step, or a block at once, chunk by chunk.

Each head keeps a matrix S (P, E) from P key features to E value features. A step may let it decay, then
writes a value v under a key k, then reads with a query q:

    S <- a S                      a in (0, 1]: decay; 0 where an episode starts
    u  = v                        "sum": what is under k stays, v is added
    u  = b (v - S'k)              "delta": what is under k moves towards v, by a share b
    S <- S + k u'
    y  = S'q

In a chunk of C steps, with S the matrix before it and d_ij the product of a_(j+1) .. a_i:

    y_i = d_i S'q_i + sum over j <= i of d_ij (q_i.k_j) u_j

    d_ij where an episode starts at i=2:    1 .  .  .      d_i: how much of S is left     a_0
                                           a_1 1  .  .                                 a_0 a_1
                                            .  .  1  .                                      0
                                            .  .  a_3 1                                     0

For "delta" every u_i depends on those before it, by a triangular system of equations:

    u_i + b_i sum over j < i of d_ij (k_i.k_j) u_j = b_i (v_i - d_i S'k_i)

Solved for b v and for b d k, it gives U = V - W S for any S, so that all chunks are solved together and only
S goes from chunk to chunk. This is the WY form of Yang et al., Parallelizing Linear Transformers with the
Delta Rule over Sequence Length, 2024, arXiv 2406.06484; with decay, of Yang et al., Gated Delta Networks,
2024, arXiv 2412.06464.

Letters: C steps of a chunk, P key features, E value features of a head.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 32
"""C at most: work within a chunk grows with C, work between chunks with T / C."""


class ScanInputs(NamedTuple):
    """What steps do to the matrices; leading dimensions `(B, T)` for a block, `(B,)` for a step."""

    query: Tensor
    """(.., H, P)."""
    key: Tensor
    """(.., H, P)."""
    value: Tensor
    """(.., H, E)."""
    rate: Tensor | None = None
    """(.., H) b of "delta"; None: "sum"."""
    log_decay: Tensor | None = None
    """(.., H) log a, at most 0; None: no decay."""


def scan_step(inputs: ScanInputs, start: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """One step.

    Args:
        inputs: of the step.
        start: (B,) bool, where an episode starts.
        matrix: (B, H, P, E) before the step.

    Returns:
        What was read (B, H, E), and the matrix after the step (B, H, P, E).
    """
    query, key, value, rate, log_decay = inputs
    matrix = torch.where(start[:, None, None, None], 0.0, matrix)
    if log_decay is not None:
        matrix = matrix * log_decay.exp()[..., None, None]
    if rate is not None:
        value = rate.unsqueeze(-1) * (value - (key.unsqueeze(-2) @ matrix).squeeze(-2))
    matrix = matrix + key.unsqueeze(-1) * value.unsqueeze(-2)
    return (query.unsqueeze(-2) @ matrix).squeeze(-2), matrix


def chunked_scan(
    inputs: ScanInputs, starts: Tensor, matrix: Tensor, longest: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """A block of T steps; the same numbers as T times `scan_step`.

    Args:
        inputs: of all steps.
        starts: (B, T) bool, where episodes start.
        matrix: (B, H, P, E) before the block.
        longest: steps of a chunk at most.

    Returns:
        What was read (B, T, H, E), and the matrix after the block (B, H, P, E).
    """
    n_steps = starts.shape[1]
    n_chunks = math.ceil(n_steps / longest)
    length = math.ceil(n_steps / n_chunks)
    # (B, H, chunks, C, .); steps that fill up the last chunk write nothing and let nothing decay.
    query, key, value = (_cut(each, n_chunks, length) for each in inputs[:3])
    episode = _cut(starts[:, :, None, None].long(), n_chunks, length).squeeze(-1).cumsum(-1)
    unbroken = episode == 0  # the chunk's first episode, which began before it
    same = (episode.unsqueeze(-1) == episode.unsqueeze(-2)).tril()
    if inputs.log_decay is None:
        between, since = same.to(key.dtype), unbroken.to(key.dtype)
    else:
        log_decay = _cut(inputs.log_decay.unsqueeze(-1), n_chunks, length)  # (B, H, chunks, C, 1)
        # Sums of their own for each j and not differences of one sum: those would lose digits, and leave a
        # rest of gradient to steps before an episode's start. None is above 0, so that exp cannot overflow.
        total = log_decay.where(same.tril(-1), 0.0).cumsum(-2)
        between = total.exp().where(same, 0.0)
        total = log_decay.squeeze(-1).where(unbroken, 0.0).cumsum(-1)
        since = total.exp().where(unbroken, 0.0)
    scores = between * (query @ key.mT)  # (B, H, chunks, C, C)
    lasting = between[..., -1, :].unsqueeze(-1) * key  # what is left of each key at the end of the chunk
    reading = since.unsqueeze(-1) * query  # reads the matrix before the chunk
    erasing = None
    if inputs.rate is not None:
        rate = _cut(inputs.rate.unsqueeze(-1), n_chunks, length)
        both = rate * torch.cat([value, since.unsqueeze(-1) * key], dim=-1)
        # Diagonal and upper triangle are not looked at.
        solved = torch.linalg.solve_triangular(
            rate * between * (key @ key.mT), both, upper=False, unitriangular=True
        )
        value, erasing = solved.split([value.shape[-1], key.shape[-1]], dim=-1)
        reading = reading - scores @ erasing
    added = lasting.mT @ value  # (B, H, chunks, P, E)
    # Leftovers of other episodes would pass on a NaN even at a weight of 0.
    matrix = torch.where(starts[:, 0, None, None, None], 0.0, matrix)
    before = []
    by_chunk = (each.unbind(2) for each in (added, lasting, since[..., -1:, None], unbroken[..., -1:, None]))
    erasing_by_chunk = [None] * n_chunks if erasing is None else erasing.unbind(2)
    for add, last, share, keep, erase in zip(*by_chunk, erasing_by_chunk, strict=True):
        before.append(matrix)
        left = share * matrix
        if erase is not None:
            left = left - last.mT @ (erase @ matrix)
        matrix = add + torch.where(keep, left, 0.0)
    carried = torch.where(unbroken.unsqueeze(-1), reading @ torch.stack(before, dim=2), 0.0)
    read = (scores @ value + carried).permute(0, 2, 3, 1, 4).flatten(1, 2)  # (B, chunks * C, H, E)
    return read[:, :n_steps], matrix


def _cut(x: Tensor, n_chunks: int, length: int) -> Tensor:
    """(B, T, H, .) -> (B, H, chunks, C, .), filled up with zeros."""
    missing = n_chunks * length - x.shape[1]
    if missing:
        x = F.pad(x, (0, 0, 0, 0, 0, missing))
    return x.reshape(len(x), n_chunks, length, *x.shape[2:]).permute(0, 3, 1, 2, 4)
