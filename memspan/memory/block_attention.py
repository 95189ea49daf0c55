"""Attention of a block of queries, without the work that the mask would throw away.

Rows of a block differ in how much they have cached, and an episode's start cuts a row in two. Dense
attention computes every score and then masks most of them. Here a row's queries are cut into pieces, and
a piece computes scores only for the columns that one of its queries may read:

    row 0: 3 cached, no start            row 1: 1 cached, an episode starts at t=4

    columns  cached | block                cached | block
    t=0..3   . x x x | x x x x . . . .     . . . x | x x x x . . . .
    t=4..7   . x x x | x x x x x x x x     . . . . | . . . . x x x x

What is still unreadable inside a piece (the future, other episodes, expired memories) is masked as usual.
Keys are packed: all that row 0 has cached, its block, all that row 1 has cached, its block, ... Pieces are
small enough for their scores to stay in the cache of a CPU core.

E is the width of queries and keys, V that of values: D/H and more, where they tell how long ago they were.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Piece(NamedTuple):
    """Queries [first, last) of a row, which read columns [left, right)."""

    row: int
    first: int
    last: int
    left: int
    right: int
    packed_left: int
    """Where column `left` of the row stands among the packed keys."""


def cut_block(
    episode_starts: Tensor, n_cached: list[int], n_columns: int, longest: int = 64, per_step: int = 1
) -> list[Piece]:
    """Pieces of a block, row after row.

    Args:
        episode_starts: (B, T) bool.
        n_cached: B numbers: how many of a row's cached columns are in use, the last before the block.
        n_columns: K; the last T columns are the block, or `per_step` times as many.
        longest: queries of a piece at most.
        per_step: columns that a step of the block adds, each for itself and for later steps to read.
    """
    n_steps = episode_starts.shape[1]
    block = n_columns - per_step * n_steps
    pieces = []
    packed = 0  # where the row's first used column stands
    for row, (starts, cached) in enumerate(zip(episode_starts.tolist(), n_cached, strict=True)):
        offset = packed - (block - cached)
        first, left = 0, block if starts[0] else block - cached
        newest = 0  # start of the episode of step t, as far as it lies in the block
        for t in range(1, n_steps):
            if starts[t]:
                newest = t
            # Best is a cut where an episode starts, unless the piece would be very short.
            if t - first == longest or (starts[t] and t - first >= longest // 2):
                pieces.append(Piece(row, first, t, left, block + per_step * t, left + offset))
                first = t
                if newest:
                    left = block + per_step * newest
        pieces.append(Piece(row, first, n_steps, left, n_columns, left + offset))
        packed += cached + per_step * n_steps
    return pieces


def dense_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k' + bias) v; what `piece_attention` computes, in full.

    Args:
        q: (B, H, T, E), already scaled.
        k: (B, H, K, E).
        v: (B, H, K, V).
        bias: (B, T, K), or (B, H, T, K) where heads differ; -inf where nothing may be read.

    Returns:
        (B, H, T, V).
    """
    if bias.ndim == 3:
        bias = bias.unsqueeze(1)
    return torch.softmax(q @ k.transpose(-1, -2) + bias, dim=-1) @ v


class _PieceAttention(torch.autograd.Function):
    # Heads come second, as projections leave them; a matrix product takes the transposed views as they are.

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, pieces: list[Piece]) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        keys, values = k.transpose(0, 1), v.transpose(0, 1)  # (H, packed keys, .)
        lengths = [piece.last - piece.first for piece in pieces]
        weights = []
        for (row, first, last, left, right, at), queries, answer in zip(
            pieces, *(torch.split(each.transpose(0, 1), lengths, 1) for each in (q, out)), strict=True
        ):
            scores = torch.bmm(queries, keys.narrow(1, at, right - left).transpose(1, 2))
            scores += bias[row, ..., first:last, left:right]
            weight = torch.softmax(scores, dim=-1)
            answer.copy_(torch.bmm(weight, values.narrow(1, at, right - left)))
            weights.append(weight)
        ctx.save_for_backward(q, k, v)
        # Neither inputs nor outputs, so plain attributes; they go with the graph.
        ctx.weights, ctx.pieces, ctx.bias_shape = weights, pieces, bias.shape
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        pieces: list[Piece] = ctx.pieces
        keys, values = k.transpose(0, 1), v.transpose(0, 1)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        grad_keys, grad_values = grad_k.transpose(0, 1), grad_v.transpose(0, 1)
        grad_bias = q.new_zeros(ctx.bias_shape) if ctx.needs_input_grad[3] else None
        lengths = [piece.last - piece.first for piece in pieces]
        for (row, first, last, left, right, at), weight, queries, grad_queries, grad in zip(
            pieces,
            ctx.weights,
            *(torch.split(each.transpose(0, 1), lengths, 1) for each in (q, grad_q, grads[0].contiguous())),
            strict=True,
        ):
            n = right - left
            grad_values.narrow(1, at, n).add_(torch.bmm(weight.transpose(1, 2), grad))
            grad_weight = torch.bmm(grad, values.narrow(1, at, n).transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weight, weight, -1, weight.dtype)
            grad_queries.copy_(torch.bmm(grad_scores, keys.narrow(1, at, n)))
            grad_keys.narrow(1, at, n).add_(torch.bmm(grad_scores.transpose(1, 2), queries))
            if grad_bias is not None:
                part = grad_bias[row, ..., first:last, left:right]  # of all heads, or of each
                part.copy_(grad_scores.sum_to_size(part.shape))
        return grad_q, grad_k, grad_v, grad_bias, None


def piece_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, pieces: list[Piece]) -> Tensor:
    """`dense_attention` without the columns that no query of a piece may read.

    Args:
        q: (B * T, H, E), rows one after the other.
        k: (packed keys, H, E).
        v: (packed keys, H, V).
        bias: (B, T, K), or (B, H, T, K) where heads differ.
        pieces: of the block, see `cut_block`.

    Returns:
        (B * T, H, V).
    """
    out: Tensor = _PieceAttention.apply(q, k, v, bias, pieces)  # type: ignore[no-untyped-call]
    return out
