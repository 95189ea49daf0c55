"""Results as tables for the terminal; legible at 100 columns."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from memspan.evaluation.groups import Group, by_task, group_runs, interval, score, task_title
from memspan.evaluation.order import COLUMNS, against_best
from memspan.evaluation.results import Evaluation
from memspan.evaluation.statistics import interquartile_mean, success_interval


def results_tables(runs: Sequence[Evaluation]) -> list[Table]:
    """One table per task: a line per run, and below each group of several seeds its mean."""
    return [_task_table(of_task) for of_task in by_task(runs)]


def _task_table(runs: list[Evaluation]) -> Table:
    groups = group_runs(runs)
    several = len(groups) < len(runs)
    table = _table(
        task_title(runs[0]),
        "mean: of the seeds above; its interval is over seeds and episodes" if several else None,
    )
    tells_success = all(run.success_rate is not None for run in runs)
    table.add_column("memory", overflow="fold")
    # An empty column would only make the table wider.
    labelled = any(group.label for group in groups)
    if labelled:
        table.add_column("settings", overflow="fold", max_width=20)
    for name in (
        *("seed", "success" if tells_success else "return", "95 % CI"),
        *("effective", "peak", "capacity", "KiB/row", "length"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for group in groups:
        label = [Text(group.label)] if labelled else []
        for i, run in enumerate(group.runs):
            told = [str(run.seed), f"{score(run):.3f}", *_numbers([run], interval(run))]
            table.add_row(Text("" if i else group.memory), *label, *told)
        if len(group.runs) > 1:
            mean = ["mean", f"{group.mean_score:.3f}", *_means(group)]
            table.add_row("", *[""] * len(label), *mean, style="bold")
    return table


def comparison_tables(runs: Sequence[Evaluation]) -> list[Table]:
    """How sure the order is: per task every group beside the best, and memories over several tasks.

    Over tasks go those that tell success: returns of different tasks have no common scale.
    """
    tasks = by_task(runs)
    tables = [_against_best(of_task) for of_task in tasks if len(group_runs(of_task)) > 1]
    alike = [of_task for of_task in tasks if all(run.success_rate is not None for run in of_task)]
    shared = set.intersection(*({(run.memory, run.name) for run in of_task} for of_task in alike or [[]]))
    return [*tables, _over_tasks(alike, sorted(shared))] if len(alike) > 1 and shared else tables


def _against_best(runs: list[Evaluation]) -> Table:
    groups = group_runs(runs)
    order = against_best([group.runs for group in groups])
    table = _table(
        f"{task_title(runs[0])}: against {_name(groups[order.best])}, the best",
        "gain: mean difference of runs with the same seed, its interval over seeds and episodes\n"
        "p(better): probability that a run of this memory is better than one of the best\n"
        f"p-value: of the paired permutation test, times {order.n_comparisons} for the pairs of groups there "
        f"are; it takes\n{order.fewest_pairs} pairs to find anything",
    )
    for name in ("memory", "settings"):
        table.add_column(name, overflow="fold")
    for name in COLUMNS[:-1]:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(COLUMNS[-1], overflow="fold")
    for i, cells in order.rows:
        table.add_row(Text(groups[i].memory), Text(groups[i].label), *cells)
    return table


def _over_tasks(tasks: Sequence[Sequence[Evaluation]], shared: Sequence[tuple[str, str]]) -> Table:
    """Interquartile means of the memories and names of runs that all tasks share."""
    table = _table(f"Over {len(tasks)} tasks", "IQM: mean of the middle half of the runs")
    for name in ("memory", "name", "runs", "IQM", "95 % CI"):
        table.add_column(name, justify="left" if name in ("memory", "name") else "right")
    for memory, name in shared:
        own = [[run for run in of_task if (run.memory, run.name) == (memory, name)] for of_task in tasks]
        found = interquartile_mean(own)
        n_runs = str(sum(map(len, own)))
        ci = f"{found.ci[0]:.3f}-{found.ci[1]:.3f}"
        table.add_row(Text(memory), Text(name), n_runs, f"{found.value:.3f}", ci)
    return table


def _name(group: Group) -> str:
    return f"{group.memory} ({group.label})" if group.label else group.memory


def _table(title: str, caption: str | None) -> Table:
    return Table(
        title=Text(title),
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )


def _means(group: Group) -> list[str]:
    return _numbers(group.runs, success_interval(group.runs))


def _numbers(runs: Sequence[Evaluation], ends: tuple[float, float]) -> list[str]:
    """The columns from the interval on: means over the runs, the peak's and the state's largest."""
    return [
        f"{ends[0]:.3f}-{ends[1]:.3f}",
        f"{fmean(run.effective_memory for run in runs):.1f}",
        f"{round(max(run.peak_memory for run in runs), 1):g}",
        f"{round(fmean(run.capacity for run in runs), 1):g}",
        _kib(max(run.state_bytes for run in runs)),
        f"{fmean(run.mean_length for run in runs):.1f}",
    ]


def _kib(n_bytes: float) -> str:
    """Half a vector is not nothing."""
    kib = n_bytes / 1024
    return f"{kib:.1f}" if kib >= 1 or not kib else f"{kib:.2g}"
