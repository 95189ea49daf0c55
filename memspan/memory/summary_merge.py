"""The map that makes one summary of two, see `memspan.memory.summary_tree`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-5
"""Added to the variance of a summary."""


class Merge(nn.Module):
    """Two summaries of a level to one of the next; at first their mean, normalised as slots are."""

    def __init__(self, width: int, n_levels: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * width, width, bias=False)
        self.up = nn.Linear(2 * width, 2 * width, bias=False)
        self.level = nn.Parameter(torch.zeros(n_levels - 1, 2 * width))
        self.down = nn.Linear(2 * width, width)
        self.split = nn.Linear(width, 2 * width)
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(width).repeat(1, 2) / 2)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, older: Tensor, newer: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """(n, D) twice -> (n, D) summaries, (n,) losses."""
        both = torch.cat([older, newer], dim=-1)
        summary = self.merged(both, level)
        target = both.detach()
        alone = self.merged(target, level) if torch.is_grad_enabled() else summary
        return summary, (self.split(alone) - target).square().mean(-1)

    def merged(self, both: Tensor, level: int) -> Tensor:
        """(n, 2 D) -> (n, D)."""
        merged = self.mix(both) + self.down(F.relu(self.up(both) + self.level[level]))
        return F.layer_norm(merged, merged.shape[-1:], eps=EPS)
