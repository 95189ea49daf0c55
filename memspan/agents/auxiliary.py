"""What an agent can learn beside acting: tasks that teach memory and features what rewards alone teach late.

Each has its module, and its weight in the agent's loss is `<task>_coef` of `MemoryPPO`.
"""

from __future__ import annotations

from collections.abc import Collection

from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn

from memspan.agents.prediction import Outcome, WhatComesNext
from memspan.agents.reconstruction import WhatIsSeen

TASKS = ("prediction", "outcome", "reconstruction")


class AuxiliaryTasks(nn.Module):
    """The tasks that are asked for, maybe none.

    Args:
        tasks: some of `TASKS`.
        width: D.
        observation_space: of the agent.
        action_space: of the agent.

    Raises:
        ValueError: there is no such task, or it does not suit the spaces.
    """

    def __init__(
        self, tasks: Collection[str], width: int, observation_space: spaces.Space, action_space: spaces.Space
    ) -> None:
        super().__init__()
        if not set(tasks) <= set(TASKS):
            raise ValueError(f"auxiliary_tasks={tasks!r}: must be among {', '.join(TASKS)}")
        self.prediction = WhatComesNext(width, action_space) if "prediction" in tasks else None
        self.outcome = Outcome(width, action_space) if "outcome" in tasks else None
        self.reconstruction = WhatIsSeen(width, observation_space) if "reconstruction" in tasks else None

    def forward(
        self,
        features: Tensor,
        actions: Tensor,
        x: Tensor,
        observations: PyTorchObs,
        rewards: Tensor | None,
        episode_starts: Tensor,
    ) -> dict[str, Tensor]:
        """The losses of a block, task -> mean.

        Args:
            features: (T, B, D) what the memory answered.
            actions: (T, B, *action shape).
            x: (T, B, D) what it was given.
            observations: (T * B, ...) what that was made of.
            rewards: (T, B), of about the size 1; None, if outcomes are not to be predicted.
            episode_starts: (T, B) bool.
        """
        losses = {}
        if self.prediction is not None:
            losses["prediction"] = self.prediction(features, actions, x, episode_starts)
        if self.outcome is not None:
            assert rewards is not None
            losses["outcome"] = self.outcome(features, actions, rewards, episode_starts)
        if self.reconstruction is not None:
            losses["reconstruction"] = self.reconstruction(x.flatten(0, 1), observations)
        return losses
