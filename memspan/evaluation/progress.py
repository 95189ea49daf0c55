"""How far an evaluation is, on the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from memspan.evaluation.episodes import OnProgress


@contextmanager
def show_progress(console: Console, title: str, episodes: int) -> Iterator[OnProgress]:
    """A bar where there is a terminal; else a line at every quarter."""
    start = time.monotonic()
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(escape(title), total=episodes)
            yield lambda finished: bar.update(task, completed=finished)
        return
    told = 0

    def tell(finished: int) -> None:
        nonlocal told
        quarter = 4 * finished // episodes
        if quarter > told:
            told = quarter
            seconds = time.monotonic() - start
            text = f"{title}: {finished} of {episodes} episodes, {seconds:.0f} s"
            console.print(text, soft_wrap=True, markup=False)

    yield tell
