"""Memories by name: `register` adds one, `make_memory` builds one from plain settings."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from memspan.memory.base import Memory, MemoryConfig
from memspan.memory.rules import check_rules

MEMORIES: dict[str, type[Memory]] = {}
"""Name -> class; `register` adds to it."""

M = TypeVar("M", bound=type[Memory])


def register(name: str) -> Callable[[M], M]:
    """Class decorator that makes a memory known as `name`.

    Raises:
        ValueError: another class has the name.
    """

    def add(memory_class: M) -> M:
        if name in MEMORIES and MEMORIES[name] is not memory_class:
            raise ValueError(f"memory={name!r}: already registered as {MEMORIES[name].__name__}")
        MEMORIES[name] = memory_class
        return memory_class

    return add


def memory_class(name: str) -> type[Memory]:
    """The class registered as `name`, or the one at `module:Class`.

    Raises:
        ValueError: there is none, or it is no `Memory`.
    """
    if name in MEMORIES:
        return MEMORIES[name]
    module, colon, attribute = name.partition(":")
    if colon:
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"memory={name!r}: cannot be imported ({error})") from None
        if isinstance(found, type) and issubclass(found, Memory):
            return found
        raise ValueError(f"memory={name!r}: must be a subclass of memspan.memory.Memory")
    if name.endswith(".py"):
        raise ValueError(f"memory={name!r}: must be module:Class, like {name.removesuffix('.py')}:MyMemory")
    raise ValueError(
        f"memory={name!r}: unknown; must be one of {', '.join(sorted(MEMORIES))}, or module:Class"
    )


def make_config(name: str, settings: dict[str, Any] | None = None) -> MemoryConfig:
    """The checked config of memory `name`.

    Raises:
        ValueError: the memory or a setting is unknown, or a setting has a value that is not allowed.
    """
    config = memory_class(name).Config
    settings = settings or {}
    known = [field.name for field in dataclasses.fields(config)]
    for key in settings:
        if key not in known:
            raise ValueError(
                f"{key}={settings[key]!r}: memory {name!r} has no such setting; "
                f"it has {', '.join(known) or 'none'}"
            )
    return config(**settings)


def make_memory(name: str, width: int, settings: dict[str, Any] | None = None) -> Memory:
    """Builds memory `name` of the given width from plain settings.

    Raises:
        ValueError: as for `make_config`, or the settings do not suit the width, or a memory that is not
            registered breaks a rule (`check_rules`).
    """
    config = make_config(name, settings)
    memory = memory_class(name)(width, config)  # type: ignore[call-arg]
    if name not in MEMORIES:
        check_rules(memory)
    return memory
