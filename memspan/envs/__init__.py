"""What agents live in: every task as an environment to read and as a vector engine to train on.

The form to read is a MiniGrid environment, except for Instruction, which is made of sentences.
"""

from memspan.envs.corridor import CorridorEnv
from memspan.envs.corridor_engine import CorridorVectorEnv
from memspan.envs.instruction import InstructionEnv
from memspan.envs.instruction_engine import InstructionVectorEnv
from memspan.envs.portal import PortalEnv
from memspan.envs.portal_engine import PortalVectorEnv
from memspan.envs.registration import ENVIRONMENTS, register_envs
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
