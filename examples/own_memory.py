"""A memory of your own: it keeps what was seen first in the episode, and nothing else.

Where the cue comes first that is all one needs: one vector, for as long as the episode lasts. Where what
matters comes later, as in Portal, it is useless. What a memory has to keep
to: docs/write-your-own-memory.md.

    python examples/own_memory.py

Takes about 10 seconds on one core; success is 0.98 after 20,000 steps.
"""

import gymnasium as gym
import torch
import tyro
from torch import nn

import memspan  # noqa: F401  (registers the environments)
from memspan import MemoryPPO
from memspan.memory import Memory, MemoryConfig, MemoryOutput, Remembered


class FirstStep(Memory):
    """state["first"] is (B, D): what came in where the episode started."""

    def __init__(self, width: int, config: MemoryConfig | None = None) -> None:
        super().__init__(width)
        self.read = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU())

    def initial_state(self, batch_size, device="cpu"):
        return {"first": torch.zeros(batch_size, self.width, device=device)}

    def forward(self, x, state, episode_starts, keep_state=True):
        first, kept = state["first"], []
        for now, start in zip(x, episode_starts, strict=True):  # T times (B, D) and (B,)
            first = torch.where(start[:, None], now, first)
            kept.append(first)
        features = self.read(torch.cat([x, torch.stack(kept)], dim=-1))
        stats = {"effective_memory": x.new_full(x.shape[:-1], self.capacity)}
        return MemoryOutput(features, {"first": first.detach()}, stats=stats)

    def remembered(self, state):
        return [Remembered.of_vectors(first=state["first"])]

    @property
    def capacity(self):
        return 1.0


def main(timesteps: int = 20_000, max_length: int = 20) -> float:
    """Trains; returns the success rate of the last episodes."""
    kind = "vector_entry_point"
    envs = gym.make_vec("memspan/Corridor-v0", num_envs=16, vectorization_mode=kind, max_length=max_length)
    memory = "own_memory:FirstStep"  # module:Class; `memspan train --memory` takes it, too
    model = MemoryPPO("MlpPolicy", envs, memory, n_steps=64, learning_rate=2e-3, ent_coef=0.01, seed=0)
    model.learn(timesteps, progress_bar=timesteps > 10_000)
    success = sum(model.ep_success_buffer) / max(len(model.ep_success_buffer), 1)
    print(f"first step, corridors of 3 to {max_length} steps: success {success:.2f}; by chance 0.5")
    return success


if __name__ == "__main__":
    tyro.cli(main)
