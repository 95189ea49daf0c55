"""What updates share: features of a block, advantages, what losses count, a step of the optimizer."""

from __future__ import annotations

import numpy as np
import torch
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from memspan.agents.buffer import Block
from memspan.agents.faults import BadNumbersError, bad_update
from memspan.agents.policy import Evaluated
from memspan.agents.rollouts import Rollouts


class Updates(Rollouts):
    """Learns from blocks; subclasses put the losses together."""

    auxiliary_coefs: dict[str, float]
    memory_loss_schedule: Schedule
    memory_loss_gate: float | None
    memory_target: float | None
    normalize_advantage: bool
    min_advantage_std: float
    skipped_updates: int

    def _evaluate(self, block: Block) -> Evaluated:
        with self.processes.averaging(block.weight):
            return self.policy.evaluate_block(
                block.observations,
                block.actions,
                block.state,
                block.episode_starts,
                block.rewards,
                block.action_masks,
            )

    def _advantages(self, block: Block) -> Tensor:
        """Advantages less their mean, in units of their standard deviation, both over the rollout.

        The deviation has a floor: while all returns are still the same, it is noise, and dividing by it
        would make noise as loud as a signal.
        """
        if not self.normalize_advantage:
            return block.advantages
        mean, std = self.rollout_buffer.advantage_moments()
        return (block.advantages - mean) / max(std, self.min_advantage_std)

    def _memory_loss_coef(self) -> float:
        """Today's coefficient of the memory's own losses.

        With a gate, the losses come in as the success rate rises from the gate to 1, and go again when it
        falls: a memory only gives up what the task can spare. With a target, they go as the effective
        memory falls from twice the target to the target: a memory gives up no more than it is asked for.
        """
        coefficient = self.memory_loss_schedule(self._current_progress_remaining)
        if self.memory_loss_gate is not None:
            # The first episodes to end may all be lucky ones: they do not tell a success rate.
            ended = self.ep_success_buffer or ()
            success = float(np.mean(ended)) if len(ended) == self._stats_window_size else 0.0
            gate = (success - self.memory_loss_gate) / (1 - self.memory_loss_gate)
            coefficient *= float(np.clip(gate, 0, 1))
        if self.memory_target is not None:
            coefficient *= float(np.clip(self._effective_memory / self.memory_target - 1, 0, 1))
        return coefficient

    def _memory_loss(self, evaluated: Evaluated) -> Tensor:
        """Sum of the memory's own losses, each the mean over steps."""
        losses = [value.mean() for value in evaluated.memory.losses.values()]
        return torch.stack(losses).sum() if losses else evaluated.values.new_zeros(())

    def _auxiliary_loss(self, evaluated: Evaluated) -> Tensor:
        """What is learnt beside acting, each by its coefficient."""
        losses = [self.auxiliary_coefs[task] * value for task, value in evaluated.auxiliary_losses.items()]
        return torch.stack(losses).sum() if losses else evaluated.values.new_zeros(())

    def _entropy_loss(self, evaluated: Evaluated) -> Tensor:
        """Minus the mean entropy; estimated from the drawn actions where it has no closed form."""
        entropy = evaluated.entropy
        return evaluated.log_probs.mean() if entropy is None else -entropy.mean()

    def _descend(self, losses: dict[str, Tensor], loss: Tensor, evaluated: Evaluated, block: Block) -> bool:
        """One step of the optimizer, unless loss or gradient are not finite.

        Returns:
            Whether it was made.

        Raises:
            BadNumbersError: it cannot be made, and the agent is to stop.
        """
        self.policy.optimizer.zero_grad()
        loss = self.processes.backward(loss, block.weight, self.policy.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        if torch.isfinite(loss + norm):
            self.policy.optimizer.step()
            return True
        rows = block.rows + self.processes.rows(self.n_envs).start
        what = bad_update(losses, evaluated.log_probs.detach(), rows, self.policy)
        self.policy.optimizer.zero_grad()
        if self.on_nan == "stop":
            where = f"update {self._n_updates + 1}, after {self.num_timesteps} timesteps"
            raise self.processes.shared(BadNumbersError(f"{where}: {what}"))
        self.skipped_updates += 1
        return False
