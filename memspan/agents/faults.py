"""What goes wrong while an agent acts and learns, told so that one can find it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MOST_NAMED = 5
"""Environments or parameters that a message names."""


class BadNumbersError(RuntimeError):
    """NaN or infinity where there must be numbers."""


class EnvironmentFaultError(RuntimeError):
    """An environment that raises, hangs, ends, or breaks its space."""


def bad_rows(values: np.ndarray) -> list[int]:
    """Rows (the first dimension) that hold NaN or infinity."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return []
    return np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1)).tolist()


def what_is_bad(observations: Any, rewards: np.ndarray | None, first: int = 0) -> list[str]:
    """Lines that name tensor, value and environments; none if all numbers are finite.

    Args:
        observations: (B, ...), or a dictionary of such.
        rewards: (B,), or None.
        first: index of the first environment.
    """
    parts = observations if isinstance(observations, dict) else {"": observations}
    named = {f"observation {part!r}" if part else "observation": values for part, values in parts.items()}
    if rewards is not None:
        named["reward"] = rewards
    found = []
    for name, values in named.items():
        if rows := bad_rows(np.asarray(values)):
            numbers = values[rows[0]].ravel()
            value = float(numbers[~np.isfinite(numbers)][0])
            found.append(f"{name} of {environments([first + row for row in rows])} is {value}")
    return found


def make_finite(values: Any) -> Any:
    """A copy with 0 in place of NaN and infinity."""
    if isinstance(values, dict):
        return {part: make_finite(value) for part, value in values.items()}
    return (
        np.where(np.isfinite(values), values, 0).astype(values.dtype) if values.dtype.kind == "f" else values
    )


def bad_rollout(named: Mapping[str, np.ndarray], first: int = 0) -> list[str]:
    """Lines that name array, step and environments, `first` on, of what is not finite in arrays (T, B)."""
    found = []
    for name, values in named.items():
        bad = ~np.isfinite(values)
        if bad.any():
            step = int(bad.any(1).argmax())
            rows = (first + np.flatnonzero(bad[step])).tolist()
            found.append(f"{name} of {environments(rows)} at step {step} of the rollout")
    return found


def bad_update(losses: Mapping[str, Tensor], log_probs: Tensor, rows: np.ndarray, policy: nn.Module) -> str:
    """What is not finite in an update whose loss or gradient is not.

    Args:
        losses: name -> number.
        log_probs: (T, B).
        rows: (B,) environments.
        policy: with its gradients.
    """
    found = [f"{name} is {value.item()}" for name, value in losses.items() if not torch.isfinite(value)]
    bad = (~torch.isfinite(log_probs)).any(0).cpu().numpy()
    if bad.any():
        found.append(f"log-probabilities of {environments(rows[bad].tolist())}")
    if not found:
        names = [
            name
            for name, one in policy.named_parameters()
            if one.grad is not None and not bool(torch.isfinite(one.grad).all())
        ]
        found.append(f"gradient of {_some(names) if names else 'all parameters together'} is not finite")
    return ", ".join(found)


def environments(rows: list[int]) -> str:
    """Environments by index."""
    return f"environment{'s' if len(rows) > 1 else ''} {_some([str(row) for row in rows])}"


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
