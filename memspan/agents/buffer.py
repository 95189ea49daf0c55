"""Rollouts in whole blocks: the memory's state is stored once, minibatches are sets of environments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from torch import Tensor

from memspan.memory import State, select_rows


class Block(NamedTuple):
    """All T steps of B environments."""

    observations: Any
    """(T, B, ...) or a dictionary of such."""
    actions: Tensor
    """(T, B, *action shape)."""
    rewards: Tensor
    """(T, B), as all that follow. In units of their root mean square over the rollout: they may be small and
    rare. The last of an episode cut short has what would have followed."""
    values: Tensor
    log_probs: Tensor
    advantages: Tensor
    returns: Tensor
    episode_starts: Tensor
    state: State
    """Before the first step."""
    rows: np.ndarray
    """(B,) the environments."""
    action_masks: Tensor | None = None
    """(T, B, choices) bool, see `memspan.agents.masks`; None: every action was allowed."""


class MemoryRolloutBuffer(RolloutBuffer):
    """SB3's rollout buffer, read in blocks.

    `initial_state` has to be set when a rollout begins.
    """

    initial_state: State
    action_masks: np.ndarray | None = None
    """(T, N, choices) bool, where there are any."""

    def add(self, *args: Any, action_masks: np.ndarray | None = None, **kwargs: Any) -> None:
        """As SB3's; `action_masks` is (N, choices) bool, at every step of a rollout or at none."""
        if action_masks is not None:
            if self.action_masks is None:
                self.action_masks = np.ones((self.buffer_size, *action_masks.shape), dtype=bool)
            self.action_masks[self.pos] = action_masks
        super().add(*args, **kwargs)

    def blocks(self, n_minibatches: int) -> Iterator[Block]:
        """Yields every environment once, in `n_minibatches` sets drawn anew at each call."""
        if not self.full:
            raise RuntimeError("the rollout is not complete")
        reward_size = max(float(np.sqrt(np.square(self.rewards).mean())), 1e-6)
        for rows in np.array_split(torch.randperm(self.n_envs).numpy(), n_minibatches):
            yield self._block(np.sort(rows), reward_size)

    def _block(self, rows: np.ndarray, reward_size: float) -> Block:
        # As SB3 does it: distributions of every action space take floats.
        actions = self.to_torch(self.actions[:, rows].astype(np.float32, copy=False), copy=False)
        return Block(
            observations=self._observations(rows),
            actions=actions.squeeze(-1) if self.action_space.shape == () else actions,
            rewards=self.to_torch(self.rewards[:, rows] / reward_size, copy=False),
            values=self.to_torch(self.values[:, rows], copy=False),
            log_probs=self.to_torch(self.log_probs[:, rows], copy=False),
            advantages=self.to_torch(self.advantages[:, rows], copy=False),
            returns=self.to_torch(self.returns[:, rows], copy=False),
            episode_starts=self.to_torch(self.episode_starts[:, rows], copy=False).bool(),
            state=select_rows(self.initial_state, torch.as_tensor(rows, device=self.device)),
            rows=rows,
            action_masks=None
            if self.action_masks is None
            else self.to_torch(self.action_masks[:, rows], copy=False),
        )

    def _observations(self, rows: np.ndarray) -> Any:
        return self.to_torch(self.observations[:, rows], copy=False)


class MemoryDictRolloutBuffer(MemoryRolloutBuffer, DictRolloutBuffer):
    """The same for Dict observations."""

    def _observations(self, rows: np.ndarray) -> Any:
        return {key: self.to_torch(value[:, rows], copy=False) for key, value in self.observations.items()}
