"""The memories' papers in plain loops: one query and one key at a time.

Nothing is ever dropped here, nothing is batched, and autograd makes the gradients. Fast paths are compared
with this, outputs and gradients.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from memspan.memory.adaptive_span import AdaptiveSpan
from memspan.memory.attention import AttentionLayer, Residual
from memspan.memory.expire_span import ExpireSpan
from memspan.memory.slots import SlotTransformer
from memspan.memory.transformer_xl import TransformerXL

Mask = Callable[[int, Tensor, int], Tensor]
"""(layer, what a slot holds, its distance) -> how much of it is left, from 0 to 1: a number, or (H,)."""

Join = Callable[[Residual, Tensor, Tensor], Tensor]
"""(the layer's module for it, input of a sub-layer, its answer) -> both together."""


def added(_: Residual, x: Tensor, y: Tensor) -> Tensor:
    return x + y


def window(memory: TransformerXL) -> Mask:
    """Transformer-XL: the last M steps."""
    return lambda layer, slot, distance: torch.tensor(float(distance <= memory.memory_size), dtype=slot.dtype)


def span_of(memory: ExpireSpan, layer: int, slot: Tensor) -> Tensor:
    """e = L sigmoid(w.z + sqrt(D) b'), or L sigmoid((w.z + sqrt(D) b') / R); z: the standardised memory."""
    predictor = memory.span_predictors[layer]
    z = (slot.detach() - predictor.mean) / (predictor.variance + predictor.eps).sqrt()
    logit = predictor.weight @ z + len(slot) ** 0.5 * predictor.bias
    if memory.logit_scale != 1:
        logit = logit / memory.ramp
    return memory.max_span / (1 + torch.exp(-logit))


def expiring(memory: ExpireSpan) -> Mask:
    """Expire-Span: m = clip(1 + (e - distance) / R, 0, 1)."""
    return lambda layer, slot, distance: (1 + (span_of(memory, layer, slot) - distance) / memory.ramp).clamp(
        0, 1
    )


def adaptive(memory: AdaptiveSpan) -> Mask:
    """Adaptive-Span: m = clip((R + z - distance) / R, 0, 1), with a z for each head."""
    fractions, ramp = memory.span_fractions, memory.ramp
    return lambda layer, slot, distance: torch.stack(
        [((ramp + memory.max_span * f.clamp(0, 1) - distance) / ramp).clamp(0, 1) for f in fractions[layer]]
    )


@dataclass
class Naive:
    """What the loops give for one row."""

    features: list[Tensor] = field(default_factory=list)
    """T times (D,)."""
    charged: list[Tensor] = field(default_factory=list)
    """T times the mean over layers of the penalty: the new memory's e, or e / R of all inside their ramp; the
    heads' mean z."""
    effective: list[float] = field(default_factory=list)
    """T times the mean over layers of the number of past memories with a mask above 0."""
    kept: list[list[tuple[int, Tensor]]] = field(default_factory=list)
    """Per layer: time and content of every memory of the last episode."""


def angles_of(layer: AttentionLayer, distance: int, longest: int) -> list[float]:
    n_frequencies = layer.n_frequencies
    return [distance * max(longest, 2) ** -(f / max(n_frequencies - 1, 1)) for f in range(n_frequencies)]


def score(layer: AttentionLayer, head: int, u: Tensor, slot: Tensor, distance: int, longest: int) -> Tensor:
    """Of one query and one key: content and position."""
    n_heads, n_frequencies = layer.n_heads, layer.n_frequencies
    d = u.shape[0] // n_heads
    q = layer.query(u).view(n_heads, d)[head]
    p = layer.position_query(u).view(n_heads, 2, n_frequencies)[head]
    key = layer.key(slot).view(n_heads, d)[head]
    out = (q * key).sum() / math.sqrt(d)
    for f, angle in enumerate(angles_of(layer, distance, longest)):
        out = out + p[0, f] * math.sin(angle) + p[1, f] * math.cos(angle)
    return out


def attend(layer: AttentionLayer, u: Tensor, read: list[tuple[int, Tensor, Tensor]], longest: int) -> Tensor:
    """One query: `read` holds distance, content and mask of each key."""
    n_heads = layer.n_heads
    d = u.shape[0] // n_heads
    heads, distances = [], []
    for head in range(n_heads):
        weights, values, codes = [], [], []
        for distance, slot, mask in read:
            angles = angles_of(layer, distance, longest)
            codes.append(u.new_tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles]))
            weights.append(mask.expand(n_heads)[head] * score(layer, head, u, slot, distance, longest).exp())
            values.append(layer.value(slot).view(n_heads, d)[head])
        total = torch.stack(weights).sum()
        heads.append(sum(w / total * v for w, v in zip(weights, values, strict=True)))
        distances.append(sum(w / total * code for w, code in zip(weights, codes, strict=True)))
    out = layer.out(torch.cat(heads))
    return out if layer.position_value is None else out + layer.position_value(torch.cat(distances))


def run_row(
    memory: SlotTransformer,
    mask: Mask,
    x: Tensor,
    episode_starts: Tensor,
    cached: list[list[tuple[int, Tensor]]] | None = None,
    join: Join = added,
) -> Naive:
    """One row (T, D) of a block, whose first step has time 0; cached memories have negative times."""
    out = Naive(kept=[list(slots) for slots in cached] if cached else [[] for _ in memory.layers])
    for t, now in enumerate(x):
        if episode_starts[t]:
            out.kept = [[] for _ in memory.layers]
        h, charged, effective = now, [], 0
        for n, layer in enumerate(memory.layers):
            u = F.layer_norm(h, h.shape)
            out.kept[n].append((t, u))
            read = [(t - i, slot, mask(n, slot, t - i)) for i, slot in out.kept[n]]
            read = [entry for entry in read if entry[2].max() > 0]
            effective += len(read) - 1
            if isinstance(memory, ExpireSpan):
                inside = [span_of(memory, n, slot) for _, slot, m in read if m < 1]
                if memory.penalty == "new":
                    charged.append(span_of(memory, n, u))
                else:
                    charged.append(sum(inside) / memory.ramp if inside else h.new_zeros(()))
            if isinstance(memory, AdaptiveSpan):
                charged.append(memory.max_span * memory.span_fractions[n].clamp(0, 1).mean())
            h = join(layer.residual, h, attend(layer, u, read, memory.longest_distance))
            feed_forward = layer.feed_forward
            y = feed_forward.down(feed_forward.up(feed_forward.norm(h)).clamp(min=0))
            h = join(feed_forward.residual, h, y)
        out.features.append(memory.norm(h))
        out.effective.append(effective / len(memory.layers))
        if charged:
            out.charged.append(sum(charged) / len(charged))
    return out


def later(kept: list[list[tuple[int, Tensor]]], n_steps: int) -> list[list[tuple[int, Tensor]]]:
    """What a block of `n_steps` leaves to the next one: without gradient, times counted from there."""
    return [[(i - n_steps, slot.detach()) for i, slot in slots] for slots in kept]


def close(fast: Tensor, slow: Tensor) -> None:
    """Equal, but for positions' frequencies, which a memory keeps in single precision."""
    torch.testing.assert_close(fast, slow, atol=2e-5, rtol=1e-5)
