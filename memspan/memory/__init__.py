"""Memories: torsos that carry a state through time, one file per paper."""

from memspan.memory import expire_span, infinity_former, lstm, none, transformer_xl  # noqa: F401  (they register)
from memspan.memory.base import (
    MEMORIES,
    Memory,
    MemoryConfig,
    MemoryOutput,
    ParameterGroup,
    Remembered,
    State,
    clone_state,
    make_config,
    make_memory,
    memory_class,
    register,
    select_rows,
    state_bytes,
)

__all__ = [
    "MEMORIES",
    "Memory",
    "MemoryConfig",
    "MemoryOutput",
    "ParameterGroup",
    "Remembered",
    "State",
    "clone_state",
    "make_config",
    "make_memory",
    "memory_class",
    "register",
    "select_rows",
    "state_bytes",
]
