"""Copies what a result needs from run folders into a results folder, and prints tables of it.

    python results/publish.py RUNS FOLDER ENVIRONMENT...

Per run: the configuration, the evaluation, and learning curves as CSV.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CURVES = {"success_rate": "rollout/success_rate", "effective_memory": "memory/effective_memory"}


def curves(run: Path) -> tuple[list[dict[str, float]], float]:
    """One row per logged step, and the minutes from the first to the last of them."""
    rows: dict[int, dict[str, float]] = {}
    times: list[float] = []
    for events in sorted(run.glob("events.out.tfevents.*")):
        if events.name.endswith(".evaluation"):
            continue
        accumulator = EventAccumulator(str(events), size_guidance={"scalars": 0}).Reload()
        for column, tag in CURVES.items():
            if tag in accumulator.Tags()["scalars"]:
                for event in accumulator.Scalars(tag):
                    rows.setdefault(event.step, {"timesteps": event.step})[column] = round(event.value, 4)
                    times.append(event.wall_time)
    return [rows[step] for step in sorted(rows)], (max(times) - min(times)) / 60


def publish(run: Path, target: Path) -> dict[str, Any]:
    """Copies one run; returns its evaluation."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / "evaluation.json", target / "evaluation.json")
    # Where the runs lay on this machine is nobody's business.
    config = (run / "config.yaml").read_text()
    (target / "config.yaml").write_text(re.sub(r"(?m)^run_dir: .*$", "run_dir: runs/results", config))
    rows, minutes = curves(run)
    with (target / "curve.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["timesteps", *CURVES])
        writer.writeheader()
        # Every eighth rollout shows the course.
        writer.writerows(rows[::8])
    evaluation: dict[str, Any] = json.loads((run / "evaluation.json").read_text())
    return evaluation | {"minutes": minutes}


def table(evaluations: dict[str, dict[str, Any]]) -> str:
    """Markdown, one line a run."""
    lines = [
        "| run | steps | minutes | success | 95 % interval | effective memory | peak | capacity | bytes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, e in evaluations.items():
        low, high = e["success_ci"]
        lines.append(
            f"| {name} | {e['timesteps'] / 1e6:.1f} M | {e['minutes']:.1f} "
            f"| {e['success_rate']:.3f} | {low:.3f} to {high:.3f} "
            f"| {e['effective_memory']:.1f} | {e['peak_memory']:.0f} | {e['capacity']:.0f} "
            f"| {e['state_bytes']:,} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Publishes the evaluated runs of the environments named."""
    if len(sys.argv) < 4:
        sys.exit("usage: python results/publish.py RUNS TARGET ENVIRONMENT...")
    runs, folder = Path(sys.argv[1]), Path(sys.argv[2])
    for env in [runs / name for name in sys.argv[3:]]:
        done = sorted(path.parent for path in env.glob("*/*/evaluation.json"))
        found = {
            f"{run.parent.name}/{run.name}": publish(run, folder / env.name / run.relative_to(env))
            for run in done
        }
        print(f"\n{env.name}\n\n{table(found)}")


if __name__ == "__main__":
    main()
