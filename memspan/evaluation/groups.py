"""Runs that differ in their seed alone, and names for what sets the others apart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memspan.evaluation.intervals import Interval
from memspan.evaluation.results import Evaluation

SYMBOLS = {
    "memory_size": "M",
    "max_span": "L",
    "ramp": "R",
    "n_layers": "N",
    "memory_loss_coef": "α",  # noqa: RUF001
    "learning_rate": "lr",
}
"""Settings that have a letter in the papers."""

MOST_SETTINGS_IN_LABEL = 2


@dataclass(frozen=True)
class Group:
    """Runs of the same task, memory and settings; one or more."""

    runs: tuple[Evaluation, ...]
    label: str
    """What sets it apart from the other groups of its memory; empty if there are none."""

    @property
    def memory(self) -> str:
        return self.runs[0].memory

    @property
    def effective_memory(self) -> float:
        return float(np.mean([run.effective_memory for run in self.runs]))

    @property
    def scores(self) -> list[float]:
        """One per run: see `score`."""
        return [score(run) for run in self.runs]

    @property
    def mean_score(self) -> float:
        return float(np.mean(self.scores))


def score(run: Evaluation) -> float:
    """The success rate, or the mean return where the environment does not tell success."""
    return run.mean_return if run.success_rate is None else run.success_rate


def interval(run: Evaluation) -> Interval:
    """The 95 % interval of `score`."""
    return run.return_ci if run.success_ci is None else run.success_ci


def task(run: Evaluation) -> tuple[str, str]:
    """What two runs must share to stand in the same figure: environment and its settings."""
    return run.env, _canonical(run.env_kwargs)


def task_title(run: Evaluation) -> str:
    """Environment id and its settings, if any were given."""
    told = ", ".join(f"{key}={_short(value)}" for key, value in run.env_kwargs.items())
    return f"{run.env} ({told})" if told else run.env


def by_task(runs: Iterable[Evaluation]) -> list[list[Evaluation]]:
    """One list per task, in the order in which the tasks first occur."""
    tasks: dict[tuple[str, str], list[Evaluation]] = {}
    for run in runs:
        tasks.setdefault(task(run), []).append(run)
    return list(tasks.values())


def group_runs(runs: Sequence[Evaluation]) -> list[Group]:
    """Groups of one task, ordered by memory and effective memory size; runs within by seed."""
    groups: dict[tuple[str, ...], list[Evaluation]] = {}
    for run in runs:
        key = (run.memory, run.name, _canonical(run.memory_kwargs), _canonical(run.settings))
        groups.setdefault(key, []).append(run)
    members = [tuple(sorted(group, key=lambda run: run.seed)) for group in groups.values()]
    labels = _labels([group[0] for group in members])
    made = [Group(group, label) for group, label in zip(members, labels, strict=True)]
    return sorted(made, key=lambda group: (group.memory, group.effective_memory, group.label))


def _labels(firsts: Sequence[Evaluation]) -> list[str]:
    """One label per group, from the settings that differ between the groups of its memory."""
    labels = []
    for run in firsts:
        rivals = [other for other in firsts if other.memory == run.memory]
        every = [_flat(other) for other in rivals]
        differing = [
            key
            for key in dict.fromkeys(key for flat in every for key in flat)
            if len({_canonical(flat.get(key)) for flat in every}) > 1
        ]
        if len(rivals) == 1:
            labels.append("")
        elif 1 <= len(differing) <= MOST_SETTINGS_IN_LABEL:
            own = _flat(run)
            labels.append(
                ", ".join(f"{SYMBOLS.get(key, key)}={_short(own[key])}" for key in differing if key in own)
                or "default"
            )
        else:
            labels.append(run.name)
    return labels


def _flat(run: Evaluation) -> dict[str, Any]:
    return {**run.memory_kwargs, **run.settings}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _short(value: Any) -> str:
    if value is None:
        return "default"
    if not isinstance(value, float):
        return str(value)
    mantissa, _, exponent = f"{value:g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa
