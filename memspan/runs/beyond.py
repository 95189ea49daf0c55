"""Other settings for an agent than it was trained with: `--env.max-length 1000 --memory.max-span 1280`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from memspan.memory import make_config
from memspan.runs.environments import check_settings, environment_settings, environment_spec
from memspan.runs.folder import load_config

PREFIXES = ("env", "memory")
FOLDER = "beyond"


@dataclass(frozen=True)
class Beyond:
    """Settings that go over those of a run."""

    env_kwargs: dict[str, Any] = field(default_factory=dict)
    memory_kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where results go, below the run's folder: the run's own if nothing is different."""
        told = {**self.env_kwargs, **self.memory_kwargs}
        parts = (f"{name}={value}".replace("/", "%2F") for name, value in told.items())
        return Path(FOLDER, ",".join(parts)) if told else Path()


TRAINED = Beyond()


def split_settings(args: Sequence[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Takes `--env.NAME VALUE` and `--memory.NAME VALUE` out of a command line.

    Returns:
        Settings of "env" and of "memory" by name, values read as YAML; and all other arguments.

    Raises:
        ValueError: a flag without a value, or with none that can be read.
    """
    settings: dict[str, dict[str, Any]] = {prefix: {} for prefix in PREFIXES}
    others: list[str] = []
    rest = iter(args)
    for arg in rest:
        flag, equals, value = arg.partition("=")
        prefix, dot, name = flag.removeprefix("--").partition(".")
        if not (flag.startswith("--") and dot and prefix in PREFIXES):
            others.append(arg)
            continue
        told = value if equals else next(rest, None)
        if told is None or (told.startswith("--") and not equals):
            raise ValueError(f"{flag}: needs a value")
        settings[prefix][name.replace("-", "_")] = _value(flag, told)
    return settings, others


def _value(flag: str, text: str) -> Any:
    """As in a sweep's file: YAML, with 1e-3 as a number.

    Raises:
        ValueError: it is no YAML.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"{flag}={text!r}: must be a value in YAML") from None
    try:
        return float(value) if isinstance(value, str) and "e" in value.lower() else value
    except ValueError:
        return value


def settings_by_run(folders: Iterable[Path], settings: Mapping[str, Mapping[str, Any]]) -> dict[Path, Beyond]:
    """What of the settings applies to each run: of the memory's, those that it has.

    Raises:
        ValueError: a setting that an environment, or every memory, does not have, or with a value that is not
            allowed.
    """
    if not any(settings.values()):  # then a memory or an environment that is not at hand need not be
        return dict.fromkeys(folders, TRAINED)
    found: dict[Path, Beyond] = {}
    known: set[str] = set()
    for folder in folders:
        config = load_config(folder)
        spec = environment_spec(config.env)
        check_settings(spec, settings["env"])
        defaults = environment_settings(spec)
        for name, value in settings["env"].items():
            check_type(f"env.{name}", value, defaults[name].default if name in defaults else None)
        memory = make_config(config.memory, config.memory_kwargs)
        own = {one.name: getattr(memory, one.name) for one in dataclasses.fields(memory)}
        known |= own.keys()
        chosen = {name: value for name, value in settings["memory"].items() if name in own}
        for name, value in chosen.items():
            check_type(f"memory.{name}", value, own[name])
        make_config(config.memory, config.memory_kwargs | chosen)
        found[folder] = Beyond(dict(settings["env"]), chosen)
    for name, value in settings["memory"].items():
        if name not in known:
            raise ValueError(
                f"memory.{name}={value!r}: none of these runs has such a setting; they have "
                f"{', '.join(sorted(known)) or 'none'}"
            )
    return found


def check_type(name: str, value: Any, like: Any) -> None:
    """Refuses text where there was a number, and the like."""
    numbers = (int, float)
    if isinstance(like, bool) or not isinstance(like, numbers):
        allowed: tuple[type, ...] = () if like is None else (type(like),)
    else:
        allowed = numbers if isinstance(like, float) else (int,)
    if allowed and (not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed)):
        raise ValueError(f"{name}={value!r}: must be of type {allowed[0].__name__}")
