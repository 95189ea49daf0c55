"""memspan: how much memory does success cost?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# pygame, which MiniGrid draws with, would print a banner into the output of every command.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

from memspan.envs import register_envs

if TYPE_CHECKING:
    from memspan.agents import MemoryA2C, MemoryPPO, VecEnvAdapter

__version__ = "0.1.0"
__all__ = ["MemoryA2C", "MemoryPPO", "VecEnvAdapter", "__version__", "register_envs"]

register_envs()


def __getattr__(name: str) -> Any:
    # Agents need torch, which takes seconds to import; environments do not.
    if name in ("MemoryA2C", "MemoryPPO", "VecEnvAdapter"):
        from memspan import agents

        return getattr(agents, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
