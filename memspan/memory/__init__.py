"""Memories: torsos that carry a state through time, one file per paper."""

from memspan.memory import (  # noqa: F401  (they register)
    adaptive_span,
    expire_span,
    gated_transformer_xl,
    gru,
    lstm,
    none,
    refresh_span,
    transformer_xl,
)
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
