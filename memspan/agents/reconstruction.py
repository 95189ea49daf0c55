"""What is seen: an auxiliary task that keeps in the memory's inputs what the observations said.

Features learn what today's rewards ask for. What only matters once it is remembered is asked for by nobody
until the memory retrieves it, and the memory cannot learn to retrieve what its inputs do not hold: each waits
for the other. A linear map from inputs back to observations ends the wait.

Autoencoding as an auxiliary task: Jaderberg et al., Reinforcement Learning with Unsupervised Auxiliary Tasks,
2017, arXiv 1611.05397, compare it with others. Here it is a linear decoder, without a bottleneck of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, preprocess_obs
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.agents.features import OneHotSymbols, is_picture, is_sentence, is_symbolic

WHOLE = "observation"


class WhatIsSeen(nn.Module):
    """Reads observations off the memory's inputs.

    Sentences are read as the set of their words, symbols and all that is discrete one-hot, vectors as they
    are.

    Args:
        width: D.
        space: of the observations.

    Raises:
        ValueError: pictures are observed.
    """

    def __init__(self, width: int, space: spaces.Space) -> None:
        super().__init__()
        self.parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {WHOLE: space}
        for part in self.parts.values():
            if is_picture(part):
                raise ValueError(f"reconstruction_coef: must be 0 where pictures are observed, as in {part}")
        symbols = {key: OneHotSymbols(part) for key, part in self.parts.items() if is_symbolic(part)}
        self.one_hot = nn.ModuleDict(symbols)
        self.sizes = [
            symbols[key].n_columns if key in symbols else _length(part) for key, part in self.parts.items()
        ]
        self.decoder = nn.Linear(width, sum(self.sizes))

    def forward(self, x: Tensor, observations: Tensor | Mapping[str, Tensor]) -> Tensor:
        """How badly observations are read off inputs.

        Args:
            x: (N, D) inputs of the memory.
            observations: (N, ...), or a mapping of them for a Dict.

        Returns:
            Cross-entropies, in nats, of all that is 0 or 1, plus squared errors of all else, as a mean over
            observations.
        """
        told = {WHOLE: observations} if isinstance(observations, Tensor) else observations
        loss, decoded = x.new_zeros(()), self.decoder(x).split(self.sizes, dim=1)
        for (key, part), read in zip(self.parts.items(), decoded, strict=True):
            said = self.one_hot[key](told[key]) if key in self.one_hot else _as_floats(told[key], part)
            if isinstance(part, spaces.Box) and key not in self.one_hot:
                errors = F.mse_loss(read, said, reduction="none")
            else:
                errors = F.binary_cross_entropy_with_logits(read, said, reduction="none")
            loss = loss + errors.sum(1).mean()
        return loss


def _length(space: spaces.Space) -> int:
    return int(space.nvec[0]) if is_sentence(space) else get_flattened_obs_dim(space)  # type: ignore[attr-defined]


def _as_floats(observations: Tensor, space: spaces.Space) -> Tensor:
    """(N, length) what is to be read off."""
    if is_sentence(space):
        words = torch.zeros(len(observations), _length(space), device=observations.device)
        return words.scatter_(1, observations.long(), 1.0)
    floats = preprocess_obs(observations, space)
    assert isinstance(floats, Tensor)
    return floats.flatten(1)
