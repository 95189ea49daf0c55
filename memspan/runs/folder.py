"""A run's folder: where it is, and what comes back out of it.

<run_dir>/<environment>/<name or memory>/<seed>/
    config.yaml                       every setting of the run
    events.out.tfevents.*             TensorBoard
    checkpoints/000000250000.safetensors   by timesteps, the last ones; the highest number is `last`
    checkpoints/best.safetensors      best rolling success rate, see `memspan.runs.callbacks`
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from memspan.runs.config import FIELDS, RunConfig

if TYPE_CHECKING:
    from memspan.agents import MemoryPPO

CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
BEST = "best.safetensors"
MOST_BYTES = 2**20
"""Of a config; YAML takes a second for each."""


def run_folder(config: RunConfig) -> Path:
    """Where the run goes: environments without module and namespace, memories without module."""
    env = config.env.rpartition(":")[2].rpartition("/")[2]
    memory = config.memory.rpartition(":")[2]
    return Path(config.run_dir) / env / (config.name or memory) / str(config.seed)


def save_config(config: RunConfig, folder: Path) -> None:
    """Makes the folder a run's folder; one that a killed run has left without a config is taken over.

    Raises:
        ValueError: it is one already.
    """
    from memspan.agents.files import write_atomically
    from memspan.runs.checkpoint import as_plain

    text = yaml.safe_dump(as_plain(config), sort_keys=False)
    try:
        write_atomically(
            folder / CONFIG, lambda name: Path(name).write_text(text, encoding="utf-8"), replace=False
        )
    except FileExistsError:
        raise ValueError(
            f"{folder}: this run exists already; go on with it by `memspan train --resume {folder}`, "
            "or choose another --run-dir, --name or --seed"
        ) from None


class _Loader(yaml.SafeLoader):
    """YAML without aliases: by them, a few lines could stand for more values than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias, which is not allowed", mark)
        return super().compose_node(parent, index)


def load_config(folder: Path | str) -> RunConfig:
    """The config of the run in `folder`.

    Raises:
        ValueError: it is no run's folder, or its config has unknown keys or values that are not allowed.
    """
    from memspan.runs.checks import check_fields

    path = Path(folder) / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} is not a run folder: no {CONFIG} in it")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes: must be at most {MOST_BYTES}")
        settings = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: must hold settings by name")
    check_keys(settings, str(path))
    if isinstance(settings.get("run_dir"), str):
        settings["run_dir"] = Path(settings["run_dir"])
    config = RunConfig(**settings)
    try:
        check_fields(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return config


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Every run folder that is named or lies below one that is named, once.

    Raises:
        ValueError: there is none in one of them.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        below = [path] if (path / CONFIG).is_file() else sorted(file.parent for file in path.rglob(CONFIG))
        if not below:
            load_config(path)  # says so
        for folder in below:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def check_keys(settings: Mapping[str, Any], where: str) -> None:
    """Raises ValueError for a key that is no field of `RunConfig`."""
    for key, value in settings.items():
        if key not in FIELDS:
            raise ValueError(f"{where}: {key}={value!r}: no such setting; must be one of {', '.join(FIELDS)}")


def numbered_checkpoints(folder: Path | str) -> list[Path]:
    """Checkpoints by timesteps, oldest first."""
    files = (Path(folder) / CHECKPOINTS).glob("*.safetensors")
    return sorted((file for file in files if file.stem.isdigit()), key=lambda file: int(file.stem))


def last_whole_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint to go on from, and what is wrong with those that were made after it.

    Returns:
        The path, None where there are no checkpoints, and a line for each that is damaged.

    Raises:
        ValueError: none of the checkpoints there are is whole, or one is of an unknown kind.
    """
    from memspan.runs.checkpoint import DamagedCheckpointError, read_info

    damaged: list[str] = []
    for path in reversed(numbered_checkpoints(folder)):
        try:
            read_info(path)
        except DamagedCheckpointError as error:
            damaged.append(str(error))
        else:
            return path, damaged
    if damaged:
        raise ValueError(damaged[0])
    return None, []


def checkpoint_path(folder: Path | str, which: Literal["last", "best"] = "last") -> Path:
    """The checkpoint of the run in `folder` that was made last, or had the best success rate.

    Raises:
        ValueError: there is none.
    """
    if which == "best":
        best = Path(folder) / CHECKPOINTS / BEST
        if best.is_file():
            return best
        raise ValueError(
            f"{folder}: has no best checkpoint; there is one once `stats_window_size` episodes have ended"
        )
    if which != "last":
        raise ValueError(f"which={which!r}: must be 'last' or 'best'")
    files = numbered_checkpoints(folder)
    if not files:
        raise ValueError(f"{folder}: has no checkpoint yet")
    return files[-1]


def load_model(
    folder: Path | str,
    which: Literal["last", "best"] = "last",
    device: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    memory_kwargs: Mapping[str, Any] | None = None,
) -> tuple[RunConfig, MemoryPPO]:
    """A run's config and its trained agent, with one environment, ready to act and to be evaluated.

    Args:
        folder: the run.
        which: the checkpoint, see `checkpoint_path`.
        device: in place of the one it was trained on.
        env_kwargs: in place of those that it was trained with.
        memory_kwargs: likewise; what has been learnt must fit, so a window may be longer but no layer wider.

    Raises:
        ValueError: the folder is no run's, the checkpoint is missing, damaged or of other settings, or what
            was learnt does not fit.
    """
    import dataclasses

    from memspan.runs.build import make_env, make_model
    from memspan.runs.checkpoint import load_checkpoint
    from memspan.runs.checks import check_config

    trained = load_config(folder)
    path = checkpoint_path(folder, which)
    if device is not None:
        trained = dataclasses.replace(trained, device=device)
    config = dataclasses.replace(
        trained,
        env_kwargs=trained.env_kwargs | dict(env_kwargs or {}),
        memory_kwargs=trained.memory_kwargs | dict(memory_kwargs or {}),
    )
    check_config(config)
    model = make_model(config, make_env(config, n_envs=1))
    load_checkpoint(model, trained, path)
    model.policy.set_training_mode(False)
    return config, model
