"""What a probe finds, on the terminal: how far it is, and a table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from memspan.evaluation import mean_interval, wilson_interval
from memspan.evaluation.intervals import Interval
from memspan.probes import ProbeResults, Result
from memspan.probes.training import OnUpdate

AT_CHANCE = "~"


def interval(measure: str, scores: list[float]) -> Interval:
    """95 % interval of the mean over sequences.

    Questions to one sequence are not independent. So an accuracy has the interval of as many questions as
    there are sequences, which is wide enough however much they depend on each other.
    """
    if measure == "accuracy":
        return wilson_interval(round(sum(scores)), len(scores))
    return mean_interval(np.array(scores))


def at_chance(found: ProbeResults, result: Result) -> bool:
    """Whether nothing shows that the memory has remembered."""
    low, high = interval(found.measure, result.scores)
    return low <= found.chance if found.measure == "accuracy" else high >= found.chance


def in_short(measure: str, result: Result) -> str:
    """A line on one result."""
    how = "solved" if result.solved else "stopped"
    return f"{measure} {result.score:.3f}, {how} after {result.updates} updates, {result.seconds:.0f} s"


def probe_table(found: ProbeResults) -> Table:
    """A line per memory and a column per size, chance in the last line; legible at 100 columns."""
    title = f"{found.probe}: {found.measure} by {found.size_label}"
    table = Table(
        title=Text(title),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        min_width=len(title),
        pad_edge=False,
    )
    table.add_column("memory", overflow="fold")
    settings = any(result.label for result in found.results)
    if settings:
        table.add_column("settings", overflow="fold")
    for size in found.sizes:
        table.add_column(f"{size}", justify="right", no_wrap=True)
    lines: dict[tuple[str, str], dict[int, Result]] = {}
    for result in found.results:
        lines.setdefault((result.memory, result.label), {})[result.size] = result
    for (memory, label), by_size in lines.items():
        cells = [_cell(found, by_size[size]) if size in by_size else Text() for size in found.sizes]
        table.add_row(Text(memory.rpartition(":")[2]), *([Text(label)] if settings else []), *cells)
    chance = [Text(f"{found.chance:.3f} ", style="dim")] * len(found.sizes)
    table.add_section()
    table.add_row(Text("chance", style="dim"), *([Text()] if settings else []), *chance)
    return table


def legend(found: ProbeResults) -> str:
    """What the table's signs mean, those that are in it."""
    kinds = [] if found.measure == "accuracy" else ["0 is best"]
    if any(at_chance(found, result) for result in found.results):
        sequences = found.training["test_sequences"]
        kinds.append(f"{AT_CHANCE}: the 95 % interval of {sequences} sequences reaches chance")
    return "; ".join(kinds)


def _cell(found: ProbeResults, result: Result) -> Text:
    if at_chance(found, result):
        return Text(f"{result.score:.3f}{AT_CHANCE}", style="dim")
    return Text(f"{result.score:.3f} ", style="bold" if result.solved else "")


@contextmanager
def show_progress(console: Console, title: str, updates: int, measure: str) -> Iterator[OnUpdate]:
    """A bar with the latest score where there is a terminal; else nothing, as each result has a line."""
    if not console.is_terminal:
        yield lambda update, score: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(escape(title), total=updates)

        def tell(update: int, score: float) -> None:
            bar.update(task, completed=update, description=f"{escape(title)}, {measure} {score:.2f}")

        yield tell
