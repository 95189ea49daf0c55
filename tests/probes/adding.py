"""A memory that is easy to see through: it adds up what it reads."""

from dataclasses import dataclass

import torch
from torch import Tensor

from memspan.memory import Memory, MemoryConfig, MemoryOutput, State


@dataclass(frozen=True)
class TotalConfig(MemoryConfig):
    """Fields by the names that `far_enough` knows."""

    longest_dependency: int = 0
    """Nothing."""
    max_span: int = 20
    """Nothing."""
    memory_size: int = 10
    """Nothing."""
    compression_rate: int = 4
    """Nothing."""
    compressed_size: int = 5
    """Nothing."""


class Total(Memory):
    """Features are the sum of all inputs: an answer tells of other blocks if the state is carried."""

    Config = TotalConfig

    def __init__(self, width: int, config: TotalConfig | None = None) -> None:
        super().__init__(width)
        self.calls: list[tuple[int, bool, bool]] = []

    def initial_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        return {"sum": torch.zeros(batch_size, self.width)}

    def forward(
        self, x: Tensor, state: State, episode_starts: Tensor, keep_state: bool = True
    ) -> MemoryOutput:
        self.calls.append((len(x), bool(episode_starts.any()), x.requires_grad))
        sums, now = [], state["sum"]
        for read, start in zip(x, episode_starts, strict=True):
            now = torch.where(start[:, None], 0.0, now) + read
            sums.append(now)
        total = torch.stack(sums)
        return MemoryOutput(
            total,
            {"sum": total[-1].detach()},
            {"own": x.square().mean(-1)},
            {"effective_memory": x.new_ones(x.shape[:-1])},
        )

    @property
    def capacity(self) -> float:
        return 1.0
