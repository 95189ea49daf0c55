"""What stands in a sweep's file; the format is described in docs/sweeps.md."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from memspan.evaluate import Options

Rule = tuple[Callable[[Any], bool], str]
"""Whether a value is allowed, and what is."""


@dataclass(frozen=True)
class EnvEntry:
    """An environment, and settings of the runs in it."""

    env: str
    settings: dict[str, Any]
    where: str
    """Its place in the file, for messages."""


@dataclass(frozen=True)
class RunEntry:
    """A memory with settings; as many runs as its grid, times environments and seeds."""

    memory: str
    name: str | None
    settings: dict[str, Any]
    grid: dict[str, list[Any]]
    resources: dict[str, float]
    where: str
    """Its place in the file, for messages."""


@dataclass(frozen=True)
class SweepFile:
    """A sweep's file, its fields of the right types; settings are checked where runs are made of them."""

    path: Path
    envs: tuple[EnvEntry, ...]
    seeds: tuple[int, ...]
    runs: tuple[RunEntry, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    """Of all runs."""
    evaluation: dict[str, Any] = field(default_factory=dict)
    """Options of `memspan evaluate`."""
    retries: int = 3
    """How often a run that has crashed is gone on with."""
    report: bool = False
    """Whether a report is made at the end."""

    def evaluation_options(self, *folders: Path) -> Options:
        """As `memspan evaluate` would have them for these runs."""
        return Options(runs=folders, **self.evaluation)


def read_sweep(path: Path) -> SweepFile:
    """Reads and checks a file.

    Raises:
        ValueError: names the field, its value and what is allowed.
    """
    content = _load(path)
    where = path.name
    _check(content, _FIELDS, where, required=("runs",))
    if ("env" in content) == ("envs" in content):
        raise ValueError(f"{where}: must have either env or envs: an environment's id, or a list of them")
    envs = content["envs"] if "envs" in content else [content["env"]]
    resources = content.get("resources", {})
    _check(resources, _RESOURCES, f"{where}: resources")
    evaluation = content.get("evaluation", {})
    _check(evaluation, _EVALUATION, f"{where}: evaluation")
    return SweepFile(
        path=path,
        envs=tuple(_env(one, f"{where}: envs[{i}]") for i, one in enumerate(envs)),
        seeds=tuple(content.get("seeds", (0,))),
        runs=tuple(_run(one, resources, f"{where}: runs[{i}]") for i, one in enumerate(content["runs"])),
        settings=content.get("settings", {}),
        evaluation=evaluation,
        retries=content.get("retries", SweepFile.retries),
        report=content.get("report", SweepFile.report),
    )


def _env(entry: Any, where: str) -> EnvEntry:
    if isinstance(entry, str):
        return EnvEntry(entry, {}, where)
    _check(entry, {"env": _TEXT, "settings": _SETTINGS}, where, required=("env",))
    return EnvEntry(entry["env"], entry.get("settings", {}), where)


def _run(entry: Any, resources: dict[str, float], where: str) -> RunEntry:
    _check(entry, _RUN, where, required=("memory",))
    own = entry.get("resources", {})
    _check(own, _RESOURCES, f"{where}: resources")
    grid = entry.get("grid", {})
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"{where}: grid: {key}={values!r}: must be a list of values, one or more")
    return RunEntry(
        entry["memory"], entry.get("name"), entry.get("settings", {}), grid, resources | own, where
    )


def _check(content: Any, rules: Mapping[str, Rule], where: str, required: tuple[str, ...] = ()) -> None:
    """Raises ValueError unless `content` has known fields of the right kind, and all that are required."""
    if not isinstance(content, dict):
        raise ValueError(f"{where}: {content!r}: must be fields by name: {', '.join(rules)}")
    for key, value in content.items():
        if key not in rules:
            near = difflib.get_close_matches(str(key), rules, n=1)
            hint = f"did you mean {near[0]}?" if near else f"must be one of {', '.join(rules)}"
            raise ValueError(f"{where}: {key}={value!r}: no such field; {hint}")
        allowed, what = rules[key]
        if not allowed(value):
            raise ValueError(f"{where}: {key}={value!r}: must be {what}")
    for key in required:
        if key not in content:
            raise ValueError(f"{where}: {key} is missing; must be {rules[key][1]}")


def _is_integer(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _are_seeds(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_integer, value)) and 0 < len(value) == len({*value})


_TEXT: Rule = (lambda value: isinstance(value, str) and bool(value), "text")
_FLAG: Rule = (lambda value: isinstance(value, bool), "true or false")
_LIST: Rule = (lambda value: isinstance(value, list) and bool(value), "a list of at least one entry")
_SETTINGS: Rule = (
    lambda value: isinstance(value, dict) and all(isinstance(key, str) for key in value),
    "settings by name",
)
_FIELDS: dict[str, Rule] = {
    "env": (lambda value: isinstance(value, str | dict) and bool(value), "an environment's id"),
    "envs": _LIST,
    "seeds": (_are_seeds, "a list of different integers of at least 0, one or more"),
    "settings": _SETTINGS,
    "runs": (_LIST[0], "a list of runs, one or more, each with a memory"),
    "resources": _SETTINGS,
    "evaluation": _SETTINGS,
    "retries": (_is_integer, "an integer of at least 0"),
    "report": _FLAG,
}
_RUN: dict[str, Rule] = {
    "memory": _TEXT,
    "name": _TEXT,
    "settings": _SETTINGS,
    "grid": _SETTINGS,
    "resources": _SETTINGS,
}
_RESOURCES: dict[str, Rule] = {
    "cpus": (lambda value: _is_amount(value) and value > 0, "a number above 0"),
    # Ray shares one GPU among runs, but gives several whole.
    "gpus": (
        lambda value: _is_amount(value) and (value <= 1 or value == int(value)),
        "a number of at least 0, above 1 a whole one",
    ),
}
_EVALUATION: dict[str, Rule] = {
    "episodes": (lambda value: _is_integer(value, 1), "an integer of at least 1"),
    "seed": (_is_integer, "an integer of at least 0"),
    "n_envs": (lambda value: _is_integer(value, 1), "an integer of at least 1"),
    "checkpoint": (lambda value: value in ("last", "best"), "last or best"),
    "deterministic": _FLAG,
}


class _Loader(yaml.SafeLoader):
    """YAML, with 1e-3 as a number (YAML 1.1 wants 1.0e-3), and without a key that comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key} stands twice in one place", node.value[i][0].start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)


def _load(path: Path) -> Any:
    """Raises ValueError if there is no such file, or it is no YAML."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise ValueError(f"{path}{where}: not YAML ({error.problem})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML ({error})") from None
