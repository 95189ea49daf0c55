"""Training steps per second of trained agents that go on, in turns: what forgetting saves.

    python benchmarks/trained.py RUN RUN...

Each run's last checkpoint is loaded and trains for a few rollouts at a time, one run after the other, so that
what else the machine does hits all of them. Nothing is written.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from memspan.runs import checkpoint_path, load_checkpoint, load_config, make_env, make_model


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rollouts", type=int, default=4, help="in each turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = {}
    for run in options.runs:
        config = load_config(run)
        model = make_model(config, make_env(config, seed=1))
        load_checkpoint(model, config, checkpoint_path(run, "last"))
        steps = options.rollouts * model.n_steps * model.n_envs
        model.learn(steps, reset_num_timesteps=False)  # until memories are as long as they will be
        models[run] = model, steps
    rates: dict[Path, list[float]] = {run: [] for run in models}
    for _ in range(options.turns):
        for run, (model, steps) in models.items():
            before, start = model.num_timesteps, time.perf_counter()
            model.learn(steps, reset_num_timesteps=False)
            rates[run].append((model.num_timesteps - before) / (time.perf_counter() - start))
    table = Table("run", "steps/s, median", "turn by turn", title="Training steps per second, one thread")
    for run, found in rates.items():
        table.add_row(str(run), f"{median(found):,.0f}", " ".join(f"{rate:,.0f}" for rate in found))
    Console(width=max(Console().width, 110)).print(table)


if __name__ == "__main__":
    main()
