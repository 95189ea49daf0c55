"""Trains for long, and draws what the process holds: memory and open files must not grow.

    python benchmarks/long_run.py [--steps 10000000] [--memory expire-span] [--figure long-run.png]

The run goes to a temporary folder. Resident memory and open file handles are read at every rollout. It
fails where memory grew by more than 5 % + 16 MiB, or the handles by more than two, between a fifth of the
run and its end.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import psutil
from matplotlib.figure import Figure
from stable_baselines3.common.callbacks import BaseCallback

from memspan.runs import RunConfig, run_folder, save_config
from memspan.train import train

MIB = 2**20


class Usage(BaseCallback):
    """Notes (timesteps, seconds, resident bytes, open files) when a rollout begins."""

    def __init__(self) -> None:
        super().__init__()
        self.process = psutil.Process()
        self.rows: list[tuple[int, float, int, int]] = []
        self.begin = time.monotonic()

    def _on_rollout_start(self) -> None:
        seconds = time.monotonic() - self.begin
        handles = (
            len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else self.process.num_fds()
        )
        self.rows.append((self.num_timesteps, seconds, self.process.memory_info().rss, handles))

    def _on_step(self) -> bool:
        return True


def draw(rows: list[tuple[int, float, int, int]], title: str, path: Path) -> None:
    """Memory and handles against timesteps, one above the other."""
    steps = [row[0] / 1e6 for row in rows]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(steps, [row[2] / MIB for row in rows], color="#0072B2")
    above.set_ylabel("resident memory, MiB")
    above.set_title(title, fontsize="medium", loc="left")
    below.plot(steps, [row[3] for row in rows], color="#D55E00", drawstyle="steps-post")
    below.set_ylabel("open files")
    below.set_xlabel("timesteps, millions")
    for axes in above, below:
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description="Trains for long.")
    parser.add_argument("--steps", type=int, default=10_000_000)
    parser.add_argument("--memory", default="expire-span")
    parser.add_argument("--figure", type=Path, default=Path("long-run.png"))
    args = parser.parse_args()
    usage = Usage()
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            memory=args.memory,
            total_timesteps=args.steps,
            run_dir=Path(folder),
            checkpoint_every=max(args.steps // 20, 1),
            env_kwargs={"max_length": 50},
            device="cpu",
        )
        save_config(config, run_folder(config))
        code = train(config, run_folder(config), [usage])
    if code:
        return code
    draw(usage.rows, f"{args.memory} on {config.env}, {args.steps:,} steps", args.figure)
    args.figure.with_suffix(".json").write_text(json.dumps(usage.rows))
    settled, end = usage.rows[len(usage.rows) // 5], usage.rows[-1]
    grown, opened = end[2] - settled[2], end[3] - settled[3]
    print(f"resident memory {settled[2] / MIB:.0f} MiB after a fifth, {end[2] / MIB:.0f} MiB at the end")
    print(f"open files {settled[3]} and {end[3]}; figure: {args.figure}")
    return int(grown > 0.05 * settled[2] + 16 * MIB or opened > 2)


if __name__ == "__main__":
    raise SystemExit(main())
