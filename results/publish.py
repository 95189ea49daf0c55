"""Copies what a result needs from run folders into a results folder, and prints tables of it.

    python results/publish.py [--weights NAME]... RUNS FOLDER ENVIRONMENT...

Per run: the configuration, the evaluation, learning curves as CSV, and, if there are any, evaluations beyond
training and the memory horizon. Of the runs of NAME with seed 0 also the last weights, without the optimizer:
enough to evaluate, watch and report them. Every run goes to FOLDER/ENVIRONMENT/runs.md, means are printed.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from memspan.evaluation import Evaluation, success_interval
from memspan.runs import checkpoint_path
from memspan.runs.checkpoint import FORMATS, digest

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
    for path in [*run.glob("beyond/*/evaluation.json"), *run.glob("horizon.json")]:
        copy = target / path.relative_to(run)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    rows, minutes = curves(run)
    with (target / "curve.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["timesteps", *CURVES])
        writer.writeheader()
        # Every eighth rollout shows the course.
        writer.writerows(rows[::8])
    evaluation: dict[str, Any] = json.loads((run / "evaluation.json").read_text())
    return evaluation | {"minutes": minutes}


def publish_weights(run: Path, target: Path) -> None:
    """Copies what the policy has learnt from the last checkpoint."""
    source = checkpoint_path(run)
    with safe_open(source, framework="pt") as file:
        metadata = dict(file.metadata())
        names = [name for name in file.keys() if name.startswith(("policy.", "recent."))]  # noqa: SIM118
        tensors = {name: file.get_tensor(name) for name in names}
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | {"run_dir": "runs/results"})
    metadata |= {"format": FORMATS[-1], "sha256": ""}
    metadata["sha256"] = digest(tensors, metadata)
    (target / "checkpoints").mkdir(exist_ok=True)
    save_file(tensors, target / "checkpoints" / source.name, metadata)


def row(*cells: object) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def run_table(evaluations: dict[str, dict[str, Any]]) -> str:
    """Markdown, one line a run."""
    head = ("run", "steps", "minutes", "success", "95 % interval", "effective memory", "peak", "capacity")
    lines = [row(*head, "bytes", "commit"), row(*["---"] * 10)]
    for name, e in evaluations.items():
        low, high = e["success_ci"]
        lines.append(
            row(
                name,
                f"{e['timesteps'] / 1e6:.1f} M",
                f"{e['minutes']:.1f}",
                f"{e['success_rate']:.3f}",
                f"{low:.3f} to {high:.3f}",
                f"{e['effective_memory']:.1f}",
                f"{e['peak_memory']:.3g}",
                f"{e['capacity']:.3g}",
                f"{e['state_bytes']:,}",
                (e["git_commit"] or "")[:7],
            )
        )
    return "\n".join(lines)


def mean_table(evaluations: dict[str, dict[str, Any]], folder: Path) -> str:
    """Markdown, one line for each setting: means over seeds, intervals over seeds and episodes."""
    head = ("memory and settings", "seeds", "success", "95 % interval", "effective memory", "peak")
    lines = [row(*head, "bytes", "minutes"), row(*["---"] * 8)]
    groups: dict[str, list[str]] = {}
    for name in evaluations:
        groups.setdefault(name.partition("/")[0], []).append(name)
    for group, names in groups.items():
        runs = [Evaluation.load(folder / name) for name in names]
        low, high = success_interval(runs)
        memory = [run.effective_memory for run in runs]
        least, most = f"{min(memory):.1f}", f"{max(memory):.1f}"
        lines.append(
            row(
                group,
                len(runs),
                f"{fmean(run.success_rate or 0 for run in runs):.3f}",
                f"{low:.3f} to {high:.3f}",
                f"{fmean(memory):.1f}" + (f" ({least} to {most})" if least != most else ""),
                f"{max(run.peak_memory for run in runs):.3g}",
                f"{max(run.state_bytes for run in runs):,}",
                f"{fmean(evaluations[one]['minutes'] for one in names):.1f}",
            )
        )
    return "\n".join(lines)


def main() -> None:
    """Publishes the evaluated runs of the environments named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("environments", nargs="+")
    parser.add_argument("--weights", action="append", default=[], metavar="NAME")
    options = parser.parse_args()
    for env in [options.runs / name for name in options.environments]:
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(env.glob("*/*/evaluation.json")):
            run = path.parent
            target = options.folder / env.name / run.relative_to(env)
            found[f"{run.parent.name}/{run.name}"] = publish(run, target)
            if run.name == "0" and run.parent.name in options.weights:
                publish_weights(run, target)
        (options.folder / env.name / "runs.md").write_text(
            f"# Every run of {env.name}\n\n{run_table(found)}\n", encoding="utf-8"
        )
        print(f"\n{env.name}\n\n{mean_table(found, options.folder / env.name)}")


if __name__ == "__main__":
    main()
