"""Draws one of a few actions, without the objects and checks of `torch.distributions`, which take longer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def check_finite(numbers: Tensor) -> None:
    """Drawing fails by itself; the most probable of nothing would be the first action.

    Raises:
        ValueError: not all are finite.
    """
    if not numbers.isfinite().all():
        raise ValueError("observations, memory or weights hold nan or infinity: there is no best action")


def choose(
    logits: Tensor, deterministic: bool = False, others: tuple[int, int] = (0, 0)
) -> tuple[Tensor, Tensor]:
    """Actions of a Discrete space, and the log of their probability.

    Args:
        logits: (B, choices).
        deterministic: the most probable actions instead of drawn ones.
        others: rows of other processes before and behind these, see `MemoryPolicy.act`.

    Returns:
        (B,) long, (B,).

    Raises:
        RuntimeError: an action cannot be drawn, because of NaN.
        ValueError: there is no most probable one.
    """
    log_probs = logits.log_softmax(-1)
    if deterministic:
        check_finite(logits)
        actions = logits.argmax(-1)
    else:
        of_all = F.pad(log_probs, (0, 0, *others)) if any(others) else log_probs
        actions = torch.multinomial(of_all.exp(), 1).squeeze(-1)
        actions = actions[others[0] : others[0] + len(logits)]
    return actions, log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
