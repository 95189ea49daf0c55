"""Agents on Stable-Baselines3 whose policy has a memory."""

from memspan.agents.a2c import MemoryA2C
from memspan.agents.masks import MaskedPredictor
from memspan.agents.observe_previous import ObservePrevious
from memspan.agents.policy import MemoryPolicy
from memspan.agents.ppo import MemoryPPO
from memspan.agents.vec_env import VecEnvAdapter

__all__ = ["MaskedPredictor", "MemoryA2C", "MemoryPPO", "MemoryPolicy", "ObservePrevious", "VecEnvAdapter"]
