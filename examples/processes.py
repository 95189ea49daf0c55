"""Environments in processes of their own: Gymnasium's AsyncVectorEnv and SB3's SubprocVecEnv.

"memspan:memspan/Corridor-v0" has each process import memspan and register the ids, also where processes are
spawned and inherit nothing. This pays where environments are slow; Corridor's engine
is faster in one process.

    python examples/processes.py --through async
    python examples/processes.py --through subproc

Takes about 30 seconds on a busy core, most of it until the processes have started.
"""

from functools import partial
from typing import Literal

import gymnasium as gym
import tyro
from gymnasium.vector import AsyncVectorEnv
from stable_baselines3.common.vec_env import SubprocVecEnv, VecMonitor

from memspan import MemoryPPO


def main(timesteps: int = 4_096, through: Literal["async", "subproc"] = "async", n_envs: int = 2) -> int:
    """Trains; returns the number of steps."""
    make = partial(gym.make, "memspan:memspan/Corridor-v0", max_length=8)
    if through == "async":
        env = AsyncVectorEnv([make] * n_envs, context="spawn")
    else:
        env = VecMonitor(SubprocVecEnv([make] * n_envs, start_method="spawn"))
    model = MemoryPPO("MlpPolicy", env, memory="lstm", n_steps=64, seed=0)
    model.learn(timesteps, progress_bar=timesteps > 10_000)
    model.get_env().close()
    print(f"{through}: {model.num_timesteps} steps in {n_envs} processes")
    return model.num_timesteps


if __name__ == "__main__":
    tyro.cli(main)
