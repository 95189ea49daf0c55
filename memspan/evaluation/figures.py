"""Figures: what success costs in memory, and how far it reaches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memspan.evaluation.groups import Group, by_task, group_runs, interval, score
from memspan.evaluation.intervals import wilson_interval
from memspan.evaluation.labels import place_labels
from memspan.evaluation.looks import look_of, tint
from memspan.evaluation.panels import draw_panels, memory_scale, success_scale
from memspan.evaluation.results import Bucket, Evaluation

DASHES = ("-", "--", ":", "-.")


def success_against_memory(runs: Sequence[Evaluation], chance: float | None = None) -> Figure:
    """One panel per task: success rate over effective memory size, a line through each memory's groups.

    Each run is a point with its 95 % interval; where runs differ in their seed alone, those points are small
    and faint, and the large one is their mean. Where a task does not tell success, its panel shows the mean
    return.

    Args:
        runs: one or more.
        chance: success rate to mark in every panel; None: what `panels.CHANCE` says of each.

    Raises:
        ValueError: no runs.
    """

    def draw(axes: Axes, of_task: list[Evaluation]) -> list[Line2D]:
        groups = group_runs(of_task)
        memory_scale(axes, max(run.effective_memory for run in of_task))
        if all(run.success_rate is not None for run in of_task):
            success_scale(axes)
        else:
            axes.set_ylabel("mean return per episode")
        return [
            _draw_memory(axes, memory, [group for group in groups if group.memory == memory])
            for memory in dict.fromkeys(group.memory for group in groups)
        ]

    figure = draw_panels(runs, draw, chance, _caption(runs))
    # Only now is the layout settled, and with it the place that is left for labels.
    for axes, of_task in zip(figure.axes, by_task(runs), strict=True):
        groups = group_runs(of_task)
        labels = [(*_mean(group), group.label, look_of(group.memory).colour) for group in groups]
        place_labels(axes, [label for label in labels if label[2]])
    return figure


AXES = {
    "length": "length of the task (steps)",
    "room": "room (success: the next one is reached)",
    "delay": "delay of the instruction (steps; success: it is carried out)",
    "": "length of the episode (steps)",
}
"""Difficulty -> what its axis says."""


def success_by_difficulty(runs: Sequence[Evaluation], chance: float | None = None) -> Figure:
    """One panel per task: success rate over what makes it hard; seeds are pooled, bands are 95 % intervals.

    What makes it hard is the task's own (`memspan.evaluation.difficulty`), or the episode's length where that
    is not known.

    Args:
        runs: one or more; those that do not tell success are left out.
        chance: as `success_against_memory`, of whole episodes: not marked where trials are parts of them.

    Raises:
        ValueError: no runs.
    """

    def draw(axes: Axes, of_task: list[Evaluation]) -> list[Line2D]:
        success_scale(axes)
        difficulty = difficulty_of(of_task)
        if difficulty in ("room", "delay"):
            axes.set_ylabel("success rate of trials")
        axes.set_xlabel(AXES.get(difficulty, difficulty))
        entries: list[Line2D] = []
        drawn: list[str] = []
        groups = [group for group in group_runs(of_task) if pool_buckets(group.runs, difficulty)]
        for group in groups:
            buckets = pool_buckets(group.runs, difficulty)
            look, rank = look_of(group.memory), drawn.count(group.memory)
            last = sum(other.memory == group.memory for other in groups) - 1
            colour = tint(look.colour, 1 - rank / last) if last else look.colour
            drawn.append(group.memory)
            middles = [(bucket.low + bucket.high) / 2 for bucket in buckets]
            low, high = zip(*(bucket.ci for bucket in buckets), strict=True)
            axes.fill_between(middles, low, high, color=colour, alpha=0.13, lw=0)
            name = f"{group.memory}\n{group.label}" if group.label else group.memory
            entries += axes.plot(
                middles,
                [bucket.success_rate for bucket in buckets],
                DASHES[rank % len(DASHES)],
                color=colour,
                marker=look.marker,
                ms=4.5,
                lw=1.6,
                label=name,
            )
        axes.set_xlim(left=0)
        return entries

    caption = f"Bands: 95 % intervals, {_episodes(runs)} episodes a run, seeds pooled."
    return draw_panels(runs, draw, chance, caption)


def difficulty_of(runs: Iterable[Evaluation]) -> str:
    """The difficulty by which runs of one task can be compared; empty: the episode's length."""
    told = {run.difficulty or ("length" if run.length_of == "task" else "") for run in runs}
    return told.pop() if len(told) == 1 else ""


def pool_buckets(runs: Iterable[Evaluation], difficulty: str = "") -> list[Bucket]:
    """Buckets of several runs' trials together, by rising difficulty.

    Args:
        runs: of one task.
        difficulty: see `difficulty_of`.
    """
    every: list[Bucket] = []
    for run in runs:
        by_task = difficulty and run.difficulty == difficulty
        every += run.success_by_difficulty if by_task else run.success_by_length
    # Buckets start at multiples of their width: those of this width hold them all whole.
    width = math.lcm(*(bucket.high - bucket.low + 1 for bucket in every))
    counts: dict[int, tuple[int, int]] = {}
    for bucket in every:
        index = (bucket.low - 1) // width
        successes, episodes = counts.get(index, (0, 0))
        successes += round(bucket.success_rate * bucket.episodes)
        counts[index] = successes, episodes + bucket.episodes
    return [
        Bucket(i * width + 1, (i + 1) * width, n, k / n, wilson_interval(k, n))
        for i, (k, n) in sorted(counts.items())
    ]


def _draw_memory(axes: Axes, memory: str, groups: list[Group]) -> Line2D:
    """Runs, means of groups and the line through them; returns the legend entry."""
    look = look_of(memory)
    for group in groups:
        alone = len(group.runs) == 1
        for run in group.runs:
            low, high = interval(run)
            axes.errorbar(
                run.effective_memory,
                score(run),
                yerr=[[score(run) - low], [high - score(run)]],
                fmt=look.marker,
                color=look.colour,
                ms=3.5,
                mew=0,
                elinewidth=1.2,
                alpha=1 if alone else 0.4,
                zorder=2.5,
            )
    x, y = zip(*(_mean(group) for group in groups), strict=True)
    axes.plot(x, y, "-", color=look.colour, lw=1.5, alpha=0.75, zorder=2.2)
    big: dict[str, Any] = dict(color=look.colour, marker=look.marker, ms=7, mec="white", mew=0.8)
    axes.plot(x, y, ls="", zorder=3, clip_on=False, **big)
    return Line2D([], [], lw=1.5, label=memory, **big)


def _mean(group: Group) -> tuple[float, float]:
    return group.effective_memory, group.mean_score


def _episodes(runs: Sequence[Evaluation]) -> str:
    counts = sorted({run.episodes for run in runs})
    return " to ".join(str(count) for count in counts[:1] + counts[1:][-1:])


def _caption(runs: Sequence[Evaluation]) -> str:
    bars = f"Bars: 95 % intervals, {_episodes(runs)} episodes a run."
    several = any(len(group.runs) > 1 for of_task in by_task(runs) for group in group_runs(of_task))
    return f"{bars} Small and faint: one seed; large: mean of the seeds." if several else bars
