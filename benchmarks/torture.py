"""Kills a short training at random moments, goes on with it, and compares how it ends with one left alone.

    python benchmarks/torture.py [--kills 100] [--memory expire-span] [--seed 0]

Every trial starts the same training in a process of its own, ends it with SIGKILL, which no process can
prepare for, at a moment drawn evenly from the start of the process to its end, and then starts it again:
with `--resume`, or as it was started where the run's folder had no config yet. What is compared: the names
of all checkpoints, every bit of every tensor in them, their metadata, and TensorBoard's rows but for times.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

N_ENVS, N_STEPS, ROLLOUTS = 8, 32, 40
TRAINING = [
    *("--env.max-length", "10", "--n-envs", str(N_ENVS), "--n-steps", str(N_STEPS), "--width", "32"),
    *("--total-timesteps", str(ROLLOUTS * N_ENVS * N_STEPS), "--stats-window-size", "50"),
    *("--checkpoint-every", str(2 * N_ENVS * N_STEPS), "--observe-previous"),
]


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


class Trial:
    """One run in a folder of its own.

    Args:
        run_dir: where it goes.
        memory: its memory.
    """

    def __init__(self, run_dir: Path, memory: str) -> None:
        self.folder = run_dir / "Corridor-v0" / memory / "0"
        self._first = ["--run-dir", str(run_dir), "--memory", memory, *TRAINING]

    def start(self) -> subprocess.Popen[str]:
        """Starts the run, or goes on with it."""
        begun = (self.folder / "config.yaml").exists()
        flags = ["--resume", str(self.folder)] if begun else self._first
        return subprocess.Popen(
            [sys.executable, "-m", "memspan", "train", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kill_after(self, seconds: float) -> None:
        """Starts or goes on, and kills."""
        process = self.start()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()

    def finish(self) -> None:
        """Goes on to the end.

        Raises:
            RuntimeError: the command fails.
        """
        process = self.start()
        output, _ = process.communicate()
        if process.returncode and "finished already" not in output:
            raise RuntimeError(f"{self.folder}: exit code {process.returncode}\n{output}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills a training at random moments.")
    parser.add_argument("--kills", type=int, default=100, help="trials, each with one kill")
    parser.add_argument("--memory", default="expire-span")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    console = Console()
    moments = random.Random(args.seed)
    bar = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    same = 0
    with tempfile.TemporaryDirectory() as folder, Progress(*bar, console=console) as progress:
        task = progress.add_task("a run left alone", total=args.kills)
        whole = Trial(Path(folder) / "whole", args.memory)
        begin = time.monotonic()
        whole.finish()
        seconds = time.monotonic() - begin
        for number in range(args.kills):
            progress.update(task, description=f"{same} of {number} identical")
            trial = Trial(Path(folder) / str(number), args.memory)
            moment = moments.uniform(0, seconds)
            trial.kill_after(moment)
            trial.finish()
            found = differences(whole.folder, trial.folder)
            same += not found
            for line in found:
                progress.print(f"killed after {moment:.2f} s: {line}")
            shutil.rmtree(trial.folder)
            progress.advance(task)
    console.print(f"{same} of {args.kills} identical")
    return int(same < args.kills)


if __name__ == "__main__":
    raise SystemExit(main())
