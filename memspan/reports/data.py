"""What a report needs of a run's folder, and groups of runs."""

from __future__ import annotations

import csv
import dataclasses
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memspan.evaluation import Evaluation
from memspan.evaluation.curves import MEAN_RETURN, MEMORY, SUCCESS, Curves
from memspan.evaluation.horizon import FILE_NAME as HORIZON_FILE
from memspan.evaluation.horizon import Horizon
from memspan.evaluation.results import FILE_NAME
from memspan.runs import RunConfig, load_config, preset
from memspan.runs.beyond import FOLDER as BEYOND
from memspan.runs.checkpoint import as_plain
from memspan.runs.config import NOT_SETTINGS
from memspan.runs.folder import numbered_checkpoints

Curve = list[tuple[int, float]]
"""Environment steps, and a value at each."""

COLUMNS = {"success_rate": SUCCESS, "effective_memory": MEMORY, "mean_return": MEAN_RETURN}
"""Column of a published `curve.csv` -> tag in TensorBoard's files."""
MOST_POINTS = 150
"""Points of a curve on the page; more cannot be told apart."""


@dataclass(frozen=True)
class ReportRun:
    """A run, as far as its folder tells."""

    folder: Path
    config: RunConfig
    evaluation: Evaluation | None
    """None: it was not evaluated yet."""
    horizon: Horizon | None
    beyond: dict[str, Evaluation]
    """By the settings that went over those of the training."""
    curves: dict[str, Curve]
    """Column of `COLUMNS` -> what was logged while training."""

    @property
    def name(self) -> str:
        """Of the group: the folder's, by which runs that differ in their seed alone lie together."""
        return self.config.name or self.config.memory.rpartition(":")[2]

    @property
    def label(self) -> str:
        return f"{self.name}/{self.config.seed}"

    @property
    def _plain(self) -> dict[str, Any]:
        try:
            return as_plain(self.config)
        except ValueError:  # a memory that is not at hand, or no longer has these settings
            return dataclasses.asdict(self.config)

    @property
    def settings(self) -> dict[str, Any]:
        """By which runs of the same name are told apart."""
        plain = self._plain
        own = {key: value for key, value in plain.items() if key not in NOT_SETTINGS}
        return {"memory": self.config.memory, **plain["memory_kwargs"], **own}

    @property
    def can_play(self) -> bool:
        return bool(numbered_checkpoints(self.folder))

    @property
    def command(self) -> str:
        """The command that trains it, with what differs from the presets of this version."""
        config = self.config
        words = ["memspan train", *(_flag(name, getattr(config, name)) for name in ("env", "memory", "seed"))]
        try:
            usual = as_plain(RunConfig(**preset(config.env, config.memory)))
        except ValueError:  # a memory of somebody's own that is not at hand
            usual = {}
        for name, value in self._plain.items():
            if name.endswith("_kwargs"):
                prefix = name.removesuffix("_kwargs")
                words += [
                    _flag(f"{prefix}.{key}", one)
                    for key, one in value.items()
                    if one != usual.get(name, {}).get(key)
                ]
            elif name not in _ELSEWHERE and value != usual.get(name):
                words.append(_flag(name, value))
        return " ".join(words)


_ELSEWHERE = ("env", "memory", "seed", "run_dir", "threads", "device")
"""Settings that are told first, or change nothing."""


def _flag(name: str, value: Any) -> str:
    return f"--{name.replace('_', '-')} {shlex.quote(str(value))}"


def read_report_run(folder: Path) -> ReportRun:
    """Reads what there is of a run.

    Raises:
        ValueError: the folder is damaged or no run's.
    """
    config = load_config(folder)
    evaluation = Evaluation.load(folder) if (folder / FILE_NAME).is_file() else None
    own = config.env.rpartition(":")[2], config.memory, config.seed
    if evaluation is not None and (evaluation.env, evaluation.memory, evaluation.seed) != own:
        raise ValueError(
            f"{folder / FILE_NAME}: of {evaluation.memory} on {evaluation.env}, seed {evaluation.seed}: "
            "another run"
        )
    beyond = {
        path.parent.name: Evaluation.load(path.parent)
        for path in sorted(folder.glob(f"{BEYOND}/*/{FILE_NAME}"))
    }
    horizon = Horizon.load(folder) if (folder / HORIZON_FILE).is_file() else None
    return ReportRun(folder, config, evaluation, horizon, beyond, _curves(folder))


def _curves(folder: Path) -> dict[str, Curve]:
    """From TensorBoard's files, or from those of published results."""
    found: dict[str, Curve] = {}
    path = folder / "curve.csv"
    if path.is_file():
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            for column in COLUMNS:
                found[column] = [
                    (int(float(row["timesteps"])), float(row[column])) for row in rows if row.get(column)
                ]
        except (KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
            raise ValueError(f"{path}: damaged ({' '.join(str(error).split())})") from None
    else:
        logged = Curves(folder).read()
        for column, tag in COLUMNS.items():
            found[column] = [(point.step, point.value) for point in logged.get(tag, ())]
    return {column: _thin(curve) for column, curve in found.items() if curve}


def _thin(curve: Curve) -> Curve:
    every = -(-len(curve) // MOST_POINTS)
    return curve[::every] if curve[-1] in curve[::every] else [*curve[::every], curve[-1]]


def by_name(runs: Iterable[ReportRun]) -> dict[str, list[ReportRun]]:
    """Runs that differ in their seed alone, in the order of their names and seeds.

    Runs of several folders may have the same name and other settings; those are then told with it.
    """
    groups: dict[tuple[str, str], list[ReportRun]] = {}
    for run in sorted(runs, key=lambda run: (run.config.memory, run.name, run.config.seed)):
        groups.setdefault((run.name, repr(run.settings)), []).append(run)
    names = [name for name, _ in groups]
    return {
        name if names.count(name) == 1 else f"{name} ({_apart(own[0], name, groups)})": own
        for (name, _), own in groups.items()
    }


def _apart(run: ReportRun, name: str, groups: Mapping[tuple[str, str], Sequence[ReportRun]]) -> str:
    """The settings of a run in which groups of this name differ."""
    every = [own[0].settings for (other, _), own in groups.items() if other == name]
    return ", ".join(
        f"{key}={value}"
        for key, value in run.settings.items()
        if any(settings.get(key) != value for settings in every)
    )


def evaluations(runs: Sequence[ReportRun]) -> list[Evaluation]:
    """Of those that were evaluated."""
    return [run.evaluation for run in runs if run.evaluation is not None]
