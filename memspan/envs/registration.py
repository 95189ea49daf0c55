"""Ids of the environments, in one table, and their registration with Gymnasium."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.envs.registration import register

if TYPE_CHECKING:
    from memspan.envs.centred_view import CentredViewEnv

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


SUMMARIES = {
    "memspan/Corridor-v0": "one bit, for 3 to 200 steps",
    "memspan/CorridorShuffled-v0": "one bit, to be compared with what is seen last",
    "memspan/Portal-v0": "the right doors of 10 rooms, by trial and error",
    "memspan/PortalLong-v0": "the right doors of 50 rooms",
    "memspan/PortalLabelled-v0": "the right doors of 10 rooms, which are labelled",
    "memspan/Instruction-v0": "3 instructions, each for 10 to 40 sentences",
    "memspan/InstructionSmall-v0": "2 instructions of 4, each for 1 to 20 sentences",
    "memspan/InstructionLong-v0": "3 instructions, each for 70 to 120 sentences",
}
"""What must be remembered."""


def make_corridor(**kwargs: Any) -> gym.Env[Any, Any]:
    """The Corridor to read, with the image alone as its observation."""
    from memspan.envs.corridor import CorridorEnv

    return _image_alone(CorridorEnv(**kwargs))


def make_portal(**kwargs: Any) -> gym.Env[Any, Any]:
    """The Portal to read, with the image alone as its observation."""
    from memspan.envs.portal import PortalEnv

    return _image_alone(PortalEnv(**kwargs))


def _image_alone(env: CentredViewEnv) -> gym.Env[Any, Any]:
    # The engine has no other. MiniGrid takes long to import: not before an environment is made.
    from minigrid.wrappers import ImgObsWrapper

    return ImgObsWrapper(env)  # type: ignore[no-untyped-call]


def register_envs() -> None:
    """Registers every id that is not registered yet; calling it again changes nothing."""
    for env_id, spec in ENVIRONMENTS.items():
        if env_id not in gym.registry:
            register(env_id, **spec)
