"""What comes next: an auxiliary task that teaches a memory what acting depends on.

From the memory's features and the action at step t, the agent predicts the memory's input at t + 1, and
whether the episode goes on to it. Where the outcome of an action depends on what was seen long ago, only
those who remember are right, and every such step teaches it, whether it pays or not; a reward may come but
once an episode. Nor does it stop to teach where a policy has become sure of the wrong action.

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


class WhatComesNext(nn.Module):
    """Predicts the memory's next input, layer-normalised, and whether the episode ends before it.

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
            nn.Linear(2 * width, width + 1),
        )

    def forward(self, features: Tensor, actions: Tensor, x: Tensor, episode_starts: Tensor) -> Tensor:
        """How wrong the predictions of a block are; those of its last step are not judged.

        Args:
            features: (T, B, D) what the memory answered.
            actions: (T, B, *action shape).
            x: (T, B, D) what it was given; no gradient reaches what is predicted.
            episode_starts: (T, B) bool.

        Returns:
            The mean squared error of the next inputs that are of the same episode, plus the mean
            cross-entropy, in nats, of whether there is one.
        """
        if len(features) == 1:
            return features.new_zeros(())
        ended = episode_starts[1:]
        done = preprocess_obs(actions[:-1].flatten(0, 1), self.action_space)
        assert isinstance(done, Tensor)
        known = torch.cat([features[:-1], done.reshape(*ended.shape, -1)], dim=-1)
        guess, end = self.predictor(known).split([x.shape[-1], 1], dim=-1)
        loss = F.binary_cross_entropy_with_logits(end.squeeze(-1), ended.to(end.dtype))
        if not ended.all():
            comes = F.layer_norm(x[1:].detach(), x.shape[-1:])
            loss = loss + F.mse_loss(guess[~ended], comes[~ended])
        return loss
