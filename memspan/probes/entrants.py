"""Which memories a probe compares, and settings that let each reach far enough."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from memspan.memory import Memory, make_config, make_memory, memory_class

SLACK = 1.25
"""A learnt span only comes near the longest one."""


@dataclass(frozen=True)
class Entrant:
    """A memory and those of its settings that were asked for."""

    memory: str
    """Name, or module:Class."""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name without the module."""
        return self.memory.rpartition(":")[2]

    @property
    def label(self) -> str:
        """The settings in words; empty where there are none."""
        return ", ".join(f"{key}={value}" for key, value in self.settings.items())


def parse_entrant(text: str) -> Entrant:
    """Reads `NAME` or `NAME,key=value,key=value`; values are YAML.

    Raises:
        ValueError: the memory or one of its settings is unknown, or has a value that is not allowed.
    """
    memory, *given = text.split(",")
    memory_class(memory)
    settings: dict[str, Any] = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals:
            raise ValueError(f"memory={text!r}: what follows the name must be key=value, not {one!r}")
        try:
            settings[key.strip().replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"memory={text!r}: {one!r} is no YAML") from None
    try:
        make_config(memory, settings)
    except TypeError as error:
        raise ValueError(f"memory={text!r}: a setting is of the wrong kind ({error})") from None
    return Entrant(memory, settings)


def far_enough(entrant: Entrant, width: int, n_steps: int) -> dict[str, Any]:
    """Settings with which the memory can reach back over `n_steps` steps.

    A setting that was asked for is left alone, and so is one that already reaches that far. Of the others,
    by the names of a config's fields, whatever the memory:

        longest_dependency   n_steps
        max_span             n_steps and a quarter more, as spans only come near the longest
        memory_size          n_steps, where the memory holds a window of that size and nothing else
        compressed_size      so that memory_size + compression_rate compressed_size is n_steps
        n_levels             so that memory_size + 2 ** (n_levels - 1) is n_steps

    Raises:
        ValueError: no such memory can be built at this width.
    """
    settings = dict(entrant.settings)
    for name, needed in _NEEDED.items():
        config = dataclasses.asdict(make_config(entrant.memory, settings))
        if name in config and name not in entrant.settings:
            memory = make_memory(entrant.memory, width, settings)
            settings[name] = max(config[name], needed(config, memory, n_steps))
    make_memory(entrant.memory, width, settings)
    return {
        key: value
        for key, value in settings.items()
        if key in entrant.settings or _moved(entrant, key, value)
    }


def _moved(entrant: Entrant, key: str, value: Any) -> bool:
    return bool(value != getattr(make_config(entrant.memory, entrant.settings), key))


def _window(config: dict[str, Any], memory: Memory, n_steps: int) -> int:
    # What holds more than its window reaches back in another way, too.
    return n_steps if memory.capacity == config["memory_size"] else 0


def _compressed(config: dict[str, Any], memory: Memory, n_steps: int) -> int:
    if not {"memory_size", "compression_rate"} <= config.keys():
        return 0
    rest: int = n_steps - config["memory_size"]
    return math.ceil(rest / int(config["compression_rate"]))


def _levels(config: dict[str, Any], memory: Memory, n_steps: int) -> int:
    if "memory_size" not in config:
        return 0
    rest: int = n_steps - config["memory_size"]
    return math.ceil(math.log2(max(rest, 1))) + 1


_NEEDED: dict[str, Callable[[dict[str, Any], Memory, int], int]] = {
    "longest_dependency": lambda config, memory, n_steps: max(n_steps, 3),
    "max_span": lambda config, memory, n_steps: math.ceil(SLACK * n_steps),
    "memory_size": _window,
    "compressed_size": _compressed,
    "n_levels": _levels,
}
"""Field -> the smallest value with which the memory reaches back over n_steps."""
