"""Kills short trainings at random moments, goes on with them, and compares how they end with one left alone.

    python benchmarks/torture.py [--kills 100] [--memory expire-span] [--seed 0]

A training is started in a process of its own, which is ended with SIGKILL, which no process can prepare for,
at a moment drawn evenly from the time that the whole training takes. It is gone on with, with `--resume`, or
as it was started where the run's folder has no config yet, and killed again, until it ends before its time
has come. A kill counts if it ended a process. What is compared then: the names of all checkpoints, every bit
of every tensor in them, their metadata, and TensorBoard's rows but for times.

Processes are forked from one that has imported everything, so that kills hit the training and not the seconds
of imports before it. The run that is left alone has an interpreter of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from memspan import cli
from memspan.runs import RunConfig, make_env

N_ENVS, N_STEPS, ROLLOUTS, EVERY = 8, 6, 16, 2
TRAINING = [
    *("--env.max-length", "10", "--n-envs", str(N_ENVS), "--n-steps", str(N_STEPS), "--width", "16"),
    *("--total-timesteps", str(ROLLOUTS * N_ENVS * N_STEPS), "--stats-window-size", "10"),
    *("--checkpoint-every", str(EVERY * N_ENVS * N_STEPS), "--n-minibatches", "2", "--n-epochs", "1"),
    *("--observe-previous", "--memory.n-layers", "1"),
]
FORKED = multiprocessing.get_context("forkserver")
FRESH = multiprocessing.get_context("spawn")


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two run folders, a line for each; nothing if both end with the same bits."""
    files = [{path.name: path for path in (run / "checkpoints").iterdir()} for run in (one, other)]
    found = [f"checkpoints: {sorted(names)}" for names in files if names.keys() != files[0].keys()]
    for name in sorted(files[0].keys() & files[1].keys()):
        tensors, others = (read_checkpoint(run[name]) for run in files)
        for key in sorted(tensors.keys() | others.keys()):
            if tensors.get(key) != others.get(key):
                found.append(f"{name}: {key}")
    rows, other_rows = scalars(one), scalars(other)
    for tag in sorted(rows.keys() | other_rows.keys()):
        if rows.get(tag) != other_rows.get(tag):
            found.append(f"TensorBoard: {tag}")
    return found


def read_checkpoint(path: Path) -> dict[str, object]:
    """All of a checkpoint but for the folder that it was written to; tensors as their bytes."""
    with safe_open(path, framework="np") as file:
        content: dict[str, object] = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    content.pop("sha256", None)  # of the folder, too
    content["config"] = json.loads(str(content["config"])) | {"run_dir": None}
    return content | {name: (value.dtype, value.shape, value.tobytes()) for name, value in tensors.items()}


def scalars(run: Path) -> dict[str, list[tuple[int, str]]]:
    """TensorBoard's (step, value) by tag, in the order of steps, but for what the clock says."""
    found: dict[str, list[tuple[int, str]]] = {}
    # File by file: those that one process writes in one second have no order by name.
    for file in run.glob("events.out.tfevents.*"):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            if not tag.startswith("time/"):
                # As texts: a value that is no number equals itself.
                found.setdefault(tag, []).extend((one.step, repr(one.value)) for one in events.Scalars(tag))
    return {tag: sorted(rows) for tag, rows in found.items()}


def warm_up() -> None:
    """Imports and loads all that a training needs, to be forked from."""
    for name in ("memspan.train", "memspan.memory", "torch._dynamo"):
        importlib.import_module(name)
    env = make_env(RunConfig(n_envs=1))
    env.reset()
    env.step(np.zeros(1, dtype=np.int64))


if __name__ == "__mp_main__":
    warm_up()


def train(flags: list[str], output: str) -> None:
    """In a process of its own: `memspan train`, with all it says in a file."""
    with open(output, "ab") as file:
        for handle in (1, 2):
            os.dup2(file.fileno(), handle)
    raise SystemExit(cli.main(["train", *flags]))


class Trial:
    """One run in a folder of its own.

    Args:
        run_dir: where it goes.
        memory: its memory.
        output: file for what it says; beside the folder by default.
    """

    def __init__(self, run_dir: Path, memory: str, output: Path | None = None) -> None:
        self.folder = run_dir / "Corridor-v0" / memory / "0"
        self.output = output or run_dir.with_suffix(".txt")
        self.seconds = 0.0
        self._first = ["--run-dir", str(run_dir), "--memory", memory, *TRAINING]

    def start(self, fresh: bool = False) -> BaseProcess:
        """Starts the run, or goes on with it."""
        begun = (self.folder / "config.yaml").exists()
        flags = ["--resume", str(self.folder)] if begun else self._first
        process = (FRESH if fresh else FORKED).Process(target=train, args=(flags, str(self.output)))
        self._begin = time.monotonic()
        process.start()
        return process

    def run(self, fresh: bool = False) -> tuple[int | None, str]:
        """Starts or goes on, to the end; returns the exit code and all that has been said."""
        process = self.start(fresh)
        process.join()
        self.seconds = time.monotonic() - self._begin
        return process.exitcode, self.output.read_text()

    def ends_within(self, seconds: float) -> bool:
        """Starts or goes on; after so many seconds it is killed.

        Returns:
            Whether it came to its end.

        Raises:
            RuntimeError: the command failed.
        """
        process = self.start()
        process.join(seconds)
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            return False
        self.seconds = time.monotonic() - self._begin
        self.check(process.exitcode, self.output.read_text())
        return True

    def check(self, code: int | None, said: str) -> None:
        """Raises RuntimeError for a command that failed."""
        if code and "finished already" not in said:
            raise RuntimeError(f"{self.folder}: exit code {code}\n{said}")

    def reached(self) -> int | None:
        """Rollouts that the newest checkpoint was written after; None where there is no config yet."""
        if not (self.folder / "config.yaml").exists():
            return None
        numbers = [int(path.stem) for path in self.folder.glob("checkpoints/[0-9]*.safetensors")]
        return max(numbers, default=0) // (N_ENVS * N_STEPS)


def where(reached: int | None) -> str:
    """In words, for the count of where kills hit."""
    if reached is None:
        return "before the config was written"
    if reached == 0:
        return "before the first checkpoint"
    quarter = 4 * (reached - 1) // ROLLOUTS
    return f"after a checkpoint in quarter {quarter + 1} of the run"


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills a training at random moments.")
    parser.add_argument("--kills", type=int, default=100, help="how many; each ends a process")
    parser.add_argument("--memory", default="expire-span")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    console = Console()
    draw = random.Random(args.seed)
    bar = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    FORKED.set_forkserver_preload(["__main__"])
    survived, killed, runs, hits = 0, 0, 0, Counter[str]()
    with tempfile.TemporaryDirectory() as folder, Progress(*bar, console=console) as progress:
        task = progress.add_task("a run left alone", total=args.kills)
        whole = Trial(Path(folder) / "whole", args.memory)
        whole.check(*whole.run(fresh=True))
        FORKED.Process(target=time.sleep, args=(0,)).start()  # imports, which are not to be timed
        clock = Trial(Path(folder) / "clock", args.memory)
        clock.check(*clock.run())
        seconds = clock.seconds
        while killed < args.kills:
            trial, moments = Trial(Path(folder) / str(runs), args.memory), list[str]()
            reached = None
            while killed + len(moments) < args.kills:
                before, moment = reached, draw.uniform(0, seconds)
                if trial.ends_within(moment):
                    break
                reached = trial.reached()
                hits[where(reached)] += 1
                moments.append(f"{moment:.1f} s, {where(reached)}")
                progress.update(task, completed=killed + len(moments))
                if not console.is_terminal:
                    print(f"kill {killed + len(moments)}, run {runs}: {moments[-1]}", flush=True)
                # How long a run takes may change with what else the machine does: not to kill starts alone.
                seconds *= 1.0 if reached != before else 1.2
            else:
                trial.check(*trial.run())
            seconds = trial.seconds * ROLLOUTS / max(ROLLOUTS - (reached or 0), ROLLOUTS // 4)
            found = differences(whole.folder, trial.folder)
            runs += 1
            killed += len(moments)
            survived += 0 if found else len(moments)
            for line in found:
                progress.print(f"killed after {'; '.join(moments)}: {line}")
            shutil.rmtree(trial.folder)
            progress.update(task, description=f"{survived} of {killed} kills survived")
            if not console.is_terminal:
                print(f"{survived} of {killed} kills survived, {runs} runs", flush=True)
    for words, count in sorted(hits.items()):
        console.print(f"{count:4} killed {words}")
    console.print(f"{survived} of {killed} kills survived, in {runs} runs")
    return int(survived < args.kills)


if __name__ == "__main__":
    raise SystemExit(main())
