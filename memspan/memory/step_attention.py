"""What a step does with its slots: it stores its own, and attends to all, read as they were stored.

B rows, H heads, S slots, D width, E numbers that tell a distance.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def has_kernels(x: Tensor) -> bool:
    """Whether there are kernels for what `x` is."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def on_cpu_without_graph(x: Tensor) -> bool:
    """Whether a step's work can be left to the kernels of `memspan.memory.slot_kernel`."""
    return has_kernels(x) and not torch.is_grad_enabled()


class SlotQuery(NamedTuple):
    """What a step asks of its slots."""

    content: Tensor
    """(H, B, D) by what a slot holds."""
    position: Tensor
    """(B, H, E) by its distance."""
    place: Tensor
    """(B, S) long: row of `code` that tells a slot's distance; any where `bias` is -inf."""
    code: Tensor
    """(n, E)."""
    bias: Tensor
    """(B, 1 or H, S), added to the scores: -inf where a slot must not be read."""


def read_slots(query: SlotQuery, slots: Tensor, codes: bool) -> tuple[Tensor, Tensor]:
    """What each head reads.

    Args:
        query: what is asked.
        slots: (B, S, D).
        codes: whether the codes of distances are read, too.

    Returns:
        (H, B, D) of slots, and (B, H, E) of codes, or (B, H, 0).
    """
    from memspan.memory.slot_kernel import read

    out = query.content.new_empty(query.content.shape)
    out_code = slots.new_empty(*query.position.shape[:2], query.code.shape[1] if codes else 0)
    content, position, place, code, bias = query
    tensors = content, position, slots, place, code, bias, out, out_code
    # Contiguous: numba knows where such arrays have their numbers, and reads eight at a time.
    read(*(each.contiguous().numpy() for each in tensors))
    return out, out_code


def read_slots_densely(query: SlotQuery, slots: Tensor, codes: bool) -> tuple[Tensor, Tensor]:
    """The same with a gradient, on every device: scores of all slots, of which some are masked."""
    content, position, place, code, bias = query
    place = place.clamp(min=0)  # of slots that are not read, too
    scores = content.transpose(0, 1) @ slots.transpose(1, 2)  # (B, H, S)
    if len(code) < place.numel():
        # Position scores of every possible distance, then of each slot's.
        scores = scores + (position @ code.T).gather(2, place.unsqueeze(1).expand_as(scores))
    else:
        scores = scores + position @ code[place].transpose(1, 2)
    weights = torch.softmax(scores + bias, dim=-1)
    return (weights @ slots).transpose(0, 1), weights @ code[place] if codes else weights[..., :0]


def bias_by_span(age: Tensor, span: Tensor, ramp: int) -> tuple[Tensor, Tensor]:
    """The log of what is left of slots whose spans, (B, S), end in a ramp; how many can be read.

    Returns:
        (B, 1, S), -inf where nothing is left, and (B,) of the spans' kind, the step's own slot not counted.
    """
    from memspan.memory.slot_kernel import mask_by_span

    bias, count = span.new_empty(len(age), 1, age.shape[1]), span.new_empty(len(age))
    mask_by_span(age.numpy(), span.contiguous().numpy(), ramp, bias.numpy(), count.numpy())
    return bias, count


def store_in_slots(
    hidden: Tensor, age: Tensor, lifetime: Tensor | float | None, new: Tensor, first: int = 0
) -> int | None:
    """Ages slots by a step, frees those whose lifetime is over, and stores what is new; in place.

    Args:
        hidden: (B, S, D).
        age: (B, S) long.
        lifetime: (B, S) of each slot, or of all; None: they have been aged.
        new: (B, D).
        first: row that is the first to get what is new.

    Returns:
        The first row without a free slot, from which on nothing was stored; None if every row had one.
    """
    from memspan.memory import slot_kernel

    new = new.contiguous()
    if lifetime is None:
        slot_kernel.store_rest(hidden.numpy(), age.numpy(), new.numpy(), first)
        return None
    lifetimes = torch.as_tensor(lifetime, dtype=new.dtype)
    lifetimes = (lifetimes if lifetimes.ndim else lifetimes.expand(1, 1)).contiguous()
    full = slot_kernel.store(hidden.numpy(), age.numpy(), lifetimes.numpy(), new.numpy())
    return None if full < 0 else full
