"""What agents live in: every task as an environment to read and as a vector engine to train on.

The form to read is a MiniGrid environment, except for Instruction, which is made of sentences.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from memspan.envs.registration import ENVIRONMENTS, register_envs

if TYPE_CHECKING:
    from memspan.envs.corridor import CorridorEnv
    from memspan.envs.corridor_engine import CorridorVectorEnv
    from memspan.envs.instruction import InstructionEnv
    from memspan.envs.instruction_engine import InstructionVectorEnv
    from memspan.envs.portal import PortalEnv
    from memspan.envs.portal_engine import PortalVectorEnv
    from memspan.envs.scripted import ScriptedCorridorPolicy
    from memspan.envs.scripted_instruction import ScriptedInstructionPolicy
    from memspan.envs.scripted_portal import ScriptedPortalPolicy

__all__ = [
    "ENVIRONMENTS",
    "CorridorEnv",
    "CorridorVectorEnv",
    "InstructionEnv",
    "InstructionVectorEnv",
    "PortalEnv",
    "PortalVectorEnv",
    "ScriptedCorridorPolicy",
    "ScriptedInstructionPolicy",
    "ScriptedPortalPolicy",
    "register_envs",
]

_MODULES = {
    "CorridorEnv": "corridor",
    "CorridorVectorEnv": "corridor_engine",
    "InstructionEnv": "instruction",
    "InstructionVectorEnv": "instruction_engine",
    "PortalEnv": "portal",
    "PortalVectorEnv": "portal_engine",
    "ScriptedCorridorPolicy": "scripted",
    "ScriptedInstructionPolicy": "scripted_instruction",
    "ScriptedPortalPolicy": "scripted_portal",
}


def __getattr__(name: str) -> Any:
    # MiniGrid and numba take long to import; registering the ids needs neither.
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
