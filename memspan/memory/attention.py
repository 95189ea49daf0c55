"""Attention over remembered slots: the layer that all Transformer memories share.

Positions enter as in Transformer-XL: a score is content plus position, `q.k + p.r(t - j)`, with `r` the
sines and cosines of the distance. Both have two forms here that give the same numbers:

- a block (`attend_block`) turns the position queries by their own time, so that `p.r(t - j)` becomes a
  dot product with a fixed code of the key's time, and one matrix product gives the whole score;
- a step (`attend_step`) moves the key and value projections to the query's side, `q.(W h) = (W'q).h`, so
  that slots are read as they were stored and nothing per slot has to be projected or kept.

With `position_values` (Shaw et al., Self-attention with relative position representations, 2018,
arXiv 1803.02155) what is read tells its distance, too: `sum_j a_tj (v_j + W r(t - j))`. Without, the distance
is in the scores alone, and a layer can look for what was seen some time ago but not say how long ago it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.memory.block_attention import Piece, dense_attention, piece_attention
from memspan.memory.few_rows import Arrays, Weights, are_few, weights_of
from memspan.memory.span_attention import ReadableKeys, pack_rows, span_attention
from memspan.memory.step_attention import SlotQuery, on_cpu_without_graph, read_slots, read_slots_densely

LARGEST_TABLE = 2**14
"""Distances whose codes are kept as a table, 1 MiB of them, however few slots there are."""


class Residual(nn.Module):
    """How a layer takes in what a sub-layer answers: the sum, here; subclasses have other ways."""

    def forward(self, x: Tensor, *answers: Tensor) -> Tensor:
        """All of one shape; what a sub-layer answers is the sum of its `answers`."""
        return sum(answers, start=x)


def join(residual: Residual, x: Tensor, answer: Tensor) -> Tensor:
    """What `residual` makes of the two, without a call where that is the sum."""
    if type(residual) is Residual:
        return answer.add_(x)
    joined: Tensor = residual(x, answer)
    return joined


class FeedForward(nn.Module):
    """Pre-norm residual feed-forward layer."""

    def __init__(self, width: int, factor: int, residual: Callable[[], Residual] = Residual) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, factor * width)
        self.down = nn.Linear(factor * width, width)
        self.residual = residual()
        self._weights = weights_of(self, "norm", "up", "down")

    def forward(self, x: Tensor) -> Tensor:
        if are_few(x) and (weights := self._weights.arrays()):
            from memspan.memory.few_rows_kernel import feed_forward

            given = x.contiguous().numpy()
            answer = np.empty_like(given)
            arguments: list[Any] = [given, *weights, self.norm.eps, answer]
            feed_forward(*arguments)
            return join(self.residual, x, torch.from_numpy(answer))
        out: Tensor = self.residual(x, self.down(F.relu(self.up(self.norm(x)))))
        return out


class AttentionLayer(nn.Module):
    """Pre-norm attention over slots, followed by a feed-forward layer.

    Slots hold layer-normalised inputs without gain and offset: those can be absorbed by the projections
    that follow, so the norm of a slot never has to be computed twice.

    Args:
        width: D.
        n_heads: H; divides D.
        n_frequencies: sines and cosines per head that tell distances apart.
        horizon: distance that the slowest of them still resolves.
        ff_factor: hidden units of the feed-forward layer in multiples of D.
        copy_at_first: what is read is added as it was stored, until something else is learnt.
        position_values: what is read tells how long ago it was.
        residual: makes what joins the input with what is read, and that with the feed-forward layer's answer.
    """

    frequencies: Tensor

    def __init__(
        self,
        width: int,
        n_heads: int,
        n_frequencies: int,
        horizon: int,
        ff_factor: int,
        copy_at_first: bool = False,
        position_values: bool = False,
        residual: Callable[[], Residual] = Residual,
    ) -> None:
        super().__init__()
        if width % n_heads:
            raise ValueError(f"n_heads={n_heads}: must divide the width {width}")
        self.n_heads = n_heads
        self.head_width = width // n_heads
        self.n_frequencies = n_frequencies
        self.horizon = horizon
        self.query = nn.Linear(width, width)
        self.position_query = nn.Linear(width, n_heads * 2 * n_frequencies)
        # A bias of the keys would add the same number to all scores of a query: softmax drops it.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.residual = residual()
        self.feed_forward = FeedForward(width, ff_factor, residual)
        # Scores that differ enough at the start for one memory among hundreds to be found.
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        if copy_at_first:
            # out undoes value: what is read means to the layers above what it meant when it was new, and all
            # that has to be learnt is where to look.
            nn.init.orthogonal_(self.value.weight)
            with torch.no_grad():
                self.out.weight.copy_(self.value.weight.T)
        nn.init.normal_(self.position_query.weight, std=0.01)
        nn.init.zeros_(self.position_query.bias)
        self.position_value = None
        if position_values:
            self.position_value = nn.Linear(n_heads * 2 * n_frequencies, width, bias=False)
            nn.init.xavier_uniform_(self.position_value.weight)
        exponents = torch.arange(n_frequencies) / max(n_frequencies - 1, 1)
        self.register_buffer("frequencies", float(max(horizon, 2)) ** -exponents, persistent=False)
        self._codes: Tensor | None = None
        layers = {"query": 2, "position_query": 2, "key": 1, "value": 2, "out": 2}
        if position_values:
            layers["position_value"] = 1
        self._weights = Weights(
            self, *(f"{layer}.{name}" for layer, n in layers.items() for name in ("weight", "bias")[:n])
        )

    def normalise(self, x: Tensor) -> Tensor:
        """What a slot keeps of the layer's input."""
        return F.layer_norm(x, x.shape[-1:])

    def _angles(self, time: Tensor) -> tuple[Tensor, Tensor]:
        angle = time.unsqueeze(-1) * self.frequencies
        return angle.sin(), angle.cos()

    def _distance_codes(self, n: int) -> Tensor:
        """(>= n, 2F) what tells each distance from 0 on; kept, for it depends on no weight."""
        like, kept = self.frequencies, self._codes
        if kept is None or len(kept) < n or (kept.device, kept.dtype) != (like.device, like.dtype):
            distances = torch.arange(n, device=like.device, dtype=like.dtype)
            self._codes = kept = torch.cat(self._angles(distances), dim=-1)
        return kept

    def _queries(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Content queries (..., H, D/H) and position queries for sine and cosine (..., H, F)."""
        q = self.query(u).unflatten(-1, (self.n_heads, self.head_width))
        p = self.position_query(u).unflatten(-1, (self.n_heads, 2, self.n_frequencies))
        return q / math.sqrt(self.head_width), p[..., 0, :], p[..., 1, :]

    def attend_block(
        self,
        x: Tensor,
        u: Tensor,
        hidden: Tensor,
        birth: Tensor,
        bias: Tensor,
        pieces: list[Piece] | None,
        block: Tensor | None = None,
    ) -> Tensor:
        """All T queries at once.

        Args:
            x: (B, T, D) input of the layer.
            u: (B, T, D) `normalise(x)`.
            hidden: (B, S, D) cached slots; a row's used ones are the last.
            birth: (B, K) time of each key, slots before block; 0 is the block's first step, -inf: not used.
            bias: (B, T, K), or (B, H, T, K), added to the scores: -inf where a key must not be read.
            pieces: see `memspan.memory.block_attention`; None: dense attention.
            block: (B, K - S, D) what the block adds to the slots; None: `u`.

        Returns:
            (B, T, D) output of the layer.
        """
        block = u if block is None else block
        q, sin, cos = self._turned_queries(u)
        if pieces is None:
            context = torch.cat([hidden, block], dim=1)
            k, v = self._keys_and_values(context, birth.clamp(min=-self.horizon))  # (B, K, H, .)
            read = dense_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), bias)
            read = read.transpose(1, 2)  # (B, T, H, .)
        else:
            used = (birth > -math.inf)[:, : hidden.shape[1]].sum(1).tolist()
            packed = pack_rows(hidden, block, used)
            k, v = self._keys_and_values(packed, birth[birth > -math.inf])  # (packed keys, H, .)
            read = piece_attention(q.flatten(0, 1), k, v, bias, pieces).view(*q.shape[:3], -1)
        return self._answer(x, read, sin, cos)

    def attend_listed(
        self, x: Tensor, u: Tensor, packed: Tensor, span: Tensor, readable: ReadableKeys
    ) -> Tensor:
        """All T queries at once, where spans tell what they may read; on a CPU.

        Args:
            x: (B, T, D) input of the layer.
            u: (B, T, D) `normalise(x)`.
            packed: (packed keys, D), see `memspan.memory.span_attention.pack_rows`.
            span: (packed keys,).
            readable: what each query may read.

        Returns:
            (B, T, D) output of the layer.
        """
        q, sin, cos = self._turned_queries(u)
        k, v = self._keys_and_values(packed, readable.birth.to(u.dtype))
        read = span_attention(q.flatten(0, 1), k, v, span, readable)
        return self._answer(x, read.view(*q.shape[:3], -1), sin, cos)

    def _answer(self, x: Tensor, read: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
        """The layer's output: of input and what was read, (B, T, H, .), at times of this sine and cosine."""
        answers = [self.out(read[..., : self.head_width].flatten(2))]
        if self.position_value is not None:
            of_cos, of_sin = read[..., self.head_width :].chunk(2, dim=-1)  # of each key's time
            turned = torch.cat([sin * of_cos - cos * of_sin, cos * of_cos + sin * of_sin], dim=-1)
            answers.append(self.position_value(turned.flatten(2)))
        out: Tensor = self.feed_forward(self.residual(x, *answers))
        return out

    @torch.no_grad()
    def shares(self, u: Tensor, slots: Tensor, birth: Tensor, bias: Tensor) -> Tensor:
        """How much of its attention each query of a block gives to each slot, mean over heads.

        Args:
            u: (B, T, D) `normalise(x)`.
            slots: (B, K, D).
            birth: (B, K) time of each slot; 0 is the block's first step.
            bias: (B, T, K), or (B, H, T, K), added to the scores: -inf where a slot must not be read.

        Returns:
            (B, T, K), without gradient.
        """
        q, _, _ = self._turned_queries(u)
        k, _ = self._keys_and_values(slots, birth.clamp(min=-self.horizon))
        scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1) + (bias if bias.ndim == 4 else bias.unsqueeze(1))
        return torch.softmax(scores, dim=-1).mean(1)

    @torch.no_grad()
    def shares_of_last_step(self, slots: Tensor, age: Tensor, bias: Tensor) -> Tensor:
        """How much of its attention the step that was last gave to each slot, mean over heads.

        What it asked with is found in its own slot, that of age 0.

        Args:
            slots: (B, S, D), the step's own included.
            age: (B, S) long, -1 where a slot is free.
            bias: (B, S), or (B, H, S), added to the scores: -inf where a slot must not be read.

        Returns:
            (B, S), 0 in rows that no step was shown to.
        """
        own = age == 0
        u = slots.gather(1, own.to(torch.uint8).argmax(1)[:, None, None].expand(-1, 1, slots.shape[-1]))
        birth = -age.clamp(min=0).to(slots.dtype)
        shares = self.shares(u, slots, birth, bias.unsqueeze(-2)).squeeze(1)
        # Where nothing can be read, shares are no numbers: selected, not multiplied.
        return torch.where(own.any(1, keepdim=True), shares, 0.0)

    def _turned_queries(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, T, H, E), turned by their time, and that time's sine and cosine (T, 1, F)."""
        q, p_sin, p_cos = self._queries(u)  # (B, T, H, .)
        sin, cos = self._angles(torch.arange(u.shape[1], device=u.device, dtype=u.dtype))
        sin, cos = sin[:, None], cos[:, None]  # (T, 1, F)
        # sin(t - j) = sin t cos j - cos t sin j ;  cos(t - j) = cos t cos j + sin t sin j
        q = torch.cat([q, p_sin * sin + p_cos * cos, p_cos * sin - p_sin * cos], dim=-1)
        return q, sin, cos

    def _keys_and_values(self, context: Tensor, birth: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (..., H, E), with the code of their time, and values (..., H, D/H), with it or without."""
        k = self.key(context).unflatten(-1, (self.n_heads, self.head_width))
        v = self.value(context).unflatten(-1, (self.n_heads, self.head_width))
        sin, cos = self._angles(birth)
        code = torch.cat([cos, sin], dim=-1).unsqueeze(-2).expand(*k.shape[:-1], -1)
        keys = torch.cat([k, code], dim=-1)
        return keys, v if self.position_value is None else torch.cat([v, code], dim=-1)

    def attend_step(
        self, x: Tensor, u: Tensor, slots: Tensor, distance: Tensor, n_distances: int | None, bias: Tensor
    ) -> Tensor:
        """One query per row.

        Args:
            x: (B, D) input of the layer.
            u: (B, D) `normalise(x)`.
            slots: (B, S, >= D), the current step's included; of each, D numbers are read.
            distance: (B, S) long, -1 <= distance < n_distances; any where `bias` is -inf.
            n_distances: how many distances there are; where there are fewer than B S, one table serves all
                slots. None: too many.
            bias: (B, S), or (B, H, S), added to the scores: -inf where a slot must not be read.

        Returns:
            (B, D) output of the layer.
        """
        if n_distances is not None and n_distances <= max(distance.numel(), LARGEST_TABLE):
            code, place = self._distance_codes(n_distances), distance
        else:
            # What is far back but few slots hold costs what those few do.
            code = torch.cat(self._angles(distance.to(u.dtype)), dim=-1).flatten(0, 1)  # (B S, 2F)
            place = torch.arange(distance.numel(), device=u.device).view_as(distance)
        bias = bias if bias.ndim == 3 else bias.unsqueeze(1)
        if are_few(u) and (weights := self._weights.arrays()):
            answer = self._answer_few_rows(u, slots, place, code, bias, weights)
            few: Tensor = self.feed_forward(join(self.residual, x, answer))
            return few
        q, p_sin, p_cos = self._queries(u)  # (B, H, .)
        key_weight = self.key.weight.view(self.n_heads, self.head_width, -1)
        value_weight = self.value.weight.view(self.n_heads, self.head_width, -1)
        content = torch.bmm(q.transpose(0, 1), key_weight)  # (H, B, D)
        p = torch.cat([p_sin, p_cos], dim=-1)
        query = SlotQuery(content, p, place, code, bias)
        read = read_slots if on_cpu_without_graph(u) else read_slots_densely
        if slots.shape[-1] > u.shape[-1]:
            slots = slots[..., : u.shape[-1]]
        content, codes = read(query, slots, self.position_value is not None)
        value = torch.bmm(content, value_weight.transpose(1, 2)).transpose(0, 1).flatten(1)  # (B, D)
        value = value + self.value.bias
        answers = [self.out(value)]
        if self.position_value is not None:
            answers.append(self.position_value(codes.flatten(1)))
        out: Tensor = self.feed_forward(self.residual(x, *answers))
        return out

    def _answer_few_rows(
        self, u: Tensor, slots: Tensor, place: Tensor, code: Tensor, bias: Tensor, weights: Arrays
    ) -> Tensor:
        """(B, D) what is read for few rows u (B, D); the others as in `SlotQuery`."""
        from memspan.memory.few_rows_kernel import attend

        if self.position_value is None:
            weights = (*weights, u.new_empty(self.n_heads * self.head_width, 0).numpy())
        given: list[Any] = [each.contiguous().numpy() for each in (u, slots, place, code, bias)]
        out = np.empty_like(given[0])
        given += [*weights, self.n_heads, out]
        attend(*given)
        return torch.from_numpy(out)
