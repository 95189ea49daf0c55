"""Rollouts in whole blocks: the memory's state is stored once, minibatches are sets of environments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.utils import explained_variance
from torch import Tensor

from memspan.agents.distributed import ALONE, Processes
from memspan.agents.shares import Moments
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
    weight: float = 1.0
    """Share of the minibatch that this block is, where other processes have the rest; 0: the process has none
    of it, and the block is there to keep it in step."""


class MemoryRolloutBuffer(RolloutBuffer):
    """SB3's rollout buffer, read in blocks.

    `initial_state` has to be set when a rollout begins.
    """

    initial_state: State
    processes: Processes = ALONE
    moments: dict[str, Moments] | None = None
    """Of `rewards`, `advantages`, `returns` and `errors` in all processes; None: there is one."""
    action_masks: np.ndarray | None = None
    """(T, N, choices) bool, where there are any."""

    @property
    def on_device(self) -> bool:
        """Whether what is learnt from lies elsewhere than in the arrays: it goes there once a rollout."""
        return self.device.type != "cpu"

    def reset(self) -> None:
        super().reset()
        self._uploaded: dict[str, Tensor] = {}
        self._acted: list[Tensor] = []
        self._later: list[tuple[int, list[int], Tensor]] = []

    def add(
        self,
        obs: Any,
        action: np.ndarray,
        reward: np.ndarray,
        episode_start: np.ndarray,
        value: Tensor,
        log_prob: Tensor,
        action_masks: np.ndarray | None = None,
    ) -> None:
        """As SB3's; `action_masks` is (N, choices) bool, at every step of a rollout or at none."""
        if action_masks is not None:
            if self.action_masks is None:
                self.action_masks = np.ones((self.buffer_size, *action_masks.shape), dtype=bool)
            self.action_masks[self.pos] = action_masks
        if self.on_device:
            self._acted.append(torch.stack([value, log_prob]))
            value = log_prob = torch.zeros(self.n_envs)
        super().add(obs, action, reward, episode_start, value, log_prob)

    def add_value(self, rows: list[int], values: Tensor) -> None:
        """Adds values to the rewards of the step that comes next, once the rollout is complete."""
        self._later.append((self.pos, rows, values))

    def compute_returns_and_advantage(self, last_values: Tensor, dones: np.ndarray) -> None:
        """As SB3's."""
        if self._acted:
            acted = torch.stack(self._acted).cpu().numpy()
            self.values[:], self.log_probs[:] = acted[:, 0], acted[:, 1]
        if self._later:
            worth = torch.cat([values for _, _, values in self._later]).cpu().numpy()
            steps = [step for step, rows, _ in self._later for _ in rows]
            np.add.at(self.rewards, (steps, [row for _, rows, _ in self._later for row in rows]), worth)
        super().compute_returns_and_advantage(last_values, dones)

    def blocks(self, n_minibatches: int) -> Iterator[Block]:
        """Yields every environment once, in `n_minibatches` sets drawn anew at each call."""
        if not self.full:
            raise RuntimeError("the rollout is not complete")
        reward_size = max(self._reward_size(), 1e-6)
        order = torch.randperm(self.n_envs * self.processes.size)
        self.processes.from_first([order])
        held = self.processes.rows(self.n_envs)
        for rows in np.array_split(order.numpy(), n_minibatches):
            own = np.sort(rows[(rows >= held.start) & (rows < held.stop)]) - held.start
            block = self._block(own if len(own) else np.zeros(1, dtype=np.int64), reward_size)
            yield block._replace(weight=len(own) / len(rows))

    def _reward_size(self) -> float:
        """Root mean square."""
        if self.moments is None:
            return float(np.sqrt(np.square(self.rewards).mean()))
        mean, variance = self.moments["rewards"]
        return float(np.sqrt(variance + mean**2))

    def advantage_moments(self) -> tuple[float, float]:
        """Mean and standard deviation."""
        if self.moments is None:
            return float(self.advantages.mean()), float(self.advantages.std())
        mean, variance = self.moments["advantages"]
        return mean, float(np.sqrt(variance))

    def explained_variance(self) -> float:
        """Share of the returns' variance that the values explain."""
        if self.moments is None:
            return float(explained_variance(self.values.flatten(), self.returns.flatten()))
        variance = self.moments["returns"].variance
        return 1 - self.moments["errors"].variance / variance if variance else float("nan")

    def _block(self, rows: np.ndarray, reward_size: float) -> Block:
        def of(name: str) -> Tensor:
            return self._of_rows(name, getattr(self, name), rows, index)

        index = torch.as_tensor(rows, device=self.device)
        # As SB3 does it: distributions of every action space take floats.
        actions = of("actions").float()
        return Block(
            observations=self._observations(rows, index),
            actions=actions.squeeze(-1) if self.action_space.shape == () else actions,
            rewards=of("rewards") / reward_size,
            values=of("values"),
            log_probs=of("log_probs"),
            advantages=of("advantages"),
            returns=of("returns"),
            episode_starts=of("episode_starts").bool(),
            state=select_rows(self.initial_state, index),
            rows=rows,
            action_masks=None if self.action_masks is None else of("action_masks"),
        )

    def _of_rows(self, name: str, values: np.ndarray, rows: np.ndarray, index: Tensor) -> Tensor:
        """Of an array (T, N, ...) some rows, as a tensor where it is learnt from."""
        if not self.on_device:
            return self.to_torch(values[:, rows], copy=False)
        if name not in self._uploaded:
            self._uploaded[name] = self.to_torch(values, copy=False)
        return self._uploaded[name].index_select(1, index)

    def _observations(self, rows: np.ndarray, index: Tensor) -> Any:
        return self._of_rows("observations", self.observations, rows, index)


class MemoryDictRolloutBuffer(MemoryRolloutBuffer, DictRolloutBuffer):
    """The same for Dict observations."""

    def _observations(self, rows: np.ndarray, index: Tensor) -> Any:
        return {
            key: self._of_rows(f"observations.{key}", value, rows, index)
            for key, value in self.observations.items()
        }
