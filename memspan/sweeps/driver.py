"""Hands runs to Ray, and hands those that crash to it again."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memspan.evaluate import Options
from memspan.evaluation import Evaluation
from memspan.sweeps.grid import SweepRun
from memspan.sweeps.status import forget_status
from memspan.sweeps.worker import Job, Outcome, mark, work

if TYPE_CHECKING:
    from types import ModuleType

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_STOP = 60.0
"""For running trainings to write a checkpoint when the sweep is interrupted."""
STARTS = 3
"""Attempts to start Ray on this machine."""
OBJECT_STORE_BYTES = 80 * 1024**2
"""Nothing but settings passes through it."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # A run that asks for no GPU sees none; Ray would say in each process that this may change.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


@dataclass(frozen=True)
class Event:
    """Something that happened to a run."""

    run: SweepRun
    kind: str
    """done, again or failed."""
    text: str = ""
    result: Evaluation | None = None
    """Of one that is done."""


def import_ray() -> ModuleType:
    """Ray, told to be quiet.

    Raises:
        ValueError: it is not installed.
    """
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        raise ValueError("memspan sweep needs Ray; install it with: pip install 'memspan[ray]'") from None
    return ray


@contextmanager
def connected(address: str | None, processes: int) -> Iterator[ModuleType]:
    """A Ray of this sweep's own on this machine, or the cluster at `address`.

    Args:
        address: of a cluster; None: this machine.
        processes: how many runs go on side by side here.

    Raises:
        ValueError: Ray is not installed or does not start, or there is no cluster.
    """
    ray = import_ray()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        quiet |= {"num_cpus": processes, "object_store_memory": OBJECT_STORE_BYTES}
        _start_here(ray, include_dashboard=False, **quiet)
    else:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ValueError(f"address={address!r}: no cluster can be reached there ({error})") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _start_here(ray: ModuleType, **settings: Any) -> None:
    """Starts Ray on this machine; it gives up after half a minute, so a busy machine gets three of them.

    Raises:
        ValueError: it does not start.
    """
    for left in range(STARTS - 1, -1, -1):
        try:
            ray.init(address="local", **settings)
        except Exception as error:  # Ray has no narrower one for a machine that is too busy to start it
            ray.shutdown()
            if not left:
                said = f"Ray did not start on this machine ({error})"
                raise ValueError(f"{said}; nothing was begun, so start the sweep again") from error
        else:
            return


def without_a_place(ray: ModuleType, runs: Sequence[SweepRun]) -> SweepRun | None:
    """The first run that asks for more CPUs or GPUs than any machine has; None if there is none."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for run in runs:
        if not any(run.cpus <= has.get("CPU", 0) and run.gpus <= has.get("GPU", 0) for has in machines):
            return run
    return None


class Driver:
    """The runs that are under way.

    Args:
        ray: connected.
        run_dir: absolute; it is there.
        retries: how often a run that has crashed is gone on with.
        options: of the evaluation.
    """

    def __init__(self, ray: ModuleType, run_dir: Path, retries: int, options: Options) -> None:
        self.ray = ray
        self.run_dir = run_dir
        self.mark = mark(run_dir)
        self.retries = retries
        self.options = options
        self.under_way: dict[Any, SweepRun] = {}
        self._crashes: dict[Path, int] = {}
        # A process for each run, and no retries of Ray's own: which checkpoint to go on from is our business.
        self._work = ray.remote(max_calls=1, max_retries=0)(work)

    def start(self, run: SweepRun) -> None:
        """Hands a run to Ray, which begins with it when there is room."""
        forget_status(run.folder)
        job = Job(run.config, run.folder, self.run_dir, self.mark, self.options, Path.cwd())
        task = self._work.options(num_cpus=run.cpus, num_gpus=run.gpus, name=f"{run.name}/{run.config.seed}")
        self.under_way[task.remote(job)] = run

    def look(self) -> list[Event]:
        """Waits for a moment; what has happened."""
        ended, _ = self.ray.wait(list(self.under_way), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
        return [self._ended(self.under_way.pop(task), task) for task in ended]

    def _ended(self, run: SweepRun, task: Any) -> Event:
        try:
            outcome: Outcome = self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            outcome = Outcome(f"its process died ({type(error).__name__})", again=True)
        if not outcome.error:
            return Event(run, "done", result=outcome.result)
        crashes = self._crashes[run.folder] = self._crashes.get(run.folder, 0) + 1
        if outcome.again and crashes <= self.retries:
            self.start(run)
            return Event(run, "again", f"{outcome.error}; going on with it, {crashes} of {self.retries}")
        return Event(run, "failed", outcome.error)

    def stop(self) -> None:
        """Has trainings stop between two steps and write a checkpoint, and waits for them."""
        tasks = list(self.under_way)
        for task in tasks:
            self.ray.cancel(task, force=False)
        if tasks:
            self.ray.wait(tasks, num_returns=len(tasks), timeout=SECONDS_TO_STOP)
