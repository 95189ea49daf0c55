"""What comes next: an auxiliary task that teaches a memory what acting depends on.

From the memory's features and the action at step t, the agent predicts the memory's input at t + 1. Where the
outcome of an action depends on what was seen long ago, only those who remember are right, and every such step
teaches it, whether it pays or not; a reward may come but once an episode.

Predicting one's own embeddings: Schwarzer et al., Data-Efficient Reinforcement Learning with Self-Predictive
Representations, 2021, arXiv 2007.05929. Here it is one step ahead, with a squared error and without a target
network; what keeps embeddings apart is that actor and critic use them.
"""

from __future__ import annotations

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, preprocess_obs
from torch import Tensor, nn
from torch.nn import functional as F


class NextInput(nn.Module):
    """Predicts the memory's next input, layer-normalised.

    Args:
        width: D.
        action_space: of the agent; discrete actions are read one-hot.
    """

    def __init__(self, width: int, action_space: spaces.Space) -> None:
        super().__init__()
        self.action_space = action_space
        self.predictor = nn.Sequential(
            nn.Linear(width + get_flattened_obs_dim(action_space), 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, features: Tensor, actions: Tensor, x: Tensor, episode_starts: Tensor) -> Tensor:
        """The mean squared error over all steps of a block whose next one is of the same episode.

        Args:
            features: (T, B, D) what the memory answered.
            actions: (T, B, *action shape).
            x: (T, B, D) what it was given; no gradient reaches what is predicted.
            episode_starts: (T, B) bool.

        Returns:
            A number; 0 where no step has a next one.
        """
        follows = ~episode_starts[1:]
        if not follows.any():
            return features.new_zeros(())
        done = preprocess_obs(actions[:-1][follows], self.action_space)
        assert isinstance(done, Tensor)
        known = torch.cat([features[:-1][follows], done.flatten(1)], dim=-1)
        return F.mse_loss(self.predictor(known), F.layer_norm(x[1:][follows].detach(), x.shape[-1:]))
