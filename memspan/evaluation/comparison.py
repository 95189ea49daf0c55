"""Runs side by side in TensorBoard: a layout of charts, HParams, and success over effective memory.

Events are written anew into a folder of the comparison's own, one sub-folder per run and one per line of a
cost chart. Tags hold the task's name, because a chart of the Custom Scalars tab chooses its lines by tags:

    <task>/success_rate, .../effective_memory, .../steps_per_second   over training steps, in every run
    cost/<task>/<score>                 over effective memory, in a run `cost/<task>/<memory>` for each memory
    cost_in_training/<task>/<score>     over effective memory while training, in the run
    result/<metric>                     the metrics of the HParams tab, in every run

The step of the cost charts is the effective memory in thousandths of a memory vector: steps are whole
numbers, and where TensorBoard writes 20k there are 20 vectors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import custom_scalars, hparams, scalar
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

from memspan.evaluation import curves
from memspan.evaluation.curves import Curves, Point

PER_VECTOR = 1000
"""Steps of a cost chart for one memory vector."""
UNIT = "Step: effective memory in thousandths of a memory vector, so 20k is 20 vectors."
MOST_POINTS = 40
"""Most points of a training's line in a cost chart."""
FIRST_COLUMNS = ("task", "memory", "name", "seed", "measured")
"""TensorBoard shows five columns of the HParams tab at first: those it is told to differ, then by name."""
ALWAYS = ("memory", "name", "seed")
"""Columns even where no two runs differ in them."""
MISSING = "-"
"""Stands for a setting that a run's memory does not have."""
HELD_OUT, IN_TRAINING = "held-out", "in training"
CHANGED_BY = 2.0
"""Ratio of the largest to the least effective memory from which on a training has a line in a cost chart."""
METRICS = ("success_rate", "effective_memory", "steps_per_second", "mean_return")
CURVES = {
    "success_rate": curves.SUCCESS,
    "mean_return": curves.MEAN_RETURN,
    "effective_memory": curves.MEMORY,
    "steps_per_second": curves.SPEED,
}
"""Names of the curves in the comparison -> tags in which a training writes them."""
DESCRIPTIONS = {
    "success_rate": "Share of successful episodes while training.",
    "mean_return": "Mean return of episodes while training.",
    "effective_memory": "Memory vectors that a step can still read, while training.",
    "steps_per_second": "Environment steps per second of training.",
}


@dataclass(frozen=True)
class Entry:
    """A run in a comparison."""

    name: str
    """Of the run in TensorBoard, such as Corridor-v0/lstm/0; unique."""
    task: str
    """What runs must share to stand in one chart."""
    memory: str
    settings: Mapping[str, object]
    """Of environment, memory and training, by name; those in which no two runs differ are not shown."""
    results: Mapping[str, float]
    """Some of `METRICS`, of held-out episodes or else of the training's end."""
    evaluated: bool
    """Whether the results are of held-out episodes."""
    timesteps: int
    """Of the training, up to the results."""
    curves: Curves


class Comparison:
    """Writes the events; a context.

    Args:
        logdir: an empty folder.
        entries: the runs, at least one.
    """

    def __init__(self, logdir: Path, entries: Sequence[Entry]) -> None:
        self.logdir = logdir
        self.entries = entries
        self._open = ExitStack()
        self._writers: dict[str, SummaryWriter] = {}
        self._order: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def runs(self) -> list[str]:
        """Names of what has been written, as TensorBoard shows them."""
        return sorted(self._writers)

    def write(self) -> None:
        """Everything there is up to now."""
        for task in tasks(self.entries):
            self._write_cost(task)
        rows = hparams_of(self.entries)
        for i, (entry, row) in enumerate(zip(self.entries, rows, strict=True)):
            experiment, start, end = hparams(  # type: ignore[no-untyped-call]
                row, dict.fromkeys(map(_result, METRICS), 0.0), domains(rows)
            )
            # One description of all columns, and one layout: TensorBoard reads no second.
            if i == 0:
                self._add(entry.name, _with_order(experiment))
                self._add(entry.name, custom_scalars(layout_of(self.entries)))  # type: ignore[no-untyped-call]
            for summary in (start, end):
                self._add(entry.name, summary)
            for name, value in entry.results.items():
                self._scalar(entry.name, _result(name), value, entry.timesteps)
            self._write_points(entry, {tag: list(p.values()) for tag, p in entry.curves.points.items()})
            self._write_training(entry)
        self._flush()

    def follow(self) -> None:
        """What trainings that still go on have written since."""
        for entry in self.entries:
            self._write_points(entry, entry.curves.read())
        self._flush()

    def _write_points(self, entry: Entry, points: Mapping[str, Iterable[Point]]) -> None:
        for name in (score_of(self.entries, entry.task), "effective_memory", "steps_per_second"):
            tag = CURVES[name]
            for point in sorted(points.get(tag, ()), key=lambda one: one.step):
                where = f"{entry.task}/{name}"
                self._scalar(entry.name, where, point.value, point.step, DESCRIPTIONS[name], point.wall_time)

    def _write_training(self, entry: Entry) -> None:
        score = score_of(self.entries, entry.task)
        about = f"Mean {score} of the moments at which the training read this much memory. {UNIT}"
        for step, value in trajectory(entry.curves, CURVES[score]):
            self._scalar(entry.name, f"cost_in_training/{entry.task}/{score}", value, step, about)

    def _write_cost(self, task: str) -> None:
        score = score_of(self.entries, task)
        for line, points in cost_lines(self.entries, task).items():
            for step, value in points:
                self._scalar(f"cost/{task}/{line}", f"cost/{task}/{score}", value, step, UNIT)

    def _scalar(
        self, run: str, tag: str, value: float, step: int, about: str = "", wall_time: float | None = None
    ) -> None:
        summary = scalar(tag, value, new_style=True)  # type: ignore[no-untyped-call]
        summary.value[0].metadata.summary_description = about
        self._add(run, summary, step, wall_time)

    def _add(self, run: str, summary: Any, step: int | None = None, wall_time: float | None = None) -> None:
        if run not in self._writers:
            self._writers[run] = self._open.enter_context(SummaryWriter(self.logdir / run))
            self._order[run] = float(len(self._order) + 1)
        # TensorBoard lists runs by their earliest time; only the curves of a training have one that counts.
        wall_time = self._order[run] if wall_time is None else wall_time
        to: FileWriter = self._writers[run].file_writer  # type: ignore[assignment]  # None once it is closed
        to.add_summary(summary, step, wall_time)

    def _flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()


def tasks(entries: Iterable[Entry]) -> list[str]:
    """Each task once, in the order of the runs."""
    return list(dict.fromkeys(entry.task for entry in entries))


def score_of(entries: Iterable[Entry], task: str) -> str:
    """What a task is scored by: its success rate, or the mean return where it does not tell success."""
    of_task = [entry for entry in entries if entry.task == task]
    return "success_rate" if any("success_rate" in entry.results for entry in of_task) else "mean_return"


def cost_lines(entries: Iterable[Entry], task: str) -> dict[str, list[tuple[int, float]]]:
    """For each memory, runs in the order of their effective memory: (thousandths of a vector, score).

    Runs that were not evaluated have lines of their own. Steps rise: TensorBoard forgets what comes before a
    step that falls back, so of two runs with the same memory one is moved by a thousandth of a vector.
    """
    entries = list(entries)
    score = score_of(entries, task)
    found: dict[str, list[tuple[float, float]]] = {}
    for entry in entries:
        if entry.task == task and {score, "effective_memory"} <= entry.results.keys():
            line = entry.memory if entry.evaluated else f"{entry.memory} (not evaluated)"
            found.setdefault(line, []).append((entry.results["effective_memory"], entry.results[score]))
    lines: dict[str, list[tuple[int, float]]] = {}
    for line, points in sorted(found.items()):
        steps: list[tuple[int, float]] = []
        for memory, value in sorted(points):
            step = round(memory * PER_VECTOR)
            steps.append((max(step, steps[-1][0] + 1) if steps else step, value))
        lines[line] = steps
    return lines


def trajectory(of: Curves, score: str) -> list[tuple[int, float]]:
    """A training's mean score by its effective memory: (thousandths of a vector, score), rising.

    Empty for a memory whose size hardly changes while it is trained.

    Args:
        of: the training.
        score: the tag of what is averaged.
    """
    memory, scores = of.points.get(curves.MEMORY, {}), of.points.get(score, {})
    both = {memory[step].value: scores[step].value for step in sorted(memory.keys() & scores.keys())}
    if not both or max(both) < CHANGED_BY * max(min(both), 1.0):
        return []
    width = max(1, math.ceil(max(both) / MOST_POINTS))
    found: dict[int, list[float]] = {}
    for vectors, value in both.items():
        found.setdefault(round(vectors / width) * width, []).append(value)
    return [(vectors * PER_VECTOR, float(np.mean(found[vectors]))) for vectors in sorted(found)]


def hparams_of(entries: Sequence[Entry]) -> list[dict[str, float | str]]:
    """The columns of the HParams tab, the same for all runs: what they are, and settings in which two differ.

    A column is of numbers where all runs have one, and of texts otherwise, `MISSING` where a run has none.
    Seeds are texts: names, of which one can choose some.
    """
    keys = list(dict.fromkeys(key for entry in entries for key in entry.settings))
    rows: list[dict[str, float | str]] = [{} for _ in entries]
    for key in [*FIRST_COLUMNS, *(key for key in keys if key not in FIRST_COLUMNS)]:
        values = [_columns(entry).get(key) for entry in entries]
        if key not in ALWAYS and len({str(value) for value in values}) == 1:
            continue
        numbers = key != "seed" and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        for row, value in zip(rows, values, strict=True):
            if numbers:
                row[key] = float(value)  # type: ignore[arg-type]
            else:
                row[key] = MISSING if value is None else str(value)
    return rows


def _columns(entry: Entry) -> dict[str, object]:
    measured = HELD_OUT if entry.evaluated else IN_TRAINING
    return {"task": entry.task, "memory": entry.memory, "measured": measured, **entry.settings}


def domains(rows: Sequence[Mapping[str, float | str]]) -> dict[str, list[str]]:
    """The values of each column of texts, by which TensorBoard lets one choose."""
    return {
        key: sorted({str(row[key]) for row in rows})
        for key, value in rows[0].items()
        if isinstance(value, str)
    }


def layout_of(entries: Sequence[Entry]) -> dict[str, dict[str, list[object]]]:
    """Category -> title of a chart -> kind and patterns of tags, as torch's `custom_scalars` takes it."""
    categories: dict[str, dict[str, list[object]]] = {}
    for task in tasks(entries):
        score = score_of(entries, task)
        of_task = [entry for entry in entries if entry.task == task]
        words = score.replace("_", " ")
        charts: dict[str, str] = {}
        if cost_lines(entries, task):
            charts[f"{words} by effective memory (20k = 20 vectors)"] = f"cost/{task}/{score}"
        if any(entry.curves.points for entry in of_task):
            charts[f"{words} while training"] = f"{task}/{score}"
            charts["effective memory while training (vectors)"] = f"{task}/effective_memory"
            charts["speed of training (steps/s)"] = f"{task}/steps_per_second"
        if any(trajectory(entry.curves, CURVES[score]) for entry in of_task):
            charts[f"{words} by effective memory, in training"] = f"cost_in_training/{task}/{score}"
        categories[task] = {title: ["Multiline", [f"^{re.escape(tag)}$"]] for title, tag in charts.items()}
    return categories


def _result(name: str) -> str:
    return f"result/{name}"


def _with_order(experiment: Any) -> Any:
    """Puts the first columns first, and names metrics in words."""
    plugin_data = experiment.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin_data.content)
    for column in content.experiment.hparam_infos:
        column.differs = column.name in FIRST_COLUMNS
    for metric in content.experiment.metric_infos:
        metric.display_name = metric.name.tag.removeprefix("result/").replace("_", " ")
    plugin_data.content = content.SerializeToString()
    return experiment
