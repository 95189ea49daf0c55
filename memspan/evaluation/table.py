"""Results as a table for the terminal; legible at 100 columns."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from memspan.evaluation.groups import Group, by_task, group_runs, interval, score, task_title
from memspan.evaluation.results import Evaluation


def results_tables(runs: Sequence[Evaluation]) -> list[Table]:
    """One table per task: a line per run, and below each group of several seeds its mean and range."""
    return [_task_table(of_task) for of_task in by_task(runs)]


def _task_table(runs: list[Evaluation]) -> Table:
    groups = group_runs(runs)
    table = Table(
        title=Text(task_title(runs[0])),
        title_justify="left",
        caption="mean: of the seeds above, with their range" if len(groups) < len(runs) else None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    tells_success = all(run.success_rate is not None for run in runs)
    table.add_column("memory", overflow="fold")
    table.add_column("settings", overflow="fold", max_width=20)
    for name in (
        *("seed", "success" if tells_success else "return", "95 % CI"),
        *("effective", "peak", "capacity", "KiB/row", "length"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for group in groups:
        for i, run in enumerate(group.runs):
            told = [str(run.seed), f"{score(run):.3f}", *_numbers([run], interval(run))]
            table.add_row(Text("" if i else group.memory), Text(group.label), *told)
        if len(group.runs) > 1:
            mean = ["mean", f"{group.mean_score:.3f}", *_means(group)]
            table.add_row("", "", *mean, style="bold")
    return table


def _means(group: Group) -> list[str]:
    return _numbers(group.runs, (min(group.scores), max(group.scores)))


def _numbers(runs: Sequence[Evaluation], ends: tuple[float, float]) -> list[str]:
    """The columns from the interval on: means over the runs, the peak's and the state's largest."""
    return [
        f"{ends[0]:.3f}-{ends[1]:.3f}",
        f"{fmean(run.effective_memory for run in runs):.1f}",
        f"{max(run.peak_memory for run in runs):.0f}",
        f"{fmean(run.capacity for run in runs):.0f}",
        f"{max(run.state_bytes for run in runs) / 1024:.1f}",
        f"{fmean(run.mean_length for run in runs):.1f}",
    ]
