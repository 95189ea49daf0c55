"""Success beyond the lengths trained for: a panel for each memory, from published runs.

    python results/beyond.py FOLDER/ENVIRONMENT FIGURE.png

Reads `evaluation.json` and `beyond/*/evaluation.json` of every run below the folder. A line for each thing
that the agents were asked for, seeds of a memory pooled.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from memspan.evaluation import Evaluation
from memspan.evaluation.figures import pool_buckets
from memspan.evaluation.looks import look_of
from memspan.evaluation.panels import GREY, STYLE, save_figure

N_COLUMNS = 4
LONGEST_TRAINED = 200
LINES = ["-", "--", ":", "-."]


def read(folder: Path) -> dict[str, dict[str, list[Evaluation]]]:
    """Name of a group of runs -> settings beyond training -> evaluations; groups without any are left out."""
    found: dict[str, dict[str, list[Evaluation]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob("*/*/beyond/*/evaluation.json")):
        name = path.relative_to(folder).parts[0]
        found[name][path.parent.name].append(Evaluation.load(path.parent))
    for name, by_settings in found.items():
        own = sorted(folder.glob(f"{name}/*/evaluation.json"))
        by_settings[""] = [Evaluation.load(path.parent) for path in own]
    return found


def label(settings: str) -> str:
    """What was changed in the memory: the length shows on the axis."""
    told = [one.replace("_", " ") for one in settings.split(",") if one and not one.startswith("max_length=")]
    return ", ".join(told).replace("=", " ") or "as trained"


def draw_memory(axes: Axes, name: str, by_settings: dict[str, list[Evaluation]]) -> None:
    """One panel."""
    colour = look_of(next(iter(by_settings.values()))[0].memory).colour
    styles: dict[str, str] = {}
    for settings, runs in sorted(
        by_settings.items(), key=lambda one: (label(one[0]) != "as trained", one[0])
    ):
        told = label(settings)
        new = told not in styles
        style = styles.setdefault(told, LINES[len(styles) % len(LINES)])
        buckets = pool_buckets(runs, "length")
        middles = [(bucket.low + bucket.high) / 2 for bucket in buckets]
        low, high = zip(*(bucket.ci for bucket in buckets), strict=True)
        axes.fill_between(middles, low, high, color=colour, alpha=0.13, lw=0)
        rates = [bucket.success_rate for bucket in buckets]
        axes.plot(middles, rates, style, color=colour, lw=1.6, label=told if new else None)
    axes.axvspan(3, LONGEST_TRAINED, color=GREY, alpha=0.1, lw=0)
    axes.axhline(0.5, color=GREY, ls=(0, (4, 3)), lw=1)
    axes.set(xscale="log", xlim=(3, 11_000), ylim=(-0.03, 1.06))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_title(name, loc="left", fontsize=11)
    axes.legend(loc="lower left", fontsize=8)


def draw(found: dict[str, dict[str, list[Evaluation]]]) -> Figure:
    """A panel for each group."""
    n_rows = math.ceil(len(found) / N_COLUMNS)
    with mpl.rc_context(STYLE):
        figure = Figure((2.9 * N_COLUMNS, 2.5 * n_rows + 0.3), layout="constrained")
        panels = figure.subplots(n_rows, N_COLUMNS, sharex=True, sharey=True, squeeze=False)
        for axes, (name, by_settings) in zip(panels.flat, found.items(), strict=False):
            draw_memory(axes, name, by_settings)
        for axes in panels.flat[len(found) :]:
            axes.remove()
        figure.supxlabel("length of the corridor (steps); grey: trained for", fontsize=10.5)
        figure.supylabel("success rate", fontsize=10.5)
    return figure


def main() -> None:
    """Draws."""
    if len(sys.argv) != 3:
        sys.exit("usage: python results/beyond.py FOLDER/ENVIRONMENT FIGURE.png")
    found = read(Path(sys.argv[1]))
    if not found:
        sys.exit(f"{sys.argv[1]}: has no <run>/<seed>/beyond/*/evaluation.json")
    save_figure(draw(found), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
