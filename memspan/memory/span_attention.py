"""Attention of a block over memories with spans: `softmax(q k' + log mask) v`, without what has expired.

    mask = clip(1 + (span - distance) / R, 0, 1)

See `memspan.memory.span_kernel` for what is packed how, and for the letters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

COST_OF_AN_ENTRY = 4
"""What an entry of a list costs, in entries of a matrix product; measured on one core with AVX2."""


@dataclass(frozen=True)
class Fading:
    """What may be read where each key has a span, the same for all heads."""

    span: Tensor
    """(packed keys,) steps for which it is read in full; has a gradient inside its ramp."""
    ramp: int
    """R; with 1, a whole span is a hard window."""
    losses: dict[str, Tensor]
    """(packed keys,) each: what a key costs the step that makes it."""


def pack_rows(cached: Tensor, block: Tensor, used: list[int]) -> Tensor:
    """Keys row by row, (packed keys, D): the last `used` of (B, S, D) cached, then (B, T, D) of the block."""
    rows = zip(cached.unbind(), block.unbind(), used, strict=True)
    return torch.cat([part for slots, row, n in rows for part in (slots[len(slots) - n :], row)])


class ReadableKeys:
    """Which packed keys each query of a block may read; on a CPU.

    Args:
        starts: (B, T) bool, where episodes start.
        age: (B, S) long, of cached slots as the last step before the block left them; a row's used ones are
            the last.
        used: B numbers of slots in use.
        fading: of the packed keys.
    """

    def __init__(self, starts: Tensor, age: Tensor, used: list[int], fading: Fading) -> None:
        from memspan.memory.span_kernel import list_readable

        self.n_steps = starts.shape[1]
        times = torch.arange(self.n_steps).expand(len(starts), -1)
        self.birth = pack_rows(-1 - age, times, used)
        """(packed keys,) long: when each was made; the block's first step is 0."""
        self.ramp = fading.ramp
        arrays = (starts.contiguous().numpy(), np.array(used, np.int64), self.birth.numpy())
        spans = fading.span.detach().contiguous().numpy()
        self.firsts = np.empty(starts.numel() + 1, np.int64)
        list_readable(*arrays, spans, self.ramp, self.firsts, np.empty(0, np.int32))
        # What pieces of a block compute, about: all that is cached, and half of the block.
        dense = len(self.birth) * self.n_steps - starts.numel() * self.n_steps // 2
        self.are_few = self.firsts[-1] * COST_OF_AN_ENTRY < dense
        """Whether what can be read is few enough for a list to be faster than a mask."""
        self.keys = np.empty(self.firsts[-1] if self.are_few else 0, np.int32)
        """(entries,) the packed key of each entry."""
        if self.are_few:
            list_readable(*arrays, spans, self.ramp, self.firsts, self.keys)
        ends = np.cumsum(np.array(used, np.int64) + self.n_steps)
        self._own = torch.from_numpy(ends)[:, None] + torch.arange(-self.n_steps, 0)

    @property
    def counts(self) -> Tensor:
        """(B, T) long: how many keys each query may read, its own step's included."""
        return torch.from_numpy(np.diff(self.firsts)).view(-1, self.n_steps)

    def made_in_block(self, values: Tensor) -> Tensor:
        """(B, T): of values of the packed keys, (packed keys,), those of the block's."""
        return values[self._own]


class _SpanAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, span: Tensor, readable: ReadableKeys) -> Tensor:
        from memspan.memory.span_kernel import attend

        q, k, v, span = (each.detach().contiguous() for each in (q, k, v, span))
        weights = q.new_empty(q.shape[1], len(readable.keys))
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        arrays = *_arrays(q, k, v, span, readable), weights.numpy(), out.numpy()
        attend(*arrays)
        ctx.save_for_backward(q, k, v, span, weights)
        ctx.readable = readable
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from memspan.memory.span_kernel import attend_backward

        q, k, v, span, weights = ctx.saved_tensors
        written = [torch.zeros_like(each) for each in (q, k, v, span)]
        numbers = weights, grads[0].contiguous(), *written
        arrays = *_arrays(q, k, v, span, ctx.readable), *(each.numpy() for each in numbers)
        attend_backward(*arrays)
        return *written, None


def _arrays(q: Tensor, k: Tensor, v: Tensor, span: Tensor, readable: ReadableKeys) -> tuple[Any, ...]:
    arrays = (each.numpy() for each in (q, k, v))
    return (
        *arrays,
        readable.birth.numpy(),
        span.numpy(),
        readable.ramp,
        readable.n_steps,
        readable.firsts,
        readable.keys,
    )


def span_attention(q: Tensor, k: Tensor, v: Tensor, span: Tensor, readable: ReadableKeys) -> Tensor:
    """What each query reads.

    Args:
        q: (B * T, H, E), rows one after the other, already scaled.
        k: (packed keys, H, E).
        v: (packed keys, H, V).
        span: (packed keys,) of each key; has a gradient inside its ramp.
        readable: made with these spans.

    Returns:
        (B * T, H, V).
    """
    out: Tensor = _SpanAttention.apply(q, k, v, span, readable)  # type: ignore[no-untyped-call]
    return out
