"""Attention of a block of queries, without the work that the mask would throw away.

Rows of a block differ in how much they have cached, and an episode's start cuts a row in two. Dense
attention computes every score and then masks most of them. Here a row's queries are cut into pieces, and
a piece computes scores only for the columns that one of its queries may read:

    row 0: 3 cached, no start            row 1: 1 cached, an episode starts at t=4

    columns  cached | block                cached | block
    t=0..3   . x x x | x x x x . . . .     . . . x | x x x x . . . .
    t=4..7   . x x x | x x x x x x x x     . . . . | . . . . x x x x

What is still unreadable inside a piece (the future, other episodes, expired memories) is masked as usual.
Pieces are small enough for scores to stay in the cache of a CPU core. Other devices get dense attention.
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


def cut_block(episode_starts: Tensor, n_cached: Tensor, n_columns: int, longest: int = 64) -> list[Piece]:
    """Pieces of a block.

    Args:
        episode_starts: (B, T) bool.
        n_cached: (B,) how many of a row's cached columns are in use; they are the last ones before the block.
        n_columns: K; the last T columns are the block.
        longest: queries of a piece at most.
    """
    n_steps = episode_starts.shape[1]
    block = n_columns - n_steps
    shortest = longest // 2
    pieces = []
    for row, (starts, cached) in enumerate(zip(episode_starts.tolist(), n_cached.tolist(), strict=True)):
        left, first = block - cached, 0
        newest = 0  # last start seen
        for t in range(n_steps):
            if starts[t]:
                newest = t
            # Cut before t, where the piece is long enough: best where an episode starts.
            if t > first and ((starts[t] and t - first >= shortest) or t - first == longest):
                pieces.append(Piece(row, first, t, left, block + t))
                first = t
            if t == first and (starts[t] or newest > 0):
                left = block + newest
        pieces.append(Piece(row, first, n_steps, left, n_columns))
    return pieces


def dense_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k' + bias) v; the reference for `attention`.

    Args:
        q: (B, H, T, E), already scaled.
        k: (B, H, K, E).
        v: (B, H, K, D/H).
        bias: (B, T, K), -inf where nothing may be read.

    Returns:
        (B, H, T, D/H).
    """
    return torch.softmax(q @ k.transpose(-1, -2) + bias.unsqueeze(1), dim=-1) @ v


class _PieceAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, pieces: list[Piece]) -> Tensor:
        out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=v.dtype)
        weights = []
        for row, first, last, left, right in pieces:
            scores = torch.bmm(q[row, :, first:last], k[row, :, left:right].transpose(1, 2))
            scores += bias[row, first:last, left:right]
            weight = torch.softmax(scores, dim=-1)
            out[row, :, first:last] = torch.bmm(weight, v[row, :, left:right])
            weights.append(weight)
        ctx.save_for_backward(q, k, v)
        # Not inputs or outputs: plain attributes, freed with the graph.
        ctx.weights, ctx.pieces, ctx.bias_shape = weights, pieces, bias.shape
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        grad_out = grads[0].contiguous()
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        grad_bias = torch.zeros(ctx.bias_shape, dtype=q.dtype) if ctx.needs_input_grad[3] else None
        for (row, first, last, left, right), weight in zip(ctx.pieces, ctx.weights, strict=True):
            grad = grad_out[row, :, first:last]
            grad_v[row, :, left:right] += torch.bmm(weight.transpose(1, 2), grad)
            grad_weight = torch.bmm(grad, v[row, :, left:right].transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weight, weight, -1, weight.dtype)
            grad_q[row, :, first:last] = torch.bmm(grad_scores, k[row, :, left:right])
            grad_k[row, :, left:right] += torch.bmm(grad_scores.transpose(1, 2), q[row, :, first:last])
            if grad_bias is not None:
                grad_bias[row, first:last, left:right] = grad_scores.sum(0)
        return grad_q, grad_k, grad_v, grad_bias, None


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, pieces: list[Piece] | None) -> Tensor:
    """`dense_attention`, computed piece by piece if there are pieces."""
    if pieces is None:
        return dense_attention(q, k, v, bias)
    out: Tensor = _PieceAttention.apply(  # type: ignore[no-untyped-call]
        q.contiguous(), k.contiguous(), v.contiguous(), bias, pieces
    )
    return out
