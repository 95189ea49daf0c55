"""What comes next: auxiliary tasks that teach a memory what acting depends on.

From the memory's features and the action at step t, the agent predicts the memory's input at t + 1
(`WhatComesNext`), or what the action brings: the reward, and whether the episode ends (`Outcome`). Where this
depends on what was seen long ago, only those who remember are right, and every such step teaches it, whether
it pays or not; a reward may come but once an episode. Nor does it stop to teach where a policy has become
sure of the wrong action.

Predicting one's own embeddings: Schwarzer et al., Data-Efficient Reinforcement Learning with Self-Predictive
Representations, 2021, arXiv 2007.05929. Here it is one step ahead, with a squared error and without a target
network; what keeps embeddings apart is that actor and critic use them. Predicting rewards: Jaderberg et al.,
Reinforcement Learning with Unsupervised Auxiliary Tasks, 2017, arXiv 1611.05397; here from the memory's
features, and at every step.
"""

from __future__ import annotations

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, preprocess_obs
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.memory import over_all


class _FromAction(nn.Module):
    """Base of what predicts from features and action.

    Args:
        width: D.
        action_space: of the agent; discrete actions are read one-hot.
        n_predicted: numbers that are predicted.
    """

    def __init__(self, width: int, action_space: spaces.Space, n_predicted: int) -> None:
        super().__init__()
        self.action_space = action_space
        self.predictor = nn.Sequential(
            nn.Linear(width + get_flattened_obs_dim(action_space), 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, n_predicted),
        )

    def predict(self, features: Tensor, actions: Tensor) -> Tensor:
        """(T, B, D) features and (T, B, *action shape) actions -> (T, B, n_predicted)."""
        taken = preprocess_obs(actions.flatten(0, 1), self.action_space)
        assert isinstance(taken, Tensor)
        out: Tensor = self.predictor(torch.cat([features, taken.reshape(*features.shape[:2], -1)], dim=-1))
        return out


class WhatComesNext(_FromAction):
    """Predicts the memory's next input, layer-normalised.

    Args:
        width: D.
        action_space: of the agent.
    """

    def __init__(self, width: int, action_space: spaces.Space) -> None:
        super().__init__(width, action_space, width)

    def forward(self, features: Tensor, actions: Tensor, x: Tensor, episode_starts: Tensor) -> Tensor:
        """How wrong the predictions of a block are; those of its last step are not judged.

        Args:
            features: (T, B, D) what the memory answered.
            actions: (T, B, *action shape).
            x: (T, B, D) what it was given; no gradient reaches what is predicted.
            episode_starts: (T, B) bool.

        Returns:
            The mean squared error of the next inputs that are of the same episode.
        """
        goes_on = ~episode_starts[1:]
        judged = goes_on.sum() / goes_on.shape[1]
        among_all = over_all(judged)
        if not goes_on.any():
            return features.new_zeros(())
        comes = F.layer_norm(x[1:].detach(), x.shape[-1:])
        error = F.mse_loss(self.predict(features[:-1], actions[:-1])[goes_on], comes[goes_on])
        # Rows with more such steps count for more, in other processes, too.
        return error * (judged / among_all)


class Outcome(_FromAction):
    """Predicts the reward of a step, and whether the episode ends with it.

    Args:
        width: D.
        action_space: of the agent.
    """

    def __init__(self, width: int, action_space: spaces.Space) -> None:
        super().__init__(width, action_space, 2)

    def forward(self, features: Tensor, actions: Tensor, rewards: Tensor, episode_starts: Tensor) -> Tensor:
        """How wrong the predictions of a block are; those of its last step are not judged.

        Args:
            features: (T, B, D) what the memory answered.
            actions: (T, B, *action shape).
            rewards: (T, B) of the same steps, of about the size 1.
            episode_starts: (T, B) bool.

        Returns:
            The mean squared error of rewards, plus the mean cross-entropy, in nats, of the episodes' ends.
        """
        if len(features) == 1:
            return features.new_zeros(())
        reward, end = self.predict(features[:-1], actions[:-1]).unbind(-1)
        return F.mse_loss(reward, rewards[:-1]) + F.binary_cross_entropy_with_logits(
            end, episode_starts[1:].to(end.dtype)
        )
