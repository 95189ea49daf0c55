"""`memspan sweep`: trains and evaluates all runs that a file describes, side by side."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import tyro
from filelock import FileLock, Timeout
from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional

from memspan.evaluation import (
    results_tables,
    save_figure,
    success_against_memory,
    success_by_difficulty,
)
from memspan.sweeps import SweepFile, SweepRun, expand, read_sweep
from memspan.sweeps.driver import Driver, connected, import_ray, without_a_place
from memspan.sweeps.found import find_finished
from memspan.sweeps.table import Board
from memspan.sweeps.worker import LOG, SWEEP_LOCK

FAILED = 1
INTERRUPTED = 130
COLUMNS = 100
"""Width of what is printed where there is no terminal to ask."""
FIGURE = "success-against-memory.png"
DIFFICULTY_FIGURE = "success-by-difficulty.png"
REPORT = "memspan.report"
"""The command that makes reports."""
REPORT_FILE = "report.html"
PAGES = "memspan.reports"


@dataclass(frozen=True)
class Options:
    """Train and evaluate all runs that a file describes, and draw what came out.

    The same command goes on with a sweep that was stopped, in whichever way; runs that are finished are left
    alone. The file's format: docs/sweeps.md.
    """

    file: Positional[Path]
    """The sweep, in YAML."""
    run_dir: Path | None = None
    """Folder of its runs, one that all machines share; by default runs/<name of the file>."""
    processes: int | None = None
    """Runs side by side on this machine, one CPU each; by default as many as there are CPUs."""
    address: str | None = None
    """Of a Ray cluster to run on, like 192.168.0.1:6379 or auto, in place of this machine."""
    dry_run: bool = False
    """Check the file and what is there already, show the runs, and end."""

    def validate(self) -> None:
        """Raises ValueError that names the option, its value and what is allowed."""
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"processes={self.processes}: must be at least 1")
        if self.processes is not None and self.address is not None:
            raise ValueError(f"processes={self.processes}: must be left out with --address")


def main(args: Sequence[str] | None = None) -> int:
    """Sweeps; returns the exit code: 0 all done, 1 some runs failed.

    Raises:
        ValueError: an option, the file or a run that is there already is wrong; nothing was begun.
    """
    options = tyro.cli(
        Options,
        prog="memspan sweep",
        args=list(sys.argv[1:] if args is None else args),
        config=(FlagCreatePairsOff,),
    )
    options.validate()
    sweep = read_sweep(options.file)
    if sweep.report:
        importlib.import_module(PAGES)  # says before any work what it needs
    run_dir = options.run_dir if options.run_dir is not None else Path("runs", options.file.stem)
    runs = expand(sweep, run_dir, here=options.address is None)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = COLUMNS
    if options.dry_run:
        board = _look(sweep, runs, console)
        console.print(board.table())
        return 0
    with _alone(run_dir):
        board = _look(sweep, runs, console)
        code = _run(sweep, board, options, run_dir)
        if code != INTERRUPTED:
            _show(console, board, run_dir, sweep)
    return code


def _look(sweep: SweepFile, runs: list[SweepRun], console: Console) -> Board:
    """What there is already.

    Raises:
        ValueError: a run folder has other settings than the file.
    """
    board = Board(runs, console)
    for run in runs:
        found = find_finished(run, sweep.evaluation_options(run.folder))
        if found is not None:
            board.results[run.folder] = found
    return board


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Holds the lock on a folder of runs, which the system takes back from a process that has died.

    Raises:
        ValueError: another sweep holds it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run_dir / SWEEP_LOCK, timeout=0):
            yield
    except Timeout:
        raise ValueError(f"{run_dir}: another sweep is at work here; choose another --run-dir") from None


def _run(sweep: SweepFile, board: Board, options: Options, run_dir: Path) -> int:
    """Does what is to be done yet; returns the exit code."""
    to_do = [run for run in board.runs if run.folder not in board.results]
    if not to_do:
        return 0
    import_ray()
    processes = options.processes or _cpus()
    # Inside, because Ray takes SIGTERM for itself when it starts.
    with connected(options.address, processes) as ray, _interruptible():
        homeless = without_a_place(ray, to_do)
        if homeless is not None:
            wants = f"{homeless.name}: cpus={homeless.cpus:g}, gpus={homeless.gpus:g}"
            if options.address is None:
                raise ValueError(f"{wants}: more than this machine gives; must fit --processes")
            board.say(f"{wants}: no machine of the cluster has that much now; it waits for one.")
        driver = Driver(ray, run_dir.absolute(), sweep.retries, sweep.evaluation_options(run_dir))
        for run in to_do:
            driver.start(run)
        board.open()
        try:
            _wait(driver, board)
        except KeyboardInterrupt:
            board.say("Stopping: trainings write a checkpoint first.")
            driver.stop()
            board.close()
            board.say(f"Stopped. Go on with: memspan sweep {options.file} --run-dir {run_dir}")
            return INTERRUPTED
        board.close()
    return FAILED if board.failed else 0


def _wait(driver: Driver, board: Board) -> None:
    """Until every run is done or given up."""
    while driver.under_way:
        for event in driver.look():
            where = event.run.title
            if event.kind == "done":
                assert event.result is not None
                board.results[event.run.folder] = event.result
                board.say(f"{where}: done")
            elif event.kind == "failed":
                board.failed[event.run.folder] = event.text
                board.say(f"{where}: failed: {event.text} ({event.run.folder / LOG})")
            else:
                board.say(f"{where}: {event.text}")
        board.update()


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM is taken as Ctrl-C is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _cpus() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _show(console: Console, board: Board, run_dir: Path, sweep: SweepFile) -> None:
    """Table, figures, report, and what failed."""
    found = list(board.results.values())
    if found:
        for table in results_tables(found):
            console.print(table)
        files = save_figure(success_against_memory(found), run_dir / FIGURE)
        files += save_figure(success_by_difficulty(found), run_dir / DIFFICULTY_FIGURE)
        for file in files:
            console.print(f"Figure: {file}", soft_wrap=True, markup=False)
        if sweep.report:
            _report(list(board.results), run_dir)
    for folder, error in board.failed.items():
        console.print(f"Failed: {folder}: {error}", soft_wrap=True, markup=False)


def _report(folders: Sequence[Path], run_dir: Path) -> None:
    """Makes one page of all runs that are done."""
    importlib.import_module(REPORT).main([*map(str, folders), "-o", str(run_dir / REPORT_FILE)])
