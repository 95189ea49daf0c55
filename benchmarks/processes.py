"""One run in two processes on two cores beside one process on one: 2 x 32 environments, and 1 x 64.

Each is a run of `train.py` of its own, so this part alone compares processes that are started one after the
other. Steps/s are read off the run's TensorBoard file, from the first rollouts to the last, so that starting
does not count.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from side_by_side import Row, Size, Table, Target, Turn, in_turns
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parents[1]
TAG = "memory/effective_memory"
"""In the TensorBoard file once per rollout."""
SKIPPED = 4
"""Rollouts before counting begins."""
SETTINGS = (
    *("--memory", "transformer-xl", "--memory.n-layers", "2", "--memory.n-heads", "4"),
    *("--n-epochs", "3", "--device", "cpu", "--threads", "1"),
)
TARGET = 1.7


def run(n_processes: int, n_envs: int, n_steps: int, rollouts: int) -> Turn:
    """Turns of one training run each, on as many cores as there are processes."""
    cores = sorted(range(os.cpu_count() or 1))[-n_processes:]
    launcher = [] if n_processes == 1 else ["-m", "torch.distributed.run", f"--nproc-per-node={n_processes}"]
    sizes = ["--n-envs", str(n_envs), "--n-steps", str(n_steps)]
    total = ["--total-timesteps", str(n_envs * n_steps * (rollouts + SKIPPED + 1))]

    def turn() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            place = ["--run-dir", folder]
            subprocess.run(
                [sys.executable, *launcher, str(ROOT / "train.py"), *SETTINGS, *sizes, *total, *place],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
            (events,) = Path(folder).rglob("events.out.tfevents.*")
            accumulator = EventAccumulator(str(events.parent))
            accumulator.Reload()
            told = accumulator.Scalars(TAG)[SKIPPED:]
        return {"training": (told[-1].step - told[0].step) / (told[-1].wall_time - told[0].wall_time)}

    return turn


def tables(size: Size, tell: Callable[[str], None]) -> list[Table]:
    """All of this file."""
    title = "Two processes of 32 environments on two cores, beside one of 64 on one"
    if importlib.util.find_spec("memspan.agents.distributed") is None:
        tell("this version trains in one process only: not measured")
        return [Table(title, "steps/s", [], notes=["Not measured: this version trains in one process only."])]
    if (os.cpu_count() or 1) < 2 or not hasattr(os, "sched_setaffinity"):
        tell("needs two cores: not measured")
        return [Table(title, "steps/s", [], notes=["Not measured: this machine has one core."])]
    sizes = size.of(64, 16), size.of(128, 16), size.of(10, 2)
    contestants = {"two": run(2, *sizes), "one": run(1, *sizes)}
    found = in_turns(contestants, size.of(3, 1), tell)
    row = Row(
        "transformer-xl, 2 processes",
        found["two"]["training"],
        "1 process",
        found["one"]["training"],
        Target("ratio", at_least=TARGET),
    )
    return [Table(title, "steps/s", [row], notes=["Memory 200, 2 layers, 4 heads, width 64, 3 epochs."])]
