"""One run of a sweep, in a process of its own that ends with it."""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
import uuid
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from memspan.agents.files import remove_leftovers, write_atomically
from memspan.evaluate import Options, evaluate_run
from memspan.evaluation import Evaluation, write_events
from memspan.evaluation.results import FILE_NAME
from memspan.runs import RunConfig, load_config, save_config
from memspan.runs.folder import CONFIG
from memspan.sweeps.status import Status, StatusCallback, forget_status
from memspan.train import INTERRUPTED, AlreadyFinishedError, train

LOG = "log.txt"
LOCK = ".lock"
"""Held by the process that works in a run's folder."""
SWEEP_LOCK = ".sweep.lock"
"""Held by the sweep that works in a folder of runs."""
MARK = ".sweep.id"
"""Told apart by it: folders of the same name on machines that do not share them."""
PATIENCE = 60.0
"""Seconds for the process of a killed sweep to notice that it is alone, and to end."""
SECONDS_TO_APPEAR = 10.0
"""Longest time that a shared folder takes to show a new file on another machine."""


@dataclass(frozen=True)
class Job:
    """What a process is told to do."""

    config: RunConfig
    folder: Path
    run_dir: Path
    """Absolute, where the sweep holds its lock."""
    mark: str
    """What `MARK` in that folder holds, by which it is known to be the same one."""
    options: Options
    working_directory: Path
    """The sweep's; where memories and environments of one's own lie."""


@dataclass(frozen=True)
class Outcome:
    """How it ended."""

    error: str = ""
    """What went wrong, in a line; empty if nothing did."""
    again: bool = False
    """Whether it may go better when it is gone on with."""
    result: Evaluation | None = None
    """Where nothing went wrong. Told, because another machine may see the file only later."""


def work(job: Job) -> Outcome:
    """Does a run with its output in a file of its folder; what Ray calls.

    Output goes to the file for good: the process ends with the run.
    """
    missing = _not_shared(job)
    if missing:
        return Outcome(missing)
    job.folder.mkdir(parents=True, exist_ok=True)
    log = open(job.folder / LOG, "a", buffering=1, encoding="utf-8")  # noqa: SIM115  # open to the end
    for number in (1, 2):
        os.dup2(log.fileno(), number)
    sys.stdout = sys.stderr = log
    if job.working_directory.is_dir():
        os.chdir(job.working_directory)
    if str(job.working_directory) not in sys.path:
        sys.path.append(str(job.working_directory))
    try:
        return do(job)
    except ValueError as error:
        traceback.print_exc()
        return Outcome(_in_a_line(error))
    except Exception as error:
        traceback.print_exc()
        return Outcome(_in_a_line(error), again=True)


def do(job: Job) -> Outcome:
    """Trains, from where the run was left, and evaluates.

    Raises:
        ValueError: the folder's files do not fit.
        RuntimeError: training or evaluation failed.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(job.folder / LOCK)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        return Outcome(f"{job.folder}: another process is at work in this folder", again=True)
    try:
        Status("starting").write(job.folder)
        if not (job.folder / CONFIG).is_file():
            save_config(job.config, job.folder)
        # A run goes on with its own settings.
        config = load_config(job.folder)
        try:
            code = train(config, job.folder, [StatusCallback(job.folder)])
            if code != 0:
                # Its environment, its disk, or somebody who ended the process.
                how = "was stopped" if code == INTERRUPTED else "failed"
                return Outcome(f"training {how}; its log says why", again=True)
        except AlreadyFinishedError:
            pass
        return Outcome(result=_evaluate(job))
    finally:
        forget_status(job.folder)
        lock.release()


def _evaluate(job: Job) -> Evaluation:
    told = 0.0

    def on_progress(finished: int) -> None:
        nonlocal told
        if time.monotonic() > told + 1:
            told = time.monotonic()
            Status("evaluating", min(finished / job.options.episodes, 1.0)).write(job.folder)

    Status("evaluating").write(job.folder)
    remove_leftovers(job.folder, FILE_NAME)
    run = evaluate_run(job.folder, job.options, on_progress)
    # Last of all, the file by which a run is known to be finished.
    write_events(job.folder, run)
    run.save(job.folder)
    print(f"Evaluated: {job.folder / FILE_NAME}")
    return run


def read_mark(run_dir: Path) -> str:
    """The mark of a folder of runs; empty if it has none."""
    try:
        return (run_dir / MARK).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def mark(run_dir: Path) -> str:
    """Marks a folder of runs once and for all; returns the mark."""
    if not read_mark(run_dir):
        write_atomically(
            run_dir / MARK, lambda name: Path(name).write_text(uuid.uuid4().hex, encoding="utf-8")
        )
    return read_mark(run_dir)


def _not_shared(job: Job) -> str:
    """What is wrong where the sweep's folder is another one on this machine; empty where it is not."""
    deadline = time.monotonic() + SECONDS_TO_APPEAR
    while read_mark(job.run_dir) != job.mark:
        if time.monotonic() > deadline:
            return f"{job.run_dir}: must be a folder that all machines share; {platform.node()} has another"
        time.sleep(0.2)
    return ""


def _in_a_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    text = " ".join(str(cause).split())
    return text if isinstance(cause, ValueError) else f"{type(cause).__name__}: {text}"
