"""Kills a sweep again and again at random moments, and compares how it ends with one left alone.

    python benchmarks/kill_sweep.py [--kills 10] [--seed 0] [--processes N]

A small sweep is started, ended with SIGKILL at a random moment, and started again, so many times in a row;
then it is started once more and left alone. Of the kills, one half hits the sweep's own process and every
process that it has started, the other half its own process alone, whose workers are then orphans. What is
compared: checkpoints, TensorBoard's rows but for times, evaluation.json but for speeds, which folders there
are, and how often each run was evaluated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console
from torture import differences

SWEEP = """
env: memspan/Corridor-v0
seeds: [0, 1]
settings:
  env.max_length: 10
  n_envs: 8
  n_steps: 32
  width: 32
  total_timesteps: 4096
  checkpoint_every: 512
  stats_window_size: 50
evaluation: {episodes: 200}
runs:
  - memory: lstm
  - memory: expire-span
    grid: {memory.max_span: [8, 16]}
"""
N_RUNS = 6
TIMES = ("steps_per_second",)
"""Fields of an evaluation that depend on the clock."""


class Sweep:
    """A sweep in a folder of its own.

    Args:
        folder: where file and runs go.
        processes: runs side by side.
    """

    def __init__(self, folder: Path, processes: int) -> None:
        folder.mkdir()
        self.folder = folder
        (folder / "sweep.yaml").write_text(SWEEP)
        self._flags = ["sweep.yaml", "--run-dir", "runs", "--processes", str(processes)]

    def start(self) -> subprocess.Popen[bytes]:
        """Starts it, or goes on with it; what it prints is added to a file."""
        with open(self.folder / "output.txt", "ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "memspan", "sweep", *self._flags],
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def finish(self) -> float:
        """Goes on to the end; returns the seconds that it took.

        Raises:
            RuntimeError: the command fails.
        """
        begin = time.monotonic()
        code = self.start().wait()
        if code:
            raise RuntimeError(f"exit code {code}\n{(self.folder / 'output.txt').read_text()}")
        return time.monotonic() - begin

    def kill_after(self, seconds: float, with_workers: bool) -> tuple[bool, int]:
        """Goes on for a while, and kills.

        Returns:
            Whether it was still at work, and how many processes were left at the next start.
        """
        process = self.start()
        try:
            process.wait(seconds)
            return False, 0
        except subprocess.TimeoutExpired:
            started = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        if with_workers:
            for one in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        return True, sum(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in started)

    def runs(self) -> dict[str, Path]:
        """Run folders by their place."""
        below = self.folder / "runs"
        return {str(file.parent.relative_to(below)): file.parent for file in below.rglob("config.yaml")}

    def n_finished(self) -> int:
        """Runs that have been evaluated."""
        return len([*(self.folder / "runs").rglob("evaluation.json")])


def compare(whole: Sweep, killed: Sweep) -> list[str]:
    """What differs, a line for each; nothing if no run was lost, done twice or changed."""
    theirs, ours = whole.runs(), killed.runs()
    found = [f"{name}: in one of the sweeps only" for name in sorted(theirs.keys() ^ ours.keys())]
    for name in sorted(theirs.keys() & ours.keys()):
        found += [f"{name}: {line}" for line in differences(theirs[name], ours[name])]
        results = [json.loads((run[name] / "evaluation.json").read_text()) for run in (theirs, ours)]
        for key in results[0]:
            if key not in TIMES and results[0][key] != results[1].get(key):
                found.append(f"{name}: evaluation.json: {key}")
        if (n := (ours[name] / "log.txt").read_text().count("Evaluated:")) > 1:
            found.append(f"{name}: evaluated {n} times")
        if (n := len([*ours[name].glob("*.evaluation")])) != 1:
            found.append(f"{name}: {n} event files of evaluations")
        found += [f"{name}: {path.name} is left over" for path in ours[name].glob(".*.json*")]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills a sweep again and again at random moments.")
    parser.add_argument("--kills", type=int, default=10, help="how many, in a row")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--processes", type=int, default=1, help="runs side by side")
    args = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = Sweep(Path(folder) / "whole", args.processes)
        seconds = whole.finish()
        console.print(f"left alone: {whole.n_finished()} of {N_RUNS} runs in {seconds:.0f} s")
        killed = Sweep(Path(folder) / "killed", args.processes)
        n_hits = 0
        for number in range(args.kills):
            # So early that ten of them do not let it come to its end, and so late that runs are under way.
            moment = moments.uniform(0, 0.3 * seconds)
            with_workers = number % 2 == 0
            hit, n_left = killed.kill_after(moment, with_workers)
            n_hits += hit
            what = "all processes" if with_workers else f"its own process, {n_left} others left"
            told = f"killed after {moment:.1f} s ({what})" if hit else "had come to its end before"
            console.print(f"start {number + 1}: {told}; {killed.n_finished()} of {N_RUNS} runs finished")
        seconds = killed.finish()
        console.print(f"last start: {killed.n_finished()} of {N_RUNS} runs finished, after {seconds:.0f} s")
        found = compare(whole, killed)
    for line in found:
        console.print(line)
    console.print(f"{n_hits} kills: {'the same results' if not found else f'{len(found)} differences'}")
    # Where nothing was hit, nothing was shown.
    return int(bool(found) or not n_hits)


if __name__ == "__main__":
    raise SystemExit(main())
