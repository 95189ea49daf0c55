"""Action masks, by sb3-contrib's convention: environments tell by `action_masks()` what is allowed now.

A mask is bool, True where an action is allowed, and has as many places as there are choices:

Discrete(n)               (n,)
MultiDiscrete([n, m])     (n + m,)   those of the first number, then those of the second
MultiBinary(n)            (2 n,)     of each number whether it may be 0, then whether it may be 1

A number of which nothing is allowed counts as free: so do the last observations of episodes, where some
environments have nothing left to do, and Gymnasium's next-step autoreset ignores the action.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

FORBIDDEN = -1e8
"""Logit of what is not allowed: its probability is 0, its share of the entropy too, and neither is NaN."""


def choices(space: spaces.Space) -> list[int]:
    """How many values each number of an action can take.

    Raises:
        ValueError: its values cannot be counted.
    """
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.ravel()]
    if isinstance(space, spaces.MultiBinary):
        return [2] * int(np.prod(space.shape))
    raise ValueError(
        f"action_masks=True: action_space={space} must be Discrete, MultiDiscrete or MultiBinary"
    )


def check_masked(env: VecEnv | None, space: spaces.Space) -> None:
    """Raises ValueError if actions cannot be masked, or the environments do not tell their masks."""
    choices(space)
    if env is not None and not env.has_attr("action_masks"):
        raise ValueError("action_masks=True: the environments must have a method action_masks()")


def get_action_masks(env: VecEnv, space: spaces.Space) -> np.ndarray:
    """(N, choices) bool: what the environments allow now.

    Raises:
        ValueError: a mask has another size.
    """
    masks = [np.asarray(mask, dtype=bool).ravel() for mask in env.env_method("action_masks")]
    n_choices = sum(choices(space))
    for mask in masks:
        if len(mask) != n_choices:
            raise ValueError(f"action_masks() has {len(mask)} places: must have {n_choices}, for {space}")
    return np.stack(masks)


def as_masks(masks: Any, space: spaces.Space, n_rows: int, device: torch.device) -> Tensor:
    """(B, choices) bool, of one mask or a batch.

    Raises:
        ValueError: they are of another size.
    """
    given = torch.as_tensor(np.asarray(masks, dtype=bool), device=device)
    n_choices = sum(choices(space))
    if given.numel() != n_rows * n_choices:
        raise ValueError(
            f"action_masks has shape {tuple(given.shape)}: must be ({n_rows}, {n_choices}), for {space}"
        )
    return given.reshape(n_rows, n_choices)


def mask_logits(logits: Tensor, masks: Tensor, space: spaces.Space) -> Tensor:
    """Logits of a distribution that draws nothing but what is allowed.

    Args:
        logits: (B, choices); of MultiBinary (B, n), of 1 against 0.
        masks: (B, choices) bool.
        space: of the actions.
    """
    parts = torch.split(masks, choices(space), dim=1)
    free = torch.cat([part | ~part.any(1, keepdim=True) for part in parts], dim=1)
    if isinstance(space, spaces.MultiBinary):
        may_be_0, may_be_1 = free.view(len(free), -1, 2).unbind(2)
        return logits.masked_fill(~may_be_1, FORBIDDEN).masked_fill(~may_be_0, -FORBIDDEN)
    return logits.masked_fill(~free, FORBIDDEN)


class MaskedPredictor:
    """A model as it acts in one environment: SB3's `evaluate_policy` takes it in place of the model.

    Args:
        model: a `MemoryPPO`.
        env: where it acts, and which tells the masks; the one that `evaluate_policy` is given.

    Raises:
        ValueError: actions cannot be masked, or the environments do not tell their masks.
    """

    def __init__(self, model: BaseAlgorithm, env: VecEnv) -> None:
        check_masked(env, model.action_space)
        self.model = model
        self.env = env

    def predict(self, *args: Any, **kwargs: Any) -> tuple[np.ndarray, Any]:
        """As the model's, of actions that are allowed now."""
        masks = get_action_masks(self.env, self.model.action_space)
        return self.model.predict(*args, **kwargs, action_masks=masks)  # type: ignore[call-arg]
