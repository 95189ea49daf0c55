"""`memspan --print-completion SHELL`: a script by which the shell completes commands and flags."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

SHELLS = ("bash", "zsh", "tcsh")


def print_completion(args: Sequence[str], commands: Mapping[str, tuple[str, str]]) -> int:
    """Prints the script for the shell that `args` name; returns the exit code.

    Raises:
        ValueError: it is none of `SHELLS`.
    """
    if len(args) != 1 or args[0] not in SHELLS:
        raise ValueError(f"--print-completion={' '.join(args)!r}: must be one of {', '.join(SHELLS)}")
    forms: list[Any] = []
    for name, (module, what) in commands.items():
        # A command whose libraries are not installed cannot be used, either.
        with contextlib.suppress(ModuleNotFoundError):
            form, default = _flags(name, importlib.import_module(module))
            options = {} if default is None else {"default": default}
            forms.append(Annotated[form, tyro.conf.subcommand(name, description=what, **options)])
    with contextlib.suppress(SystemExit):
        tyro.cli(
            reduce(or_, forms),
            prog="memspan",
            args=["--tyro-print-completion", args[0]],
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    return 0


def _flags(command: str, module: Any) -> tuple[Any, Any]:
    """What a command reads, and its defaults where the class has none."""
    if command == "train":
        return _train_flags()
    if command == "probe":
        forms = [Annotated[module.flag_class(name), tyro.conf.subcommand(name)] for name in module.PROBES]
        return reduce(or_, forms), None
    return module.Options, None


def _train_flags() -> tuple[Any, Any]:
    """Flags of a run, and the settings of all memories and environments."""
    from memspan.envs import ENVIRONMENTS
    from memspan.memory import MEMORIES
    from memspan.runs import RunConfig
    from memspan.runs.environments import environment_spec
    from memspan.runs.flags import environment_flags, flag_class

    memories = [memory.Config() for memory in MEMORIES.values()]
    environments = [environment_flags(environment_spec(env), {}) for env in ENVIRONMENTS]
    groups = [_merged("EnvironmentSettings", environments), _merged("MemorySettings", memories)]
    # These two are read apart from the settings.
    apart: list[tuple[str, Any, Any]] = [
        ("resume", Path | None, dataclasses.field(default=None)),
        ("wandb", str | None, dataclasses.field(default=None)),
    ]
    form = dataclasses.make_dataclass("Train", apart, bases=(flag_class(RunConfig, *groups),))
    return form, form(RunConfig(), *groups)


def _merged(name: str, settings: Sequence[Any]) -> Any:
    """All fields of several settings; of those with the same name, the first."""
    fields: dict[str, tuple[str, Any, Any]] = {}
    for one in settings:
        hints = get_type_hints(type(one))
        for field in dataclasses.fields(one):
            default = dataclasses.field(default=getattr(one, field.name))
            fields.setdefault(field.name, (field.name, hints[field.name], default))
    return dataclasses.make_dataclass(name, fields.values())()
