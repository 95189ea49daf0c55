"""`memspan compare`: opens TensorBoard on runs, laid out for the question how much memory success costs."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import urllib.parse
import webbrowser
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional

from memspan.evaluation.comparison import METRICS, Comparison, Entry, score_of, tasks
from memspan.evaluation.curves import MEAN_RETURN, MEMORY, SPEED, SUCCESS, Curves
from memspan.evaluation.results import FILE_NAME, Evaluation
from memspan.runs import LEFT_OUT, RunConfig, lines_of, load_config, run_folder, scan_runs
from memspan.runs.checkpoint import as_plain
from memspan.runs.config import NOT_SETTINGS
from memspan.runs.folder import CONFIG
from memspan.show.board import start_tensorboard, wait_for_runs

COLUMNS = 100
MARK = ".memspan-comparison"
"""A file by which a comparison's folder is known, so that nothing else is ever deleted."""
LONGEST_NAME = 200
"""Bytes of a folder's name; file systems allow 255, and some of it is needed for what is appended."""
EVERY = 5.0
"""Seconds between looks at what trainings have written."""
LARGEST_PORT = 65535
MOST_SELECTED = 40
"""Runs up to which TensorBoard selects all at first."""


@dataclass(frozen=True)
class Options:
    """Open TensorBoard on runs, laid out for the question how much memory success costs.

    Run folders are only read. Runs that are still training are followed.
    """

    runs: Positional[tuple[Path, ...]]
    """Run folders, or folders with run folders somewhere below."""
    logdir: Path | None = None
    """Folder for the comparison's events, made anew each time; by default a temporary one."""
    host: str = "localhost"
    """Where to listen; 0.0.0.0: to other machines too."""
    port: int | None = None
    """Port to listen at, 0: any that is free; by default 6006, or any if that is taken."""
    open: bool = False
    """Open the page in a browser."""
    write_only: bool = False
    """Write the comparison to --logdir and stop."""

    def validate(self) -> None:
        """Raises ValueError that names the option, its value and what is allowed."""
        if not self.runs:
            raise ValueError("runs: must name at least one run folder")
        if self.port is not None and not 0 <= self.port <= LARGEST_PORT:
            raise ValueError(f"port={self.port}: must be from 0 to {LARGEST_PORT}")
        if self.write_only and self.logdir is None:
            raise ValueError("logdir: must be given with --write-only")


def main(args: Sequence[str] | None = None) -> int:
    """Shows the comparison until it is interrupted.

    Returns:
        The exit code: 1 where a run is damaged or foreign and was left out, otherwise 0.

    Raises:
        ValueError: an option is wrong, or no run is left.
    """
    args = sys.argv[1:] if args is None else args
    options = tyro.cli(Options, prog="memspan compare", args=args, config=(FlagCreatePairsOff,))
    options.validate()
    found, left_out = scan_runs(options.runs, read_run)
    entries = with_names(found)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with ExitStack() as stack:
        if options.logdir is None:
            logdir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memspan-compare-")))
        else:
            logdir = options.logdir
            make_anew(logdir, found)
        comparison = stack.enter_context(Comparison(logdir, entries))
        comparison.write()
        for line in in_words(entries):
            console.print(line)
        for line in lines_of(left_out):
            print(f"memspan: {line}", file=sys.stderr)
        if options.write_only:
            console.print(f"Comparison: {logdir}")
        else:
            show(comparison, options, console)
    return LEFT_OUT if left_out else 0


def show(comparison: Comparison, options: Options, console: Console) -> None:
    """Serves the comparison until it is interrupted."""
    with console.status("Starting TensorBoard"):
        address = start_tensorboard(comparison.logdir, options.host, options.port)
        missing = wait_for_runs(address, comparison.runs)
    for name in missing:
        print(f"memspan: TensorBoard does not show {name} yet", file=sys.stderr)
    many = len(comparison.runs) > MOST_SELECTED
    pages = pages_of(address, comparison.entries, "cost/" if many else "")
    for title, (page, what) in pages.items():
        console.print(f"{title}: {what}\n  {page}")
    if many:
        console.print(
            f"TensorBoard selects none of more than {MOST_SELECTED} runs. Custom Scalars begins with the "
            'lines over effective memory, "cost/"; write another pattern on the left, such as lstm, or '
            "toggle all runs."
        )
    console.print("Ctrl-C ends it.")
    if options.open:
        webbrowser.open(next(iter(pages.values()))[0])
    try:
        while True:
            time.sleep(EVERY)
            comparison.follow()
    except KeyboardInterrupt:
        console.print("TensorBoard ended.")


def pages_of(address: str, entries: Sequence[Entry], pattern: str = "") -> dict[str, tuple[str, str]]:
    """Tab -> (address, what it shows). Curves are shown as they are, without TensorBoard's smoothing.

    Args:
        address: of the server, with a slash at the end.
        entries: what is compared.
        pattern: of the runs that Custom Scalars lists at first.
    """
    cards = [
        {"plugin": "scalars", "tag": f"cost/{task}/{score_of(entries, task)}"} for task in tasks(entries)
    ]
    chosen = f"&regexInput={urllib.parse.quote(pattern, safe='')}" if pattern else ""
    query = urllib.parse.urlencode({"smoothing": 0, "pinnedCards": json.dumps(cards)})
    return {
        "Custom Scalars": (
            f"{address}#custom_scalars&_smoothingWeight=0{chosen}",
            "per task, success by effective memory; success, memory and speed while training",
        ),
        "HParams": (f"{address}#hparams", "every run's settings and results in a table"),
        "Time Series": (f"{address}?{query}#timeseries", "all curves, success by effective memory on top"),
    }


def read_run(folder: Path) -> Entry:
    """What there is of a run to compare.

    Raises:
        ValueError: the folder is no run's, is damaged, or has nothing to show yet.
    """
    config = load_config(folder)
    plain = _plain(config)
    task = task_of(config.env, plain["env_kwargs"])
    where = run_folder(config).relative_to(config.run_dir)
    # Folders of events are called by these, and a foreign config may say anything.
    for name in (where, Path(task, config.memory)):
        if ".." in name.parts:
            raise ValueError(f"{folder / CONFIG}: leads to {name}: must not leave its folder")
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in name.parts):
            raise ValueError(f"{folder / CONFIG}: leads to a name of more than {LONGEST_NAME} bytes")
    curves = Curves(folder)
    curves.read()
    run = Evaluation.load(folder) if (folder / FILE_NAME).is_file() else None
    results = {
        "success_rate": curves.last(SUCCESS) if run is None else run.success_rate,
        "effective_memory": curves.last(MEMORY) if run is None else run.effective_memory,
        "mean_return": curves.last(MEAN_RETURN) if run is None else run.mean_return,
        "steps_per_second": curves.last(SPEED),
    }
    told = {name: results[name] for name in METRICS if results[name] is not None}
    if not told:
        raise ValueError(f"{folder}: has neither TensorBoard events nor {FILE_NAME} yet")
    settings = {"name": config.name or config.memory, "seed": config.seed}
    settings |= {key: value for key, value in plain.items() if key not in NOT_SETTINGS}
    settings |= {f"memory.{key}": value for key, value in plain["memory_kwargs"].items()}
    return Entry(
        name=where.as_posix(),
        task=task,
        memory=config.memory,
        settings=settings,
        results={name: float(value) for name, value in told.items() if value is not None},
        evaluated=run is not None,
        timesteps=curves.timesteps if run is None else run.timesteps,
        curves=curves,
    )


def task_of(env: str, env_kwargs: Mapping[str, Any]) -> str:
    """The environment's id, and its settings if any were given."""
    told = ",".join(f"{key}={value}" for key, value in sorted(env_kwargs.items()))
    short = env.rpartition(":")[2].removeprefix("memspan/")
    return f"{short}({told})" if told else short


def with_names(found: Mapping[Path, Entry]) -> list[Entry]:
    """The runs in order; those of the same name are told apart by where their folders are."""
    names = [entry.name for entry in found.values()]
    same = [folder.resolve() for folder, entry in found.items() if names.count(entry.name) > 1]
    above = Path(os.path.commonpath(same)) if same else Path()
    entries = [
        replace(entry, name=folder.resolve().relative_to(above).as_posix())
        if names.count(entry.name) > 1
        else entry
        for folder, entry in found.items()
    ]
    return sorted(entries, key=lambda entry: (entry.task, entry.name))


def in_words(entries: Sequence[Entry]) -> Iterable[str]:
    """What is compared, and which runs have no results of held-out episodes."""
    yield f"{len(entries)} runs of {', '.join(tasks(entries))}"
    for entry in entries:
        if not entry.evaluated:
            yield f"{entry.name}: not evaluated, so its results are the last of its training"


def make_anew(logdir: Path, runs: Iterable[Path]) -> None:
    """Makes the folder empty, if it is new, empty or an earlier comparison.

    Raises:
        ValueError: it holds something else, or lies in a run's folder.
    """
    inside = logdir.resolve()
    for run in runs:
        if inside.is_relative_to(run.resolve()):
            raise ValueError(f"logdir={str(logdir)!r}: must not be in the folder of a run")
    if logdir.is_dir() and any(logdir.iterdir()):
        if not (logdir / MARK).is_file():
            raise ValueError(f"logdir={str(logdir)!r}: must be a new folder, an empty one or a comparison's")
        for path in logdir.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MARK:
                path.unlink()
    logdir.mkdir(parents=True, exist_ok=True)
    (logdir / MARK).touch()


def _plain(config: RunConfig) -> dict[str, Any]:
    try:
        return as_plain(config)
    except ValueError:  # a memory that is not at hand, or no longer has these settings
        return asdict(config)
