"""The runs of a sweep: environments times memories times settings times seeds."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memspan.evaluate import check_seeds
from memspan.memory import make_config
from memspan.runs import RunConfig, preset, run_folder
from memspan.runs.beyond import check_type
from memspan.runs.checks import check_config
from memspan.runs.config import FIELDS
from memspan.runs.environments import check_settings, environment_settings, environment_spec
from memspan.sweeps.file import RunEntry, SweepFile

_ELSEWHERE = {
    "env": "is a field of the file, env or envs",
    "memory": "is a field of each of the runs",
    "seed": "is a field of the file, seeds",
    "run_dir": "is a flag, --run-dir",
    "name": "is a field of each of the runs",
    "env_kwargs": "write env.NAME for each of the environment's settings",
    "memory_kwargs": "write memory.NAME for each of the memory's settings",
}
"""Fields of `RunConfig` that are no settings of a sweep."""
_SETTINGS = tuple(name for name in FIELDS if name not in _ELSEWHERE)


@dataclass(frozen=True)
class SweepRun:
    """One run: its settings, its folder, and what it needs of a machine."""

    config: RunConfig
    folder: Path
    """Absolute."""
    cpus: float
    gpus: float

    @property
    def name(self) -> str:
        """The folder's name between environment and seed."""
        return self.folder.parent.name

    @property
    def env(self) -> str:
        """The environment, in short: the name of its folder."""
        return self.folder.parent.parent.name

    @property
    def title(self) -> str:
        """The folder below the folder of all runs."""
        return f"{self.env}/{self.name}/{self.config.seed}"


def expand(sweep: SweepFile, run_dir: Path, here: bool = True) -> list[SweepRun]:
    """All runs, checked.

    Args:
        sweep: the file.
        run_dir: where their folders go.
        here: whether they run on this machine, so that their devices can be looked for.

    Raises:
        ValueError: names the place in the file, the setting, its value and what is allowed.
    """
    _check_shared(sweep)
    runs: dict[Path, tuple[SweepRun, str]] = {}
    for env, entry in itertools.product(sweep.envs, sweep.runs):
        for chosen in _grid(entry.grid):
            where = f"{entry.where} ({entry.memory} on {env.env})"
            try:
                shared = _of_memory(sweep.settings, entry.memory) | _of_memory(env.settings, entry.memory)
                config = _config(env.env, entry.memory, shared | entry.settings | chosen)
                config = dataclasses.replace(config, run_dir=run_dir, name=_name(entry, chosen))
                for seed in sweep.seeds:
                    run = _run(dataclasses.replace(config, seed=seed), entry)
                    _check(run, sweep, here)
                    if run.folder in runs:
                        raise ValueError(
                            f"name={run.name!r}: {runs[run.folder][1]} has this name, too; "
                            "must be another one for each of the runs in an environment"
                        )
                    runs[run.folder] = run, where.removeprefix(f"{sweep.path.name}: ")
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
    return [run for run, _ in runs.values()]


def _grid(grid: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _run(config: RunConfig, entry: RunEntry) -> SweepRun:
    cpus = entry.resources.get("cpus", config.threads)
    return SweepRun(config, run_folder(config).absolute(), cpus, entry.resources.get("gpus", 0))


def _check(run: SweepRun, sweep: SweepFile, here: bool) -> None:
    """Raises ValueError for what can be known to go wrong."""
    device = run.config.device
    if device not in ("auto", "cpu") and not run.gpus:
        raise ValueError(f"device={device!r}: must be auto or cpu where resources ask for no gpus")
    check_config(run.config if here else dataclasses.replace(run.config, device="auto"))
    options = sweep.evaluation_options(run.folder)
    options.validate()
    check_seeds(run.config, options, str(run.folder))


def _check_shared(sweep: SweepFile) -> None:
    """Refuses settings of a memory that none of the runs has.

    Raises:
        ValueError: names the setting.
    """
    memories = {entry.memory for entry in sweep.runs}
    for where, settings in (
        (f"{sweep.path.name}: settings", sweep.settings),
        *((f"{env.where}: settings", env.settings) for env in sweep.envs),
    ):
        for key, value in settings.items():
            if key.startswith("memory.") and not any(_of_memory({key: value}, one) for one in memories):
                raise ValueError(f"{where}: {key}={value!r}: none of the runs' memories has such a setting")


def _of_memory(settings: Mapping[str, Any], memory: str) -> dict[str, Any]:
    """Shared settings but for those of other memories."""
    known = {f"memory.{one.name}" for one in dataclasses.fields(make_config(memory))}
    return {key: value for key, value in settings.items() if not key.startswith("memory.") or key in known}


def _config(env: str, memory: str, settings: Mapping[str, Any]) -> RunConfig:
    """As `memspan train` makes it from the same settings: on top of the preset.

    Raises:
        ValueError: there is no such environment, memory or setting.
    """
    spec = environment_spec(env)
    fields = preset(env, memory)
    env_kwargs, memory_kwargs = dict(fields.pop("env_kwargs")), dict(fields.pop("memory_kwargs"))
    defaults = environment_settings(spec)
    for key, value in settings.items():
        owner, dot, name = key.partition(".")
        if dot and owner == "env":
            check_settings(spec, {name: value})
            check_type(key, value, defaults[name].default if name in defaults else None)
            env_kwargs[name] = value
        elif dot and owner == "memory":
            make_config(memory, {name: value})
            memory_kwargs[name] = value
        elif key in _SETTINGS:
            fields[key] = value
        else:
            near = difflib.get_close_matches(key, _SETTINGS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"must be env.NAME, memory.NAME or {_listed()}"
            what = _ELSEWHERE.get(key, f"no such setting; {hint}")
            raise ValueError(f"{key}={value!r}: {what}")
    told = {
        name: value
        for name, value in env_kwargs.items()
        if name not in defaults or value != defaults[name].default
    }
    spelt_out = dataclasses.asdict(make_config(memory, memory_kwargs))
    return RunConfig(**fields, env_kwargs=told, memory_kwargs=spelt_out)


def _listed() -> str:
    return f"one of {', '.join(_SETTINGS)}"


def _name(entry: RunEntry, chosen: Mapping[str, Any]) -> str | None:
    """The folder's name: None for the memory's own, else as given, with what the grid has chosen.

    Raises:
        ValueError: the pattern names a setting that is not in the grid.
    """
    values = {_short(key, chosen): _text(value) for key, value in chosen.items()}
    name = entry.name
    if name is not None and any(part is not None for _, part, _, _ in string.Formatter().parse(name)):
        try:
            return name.format(**values)
        except (KeyError, IndexError, AttributeError):
            allowed = ", ".join(f"{{{key}}}" for key in values) or "none, without a grid"
            raise ValueError(f"name={name!r}: what may stand in braces is {allowed}") from None
    if not values:
        return name
    base = name if name is not None else entry.memory.rpartition(":")[2]
    return f"{base}-{','.join(f'{key}={value}' for key, value in values.items())}"


def _short(key: str, keys: Iterable[str]) -> str:
    """Without env. or memory., unless two settings would then be called the same."""
    last = key.rpartition(".")[2]
    return key if sum(other.rpartition(".")[2] == last for other in keys) > 1 else last


def _text(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
