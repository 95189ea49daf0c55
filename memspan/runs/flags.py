"""Flags of `memspan train`: `RunConfig`'s fields, and the settings of the chosen environment and memory."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from typing import Annotated, Any, cast, get_type_hints

import tyro
from gymnasium.envs.registration import EnvSpec

from memspan.envs import ENVIRONMENTS
from memspan.memory import MEMORIES, MemoryConfig, make_config, memory_class
from memspan.runs.config import COMMON, FIELDS, RunConfig
from memspan.runs.environments import check_settings, constructor, environment_settings, environment_spec
from memspan.runs.presets import preset

_FLAG_TYPES: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "int | None": int | None,
    "float | None": float | None,
    "str | None": str | None,
}
"""Annotation, or type of the default -> what a flag is read as."""


HELP_ALL = "--help-all"


def find_flag(args: Sequence[str], flag: str, default: str) -> str:
    """The last value that `args` gives to `flag`, as `--flag value` or `--flag=value`."""
    value = default
    for index, arg in enumerate(args):
        if arg == flag and index + 1 < len(args):
            value = args[index + 1]
        elif arg.startswith(f"{flag}="):
            value = arg.partition("=")[2]
    return value


def parse(args: Sequence[str], prog: str) -> RunConfig:
    """The config that the flags ask for, on top of the preset of environment and memory.

    Which flags there are depends on `--env` and `--memory`, so these two are looked for first.

    Raises:
        ValueError: environment, memory or a preset's key is unknown.
        SystemExit: help was asked for, or a flag is wrong.
    """
    env = find_flag(args, "--env", RunConfig.env)
    memory = find_flag(args, "--memory", RunConfig.memory)
    spec = environment_spec(env)
    settings = preset(env, memory)
    env_settings = environment_flags(spec, settings.pop("env_kwargs"))
    memory_settings = _memory_settings(memory, settings.pop("memory_kwargs"))
    for name, group in (("env", env_settings), ("memory", memory_settings)):
        _check_names(args, f"--{name}.", group, env if name == "env" else f"memory {memory!r}")
    args = list(args)
    if any(arg in ("-h", "--help") for arg in args) and HELP_ALL not in args:
        common = _common_settings()
        tyro.cli(
            common,
            prog=prog,
            description=_short_description(env, memory),
            default=common(**settings),
            args=args,
        )
    flags = flag_class(RunConfig, env_settings, memory_settings)
    parsed: Any = tyro.cli(
        flags,
        prog=prog,
        description=_description(env, memory),
        default=flags(RunConfig(**settings), env_settings, memory_settings),
        args=["--help" if arg == HELP_ALL else arg for arg in args],
    )
    run: RunConfig = parsed.run
    return dataclasses.replace(
        run,
        env_kwargs=chosen_settings(spec, parsed.env),
        memory_kwargs=dataclasses.asdict(parsed.memory),
    )


def flag_class(run: type[RunConfig], env_settings: Any, memory_settings: Any) -> Any:
    """A dataclass of all flags: those of a run, and `env.` and `memory.` with the settings of the two."""
    return dataclasses.make_dataclass(
        "Flags",
        [
            ("run", Annotated[run, tyro.conf.arg(name="")]),
            ("env", type(env_settings)),
            ("memory", type(memory_settings)),
        ],
    )


def _common_settings() -> Any:
    """`RunConfig` with all but the common settings hidden."""
    hints = get_type_hints(RunConfig, include_extras=True)
    hidden = {
        name: tyro.conf.Suppress[hints[name]]  # type: ignore[misc, valid-type]
        for name in FIELDS
        if name not in COMMON and not name.endswith("_kwargs")
    }
    return dataclasses.dataclass(frozen=True)(type("Common", (RunConfig,), {"__annotations__": hidden}))


def _check_names(args: Sequence[str], prefix: str, settings: Any, owner: str) -> None:
    """Refuses flags of settings that there are not, and says which there are.

    Raises:
        ValueError: names the flag.
    """
    known = [f"{prefix}{one.name.replace('_', '-')}" for one in dataclasses.fields(settings)]
    for arg in args:
        flag = arg.partition("=")[0].replace("_", "-")
        if flag.startswith(prefix) and flag not in known and flag.replace(".no-", ".") not in known:
            raise ValueError(f"{flag}: {owner} has no such setting; it has {', '.join(known) or 'none'}")


def _short_description(env: str, memory: str) -> str:
    # Lines that begin with a dash are lines of their own.
    return (
        "Train an agent with a memory; the run goes to a folder of its own. Below are the common settings, "
        f"with the defaults of {memory} on {env}. What there is else: memspan list.\n\n"
        f"{HELP_ALL}: all settings, those of memory and environment included\n"
        f"--memory NAME --env ID {HELP_ALL}: those of another pair\n"
        "--resume FOLDER: go on with a run that was stopped\n"
        "--wandb PROJECT: show the run in Weights & Biases, too"
    )


def _description(env: str, memory: str) -> str:
    return (
        "Train an agent with a memory; the run goes to a folder of its own. "
        f"What follows are the settings of {memory} on {env}, with the defaults for the two. "
        "Those of another: memspan train --memory NAME --env ID --help-all.\n\n"
        f"Memories: {', '.join(sorted(MEMORIES))}.\n"
        f"Environments: {', '.join(ENVIRONMENTS)}, and every other Gymnasium id.\n\n"
        "Go on with a run that was stopped: memspan train --resume FOLDER. "
        "Show a run in Weights & Biases, too: --wandb PROJECT."
    )


def _memory_settings(memory: str, preset_settings: dict[str, Any]) -> MemoryConfig:
    """The memory's config with the preset's values, of a type that is unchecked until all flags are read."""
    make_config(memory, preset_settings)
    config = memory_class(memory).Config
    unchecked = type(
        config.__name__, (config,), {"__post_init__": lambda self: None, "__doc__": config.__doc__}
    )
    return cast(MemoryConfig, unchecked(**preset_settings))


def environment_flags(spec: EnvSpec, preset_settings: dict[str, Any]) -> Any:
    """A dataclass of what can be set on the command line: numbers, text and yes or no."""
    check_settings(spec, preset_settings)
    fields: list[tuple[str, Any, Any]] = []
    for name, parameter in environment_settings(spec).items():
        kind = _flag_type(parameter)
        if kind is not None:
            value = preset_settings.get(name, parameter.default)
            fields.append((name, kind, dataclasses.field(default=value)))
    settings = dataclasses.make_dataclass("EnvironmentSettings", fields)
    # What the constructor's docstring says about its arguments is the flags' help.
    arguments = re.search(r"^Args:\n(?: +.*\n?)+", inspect.getdoc(constructor(spec)) or "", re.MULTILINE)
    settings.__doc__ = f"Settings of `{spec.id}`.\n\n{arguments[0] if arguments else ''}"
    return settings()


def chosen_settings(spec: EnvSpec, parsed: Any) -> dict[str, Any]:
    """What `environment_flags` were given that differs from the environment's own defaults."""
    chosen = {one.name: getattr(parsed, one.name) for one in dataclasses.fields(parsed)}
    defaults = environment_settings(spec)
    return {name: value for name, value in chosen.items() if value != defaults[name].default}


def _flag_type(parameter: inspect.Parameter) -> Any:
    """What a flag is read as, None if it can be none."""
    if parameter.default is parameter.empty:
        return None
    annotation = parameter.annotation
    if isinstance(annotation, type):
        annotation = annotation.__name__
    return _FLAG_TYPES.get(str(annotation)) or _FLAG_TYPES.get(type(parameter.default).__name__)
