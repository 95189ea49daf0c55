"""Tuned settings per environment and memory, from the YAML files in `memspan/presets`.

memspan/Corridor-v0:
  default:            # for every memory
    gamma: 0.995
  expire-span:        # goes over `default`
    memory_kwargs: {max_span: 256}
"""

from __future__ import annotations

import dataclasses
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from memspan.runs.config import RunConfig
from memspan.runs.folder import check_keys

_NOT_PRESET = ("env", "memory", "seed", "run_dir", "name")


@cache
def preset_blocks() -> dict[str, dict[str, dict[str, Any]]]:
    """Environment -> memory or `default` -> settings, of all presets that come with the package."""
    return read_presets(resources.files("memspan").joinpath("presets"))


def read_presets(folder: Traversable) -> dict[str, dict[str, dict[str, Any]]]:
    """The presets in a folder's YAML files.

    Raises:
        ValueError: a block has an unknown key, or an environment is in two files.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for file in folder.iterdir():
        if not file.name.endswith(".yaml"):
            continue
        for env, blocks in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).items():
            if env in found:
                raise ValueError(f"presets/{file.name}: {env} has presets in another file already")
            for memory, settings in blocks.items():
                where = f"presets/{file.name}: {env}: {memory}"
                check_keys(settings, where)
                for key in _NOT_PRESET:
                    if key in settings:
                        raise ValueError(f"{where}: {key}={settings[key]!r}: cannot be preset")
            found[env] = blocks
    return found


def preset(env: str, memory: str) -> dict[str, Any]:
    """Every setting of a run of `memory` on `env`: general defaults, the environment's, the memory's.

    `RunConfig(**preset(env, memory))` is what `memspan train` starts from.
    """
    config = RunConfig(env=env, memory=memory)
    settings = {one.name: getattr(config, one.name) for one in dataclasses.fields(config)}
    blocks = preset_blocks().get(env.rpartition(":")[2], {})
    for name in ("default", memory):
        for key, value in blocks.get(name, {}).items():
            settings[key] = {**settings[key], **value} if key.endswith("_kwargs") else value
    return settings
