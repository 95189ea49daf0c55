"""Learning curves of published runs: success rate and effective memory over environment steps.

    python results/curves.py FOLDER/ENVIRONMENT FIGURE.png

Reads the `curve.csv` of every run below the folder (`results/publish.py` writes them). One line a run, seeds
of a memory in its colour.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memspan.evaluation.looks import look_of
from memspan.evaluation.panels import STYLE, save_figure
from memspan.runs import load_config

PANELS = {"success_rate": "success rate while training", "effective_memory": "effective memory (vectors)"}


def read(path: Path, column: str) -> tuple[list[float], list[float]]:
    """Millions of steps, and what the column holds, where it holds anything."""
    with path.open(newline="") as file:
        rows = [(float(row["timesteps"]) / 1e6, row[column]) for row in csv.DictReader(file)]
    points = [(step, float(value)) for step, value in rows if value]
    return [step for step, _ in points], [value for _, value in points]


def draw(folder: Path) -> Figure:
    """Two panels, side by side."""
    runs = {path: load_config(path.parent).memory for path in sorted(folder.glob("*/*/curve.csv"))}
    with mpl.rc_context(STYLE):
        figure = Figure((10.0, 3.4), layout="constrained")
        for axes, (column, label) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
            for path, memory in runs.items():
                axes.plot(*read(path, column), color=look_of(memory).colour, lw=1.3, alpha=0.85)
            axes.set(xlabel="environment steps (millions)", ylabel=label, xlim=(0, None), ylim=(0, None))
        figure.axes[0].set_ylim(-0.02, 1.05)
        memories = sorted(set(runs.values()))
        figure.legend(
            handles=[Line2D([], [], color=look_of(memory).colour, label=memory) for memory in memories],
            loc="outside right upper",
        )
        figure.suptitle(f"memspan/{folder.name}")
    return figure


def main() -> None:
    """Draws."""
    if len(sys.argv) != 3:
        sys.exit("usage: python results/curves.py FOLDER/ENVIRONMENT FIGURE.png")
    folder = Path(sys.argv[1])
    if not any(folder.glob("*/*/curve.csv")):
        sys.exit(f"{folder}: has no <run>/<seed>/curve.csv")
    save_figure(draw(folder), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
