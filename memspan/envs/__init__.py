"""What agents live in: every task as a MiniGrid environment to read and as a vector engine to train on."""

from memspan.envs.corridor import CorridorEnv
from memspan.envs.corridor_engine import CorridorVectorEnv
from memspan.envs.registration import ENVIRONMENTS, register_envs
from memspan.envs.scripted import ScriptedCorridorPolicy

__all__ = [
    "ENVIRONMENTS",
    "CorridorEnv",
    "CorridorVectorEnv",
    "ScriptedCorridorPolicy",
    "register_envs",
]
