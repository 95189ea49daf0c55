"""Ids of the environments, in one table, and their registration with Gymnasium."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import register
from minigrid.wrappers import ImgObsWrapper

from memspan.envs.centred_view import CentredViewEnv
from memspan.envs.corridor import CorridorEnv
from memspan.envs.portal import PortalEnv

_CORRIDOR = {
    "entry_point": "memspan.envs.registration:make_corridor",
    "vector_entry_point": "memspan.envs.corridor_engine:CorridorVectorEnv",
}
_PORTAL = {
    "entry_point": "memspan.envs.registration:make_portal",
    "vector_entry_point": "memspan.envs.portal_engine:PortalVectorEnv",
}
_INSTRUCTION = {
    "entry_point": "memspan.envs.instruction:InstructionEnv",
    "vector_entry_point": "memspan.envs.instruction_engine:InstructionVectorEnv",
}
_SMALL_INSTRUCTION = {
    "num_instructions": 2,
    "num_verbs": 2,
    "num_objects": 2,
    "min_delay": 1,
    "max_delay": 20,
    "max_gap": 20,
}

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "memspan/Corridor-v0": {**_CORRIDOR, "kwargs": {"shuffle_doors": False}},
    "memspan/CorridorShuffled-v0": {**_CORRIDOR, "kwargs": {"shuffle_doors": True}},
    "memspan/Portal-v0": {**_PORTAL, "kwargs": {"num_rooms": 10}},
    "memspan/PortalLong-v0": {**_PORTAL, "kwargs": {"num_rooms": 50}},
    "memspan/PortalLabelled-v0": {**_PORTAL, "kwargs": {"num_rooms": 10, "room_labels": True}},
    "memspan/Instruction-v0": {**_INSTRUCTION, "kwargs": {"min_delay": 10, "max_delay": 40}},
    "memspan/InstructionSmall-v0": {**_INSTRUCTION, "kwargs": _SMALL_INSTRUCTION},
    "memspan/InstructionLong-v0": {**_INSTRUCTION, "kwargs": {"min_delay": 70, "max_delay": 120}},
}
"""Every id and what `gymnasium.register` is told about it."""


def with_images(form: type[CentredViewEnv]) -> Callable[..., gym.Env[Any, Any]]:
    """A maker of the form to read with the image alone as its observation, as the engine has it."""

    def make(**kwargs: Any) -> gym.Env[Any, Any]:
        return ImgObsWrapper(form(**kwargs))  # type: ignore[no-untyped-call]

    return make


# By name, because specs that are written to JSON name their entry points.
make_corridor = with_images(CorridorEnv)
make_portal = with_images(PortalEnv)


def register_envs() -> None:
    """Registers every id that is not registered yet; calling it again changes nothing."""
    for env_id, spec in ENVIRONMENTS.items():
        if env_id not in gym.registry:
            register(env_id, **spec)
