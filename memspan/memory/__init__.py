"""Memories: torsos that carry a state through time, one file per paper."""

from memspan.memory import (  # noqa: F401  (they register)
    adaptive_span,
    compressive,
    expire_span,
    gated_transformer_xl,
    gru,
    infinity_former,
    linear_attention,
    lstm,
    none,
    refresh_span,
    state_space,
    summary_tree,
    transformer_xl,
)
from memspan.memory.base import (
    Memory,
    MemoryConfig,
    MemoryOutput,
    ParameterGroup,
    Remembered,
    State,
    clone_state,
    optimizer_groups,
    select_rows,
    state_bytes,
)
from memspan.memory.registry import MEMORIES, make_config, make_memory, memory_class, register
from memspan.memory.rules import check_rules
from memspan.memory.spread import over_all

__all__ = [
    "MEMORIES",
    "Memory",
    "MemoryConfig",
    "MemoryOutput",
    "ParameterGroup",
    "Remembered",
    "State",
    "check_rules",
    "clone_state",
    "make_config",
    "make_memory",
    "memory_class",
    "optimizer_groups",
    "over_all",
    "register",
    "select_rows",
    "state_bytes",
]
