"""Corridor by Stable-Baselines3's own PPO, with the last frames stacked for a memory.

A stack of k frames shows the cue for k - 1 steps. Corridors here are 3 to 8 steps long: what it cannot see any more it
has to guess, and no training mends that.

    python examples/frame_stack.py --frames 1
    python examples/frame_stack.py --frames 8

{frame_stack}
"""

import gymnasium as gym
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecFrameStack

from memspan import VecEnvAdapter


def main(timesteps: int = 100_000, frames: int = 8, max_length: int = 8) -> float:
    """Trains; returns the success rate of the last episodes."""
    envs = gym.make_vec(
        "memspan:memspan/Corridor-v0",
        num_envs=16,
        vectorization_mode="vector_entry_point",
        max_length=max_length,
    )
    model = PPO(
        "MlpPolicy",
        VecFrameStack(VecEnvAdapter(envs), frames),
        policy_kwargs={"normalize_images": False},  # they are symbols, not pixels
        n_steps=64,
        batch_size=256,
        learning_rate=1e-3,
        ent_coef=0.01,
        seed=0,
        device="cpu",
    )
    model.learn(timesteps, progress_bar=timesteps > 10_000)
    success = sum(model.ep_success_buffer) / max(len(model.ep_success_buffer), 1)
    print(f"{frames} frames, corridors of 3 to {max_length} steps: success {success:.2f}; by chance 0.5")
    return success


if __name__ == "__main__":
    tyro.cli(main)
