"""What of a run is done already, from its folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memspan.evaluate import Options
from memspan.evaluation import Evaluation
from memspan.evaluation.results import FILE_NAME
from memspan.runs import RunConfig, checkpoint_path, load_config, read_info
from memspan.runs.checkpoint import as_plain
from memspan.runs.folder import CONFIG, last_whole_checkpoint
from memspan.sweeps.grid import SweepRun

_EITHER_WAY = ("run_dir", "name")
"""Settings of which a run folder tells by where it is."""


def find_finished(run: SweepRun, options: Options) -> Evaluation | None:
    """The results of a run that has its final checkpoint and an evaluation made with these options.

    Raises:
        ValueError: the folder's run or its evaluation was made with other settings, which are named.
    """
    if not (run.folder / CONFIG).is_file():
        return None
    check_same(run)
    timesteps = trained_timesteps(run.folder)
    if not (run.folder / FILE_NAME).is_file():
        return None
    found = Evaluation.load(run.folder)
    _check_evaluation(found, options, run.folder)
    if timesteps < run.config.total_timesteps:
        return None
    if options.checkpoint == "best":
        timesteps = read_info(checkpoint_path(run.folder, "best")).timesteps
    # One that was made before the run had come to its end is made again.
    return found if found.timesteps == timesteps else None


def check_same(run: SweepRun) -> None:
    """Raises ValueError that names the settings in which a run folder and a sweep differ."""
    theirs, ours = (_plain(config) for config in (load_config(run.folder), run.config))
    differing = _differences(theirs, ours)
    if differing:
        raise ValueError(
            f"{run.folder}: this run was made with other settings: {'; '.join(differing)}; "
            "choose another --run-dir or name, or the same settings"
        )


def trained_timesteps(folder: Path) -> int:
    """Timesteps of the last whole checkpoint, 0 if there is none."""
    last, _ = last_whole_checkpoint(folder)
    return 0 if last is None else read_info(last).timesteps


def _plain(config: RunConfig) -> dict[str, Any]:
    return {key: value for key, value in as_plain(config).items() if key not in _EITHER_WAY}


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in dict.fromkeys([*ours, *theirs]):
        old, new = theirs.get(key), ours.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{key.removesuffix('_kwargs')}.")
        elif old != new:
            found.append(f"{prefix}{key}={old!r}, in the file {new!r}")
    return found


def _check_evaluation(found: Evaluation, options: Options, folder: Path) -> None:
    made = {
        "episodes": found.episodes,
        "seed": found.evaluation_seed,
        "n_envs": found.n_envs,
        "checkpoint": found.checkpoint,
        "deterministic": found.deterministic,
    }
    wanted = {name: getattr(options, name) for name in made}
    wanted["n_envs"] = min(options.n_envs, options.episodes)
    differing = _differences(made, wanted)
    if differing:
        raise ValueError(
            f"{folder / FILE_NAME}: made with other settings: {'; '.join(differing)}; "
            "take the file away to have it made again, or write the same under evaluation"
        )
