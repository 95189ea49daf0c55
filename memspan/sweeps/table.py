"""How far a sweep is: a live table on a terminal, a line for each event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from memspan.evaluation import Evaluation
from memspan.evaluation.groups import score
from memspan.runs.progress import UNKNOWN, short_count, short_time
from memspan.sweeps.grid import SweepRun
from memspan.sweeps.status import Status, read_status

SECONDS_BETWEEN_LINES = 30.0
LINES_AROUND = 6
"""Of the terminal, that are not for runs."""
STYLES = {"done": "green", "failed": "bold red", "waiting": "dim"}


@dataclass
class Board:
    """What is known of every run of a sweep.

    Args:
        runs: all of them.
        console: where to.
    """

    runs: Sequence[SweepRun]
    console: Console
    results: dict[Path, Evaluation] = field(default_factory=dict)
    """Of the runs that are done."""
    failed: dict[Path, str] = field(default_factory=dict)
    """Run -> what went wrong."""
    _live: Live | None = None
    _begun: float = field(default_factory=time.monotonic)
    _next: float = 0.0

    def open(self) -> None:
        """Begins to show."""
        self._begun = time.monotonic()
        self._next = self._begun + SECONDS_BETWEEN_LINES
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(
                self.table(self.console.height - LINES_AROUND), console=self.console, auto_refresh=False
            )
            self._live.start(refresh=True)
        else:
            self.say(self.headline())

    def update(self) -> None:
        """Shows how far the runs are by now."""
        if self._live is not None:
            self._live.update(self.table(self.console.height - LINES_AROUND), refresh=True)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + SECONDS_BETWEEN_LINES
            self.say(self.headline())
            for run in self.runs:
                status = None if self._has_ended(run) else read_status(run.folder)
                if status is not None:
                    self.say(f"  {run.title}: {_in_words(status)}")

    def close(self) -> None:
        """Leaves the whole table standing, or prints it."""
        if self._live is not None:
            self._live.update(self.table(), refresh=True)
            self._live.stop()
            self._live = None
        else:
            self.console.print(self.table())

    def say(self, text: str) -> None:
        """Prints a line, above the table where it is live."""
        self.console.print(Text(text), soft_wrap=True)
        self.console.file.flush()

    def headline(self) -> str:
        """The sweep in a line."""
        states = [self._cells(run)[0] for run in self.runs]
        counts = {
            "done": states.count("done"),
            "under way": sum(state not in ("done", "failed", "waiting") for state in states),
            "waiting": states.count("waiting"),
            "failed": states.count("failed"),
        }
        told = ", ".join(f"{count} {state}" for state, count in counts.items() if count or state == "done")
        noun = "run" if len(self.runs) == 1 else "runs"
        return f"{len(self.runs)} {noun}: {told}; {short_time(time.monotonic() - self._begun)} elapsed"

    def table(self, most: int | None = None) -> Table:
        """A line for each run.

        Args:
            most: lines; beyond them, runs that wait and runs that are done are left out.
        """
        table = Table(
            title=Text(self.headline()), title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False
        )
        several = len({run.env for run in self.runs}) > 1
        if several:
            table.add_column("environment", overflow="fold")
        table.add_column("run", overflow="fold")
        for name in ("seed", "state", "done", "score", "memory", "steps/s", "left"):
            table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
        shown = self._shown(most)
        for run in shown:
            state, *cells = self._cells(run)
            told = Text(state, STYLES.get(state, "cyan"))
            table.add_row(
                *([Text(run.env)] if several else []), Text(run.name), str(run.config.seed), told, *cells
            )
        if len(shown) < len(self.runs):
            table.caption = f"and {len(self.runs) - len(shown)} more"
            table.caption_justify = "left"
        return table

    def _shown(self, most: int | None) -> list[SweepRun]:
        if most is None or len(self.runs) <= most:
            return list(self.runs)
        order = {"failed": 1, "waiting": 2, "done": 3}
        ranked = sorted(self.runs, key=lambda run: order.get(self._cells(run)[0], 0))
        kept = {run.folder for run in ranked[: max(most - 1, 1)]}
        return [run for run in self.runs if run.folder in kept]

    def _has_ended(self, run: SweepRun) -> bool:
        return run.folder in self.results or run.folder in self.failed

    def _cells(self, run: SweepRun) -> list[str]:
        """State, share done, score, effective memory, speed, time left."""
        if run.folder in self.results:
            result = self.results[run.folder]
            return ["done", "100%", f"{score(result):.3f}", f"{result.effective_memory:.1f}", "", ""]
        if run.folder in self.failed:
            return ["failed", "", "", "", "", ""]
        status = read_status(run.folder)
        return ["waiting", "", "", "", "", ""] if status is None else _of_status(status)


def _of_status(status: Status) -> list[str]:
    def number(value: float | None, decimals: int) -> str:
        return UNKNOWN if value is None else f"{value:.{decimals}f}"

    return [
        status.state,
        f"{status.done:.0%}",
        number(status.score, 3),
        number(status.memory, 1),
        UNKNOWN if not status.speed else short_count(status.speed),
        short_time(status.seconds_left),
    ]


def _in_words(status: Status) -> str:
    state, done, reached, memory, speed, left = _of_status(status)
    if state != "training":
        return state
    return f"{done}, score {reached}, effective memory {memory}, {speed} steps/s, {left} left"
