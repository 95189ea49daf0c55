"""No memory: the floor that every memory has to beat.

Layers of the same feed-forward size as the other torsos have, so that what is missing is memory and
nothing else. What is remembered: nothing. State: empty.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspan.memory.attention import FeedForward
from memspan.memory.base import Memory, MemoryConfig, MemoryOutput, State
from memspan.memory.registry import register


@dataclass(frozen=True)
class NoneConfig(MemoryConfig):
    """Settings of `none`."""

    n_layers: int = 2
    """Feed-forward layers."""
    ff_factor: int = 2
    """Hidden units of a feed-forward layer, in multiples of the width."""

    def validate(self) -> None:
        self._require("n_layers", self.n_layers >= 1, "at least 1")
        self._require("ff_factor", self.ff_factor >= 1, "at least 1")


@register("none")
class NoMemory(Memory):
    """Every step is read alone."""

    Config = NoneConfig

    def __init__(self, width: int, config: NoneConfig | None = None) -> None:
        super().__init__(width)
        config = config or NoneConfig()
        self.layers = nn.Sequential(*(FeedForward(width, config.ff_factor) for _ in range(config.n_layers)))
        self.norm = nn.LayerNorm(width)

    def initial_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        # One empty leaf, so that the number of rows can be read off the state like everywhere.
        return {"nothing": torch.zeros(batch_size, 0, device=device)}

    def forward(
        self, x: Tensor, state: State, episode_starts: Tensor, keep_state: bool = True
    ) -> MemoryOutput:
        features = self.norm(self.layers(x))
        return MemoryOutput(features, state, stats={"effective_memory": x.new_zeros(x.shape[:-1])})

    def step(self, x: Tensor, state: State, episode_start: Tensor) -> MemoryOutput:
        return MemoryOutput(
            self.norm(self.layers(x)), state, stats={"effective_memory": x.new_zeros(x.shape[0])}
        )

    @property
    def capacity(self) -> float:
        return 0.0
