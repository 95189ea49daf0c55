"""Ids of the environments, in one table, and their registration with Gymnasium."""

from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import register
from minigrid.wrappers import ImgObsWrapper

from memspan.envs.corridor import CorridorEnv

_CORRIDOR = {
    "entry_point": "memspan.envs.registration:make_corridor",
    "vector_entry_point": "memspan.envs.corridor_engine:CorridorVectorEnv",
}

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "memspan/Corridor-v0": {**_CORRIDOR, "kwargs": {"shuffle_doors": False}},
    "memspan/CorridorShuffled-v0": {**_CORRIDOR, "kwargs": {"shuffle_doors": True}},
}
"""Every id and what `gymnasium.register` is told about it."""


def make_corridor(**kwargs: Any) -> gym.Env[Any, Any]:
    """`CorridorEnv` with the image alone as its observation, as the engine has it."""
    return ImgObsWrapper(CorridorEnv(**kwargs))  # type: ignore[no-untyped-call]


def register_envs() -> None:
    """Registers every id that is not registered yet; calling it again changes nothing."""
    for env_id, spec in ENVIRONMENTS.items():
        if env_id not in gym.registry:
            register(env_id, **spec)
