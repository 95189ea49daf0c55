"""What all figures share: panels, scales, legend, files."""

from __future__ import annotations

import math
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from memspan.evaluation.groups import by_task, task_title
from memspan.evaluation.results import Evaluation

CHANCE = {
    "memspan/Corridor-v0": 0.5,
    "memspan/CorridorShuffled-v0": 0.5,
    "memspan/Portal-v0": 0.0065,
    "memspan/PortalLong-v0": 0.0,
    "memspan/PortalLabelled-v0": 0.0065,
    "memspan/Instruction-v0": 1 / 16**3,
    "memspan/InstructionSmall-v0": 1 / 16,
    "memspan/InstructionLong-v0": 1 / 16**3,
}
"""Best success rate of an agent without memory, where it is known: with the settings as registered."""

SAME_FOR_ALL_SETTINGS = ("memspan/Corridor-v0", "memspan/CorridorShuffled-v0")

FORMATS = ("png", "svg")
PNG_DPI = 200
PANEL_SIZE = (6.0, 4.0)
"""Inches of one panel; at 200 dpi legible when shown 900 pixels wide."""
LEGEND_WIDTH = 1.5
LEGEND_MARGIN = 0.15
MOST_COLUMNS = 2
MOST_TICKS = 11
MOST_LEGEND_LINES = 12
GREY = "#6b6b6b"
SUCCESS = "success rate"
STYLE: Any = {
    "font.size": 10.5,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "memspan",
}

DrawPanel = Callable[[Axes, list[Evaluation]], list[Line2D]]
"""Draws one task's runs and returns legend entries."""


def draw_panels(
    runs: Sequence[Evaluation], draw: DrawPanel, chance: float | None = None, caption: str = ""
) -> Figure:
    """One panel per task, titled with it, and one legend at the right, outside.

    Args:
        runs: one or more.
        draw: draws a panel.
        chance: success rate to mark; None: what `CHANCE` says of each task.
        caption: a line of small print under everything.

    Raises:
        ValueError: no runs.
    """
    if not runs:
        raise ValueError("runs=[]: must be at least 1")
    tasks = by_task(runs)
    n_columns = min(len(tasks), MOST_COLUMNS)
    n_rows = math.ceil(len(tasks) / n_columns)
    width, height = PANEL_SIZE
    with mpl.rc_context(STYLE):
        figure = Figure((width * n_columns + LEGEND_WIDTH, height * n_rows), layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
        entries: dict[str, Line2D] = {}
        for axes, of_task in zip(panels, tasks, strict=False):
            for entry in [*draw(axes, of_task), *_mark_chance(axes, of_task[0], chance)]:
                entries.setdefault(str(entry.get_label()), entry)
            title = textwrap.fill(task_title(of_task[0]), 60)
            axes.set_title(title, loc="left", pad=12)
        for axes in panels[len(tasks) :]:
            axes.remove()
        if entries:
            n_lines = sum(name.count("\n") + 1 for name in entries)
            figure.legend(
                handles=list(entries.values()),
                loc="outside right upper",
                fontsize=10.5 if n_lines <= MOST_LEGEND_LINES else 8,
            )
            _make_room(figure)
        if caption:
            figure.supxlabel(caption, x=0.01, ha="left", fontsize=8.5, color=GREY)
        figure.draw_without_rendering()
    return figure


def _make_room(figure: Figure) -> None:
    """Makes the figure at least as high as its legend, which would be cut off otherwise."""
    inches = figure.legends[0].get_window_extent().height / figure.dpi
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, max(height, inches + 2 * LEGEND_MARGIN))


def success_scale(axes: Axes) -> None:
    """Makes y go from 0 to 1, with room for markers at both ends and labels above."""
    axes.set_ylim(-0.03, 1.09)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 1]))
    axes.set_ylabel(SUCCESS)


def memory_scale(axes: Axes, largest: float) -> None:
    """Makes x go in powers of two, with 0, where no memory is, on it.

    From 0 to 1 the scale is linear and as wide as a doubling, so that 0 has its place on it.
    """
    right = max(largest, 2) * 1.35
    exponent = math.floor(math.log2(right))
    every = math.ceil((exponent + 2) / MOST_TICKS)
    ticks = [0, *(2**i for i in range(exponent % every, exponent + 1, every))]
    # Matplotlib makes the linear part `linscale * base / (base - 1)` powers of the base wide.
    axes.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.set_xlim(-0.35, right)
    axes.set_xlabel("effective memory size (memory vectors a step can read)")


def chance_level(run: Evaluation, chance: float | None) -> float | None:
    """`chance`, or else what `CHANCE` knows."""
    known = not run.env_kwargs or run.env in SAME_FOR_ALL_SETTINGS
    return chance if chance is not None or not known else CHANCE.get(run.env)


def _mark_chance(axes: Axes, run: Evaluation, chance: float | None) -> list[Line2D]:
    level = chance_level(run, chance)
    if level is None or axes.get_ylabel() != SUCCESS:
        return []
    line = axes.axhline(
        level, color=GREY, ls=(0, (4, 3)), lw=1.1, zorder=1.5, label=f"best without\nmemory ({level:.3g})"
    )
    return [line]


def check_figure_path(path: Path) -> None:
    """Refuses, before long hours of playing, a path that `save_figure` could not write. Makes its folder.

    Raises:
        ValueError: another extension than .png or .svg, or no place to write.
    """
    extension = path.suffix.lower()
    if not path.name or (extension and extension[1:] not in FORMATS):
        raise ValueError(f"figure={str(path)!r}: must be a file name that ends in .png, .svg or neither")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"figure={str(path)!r}: must be in a folder that can be written to ({reason})"
        ) from None


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Writes the figure twice, with .png and with .svg.

    Raises:
        ValueError: as `check_figure_path`.
    """
    check_figure_path(path)
    files = [path.with_suffix(f".{extension}") for extension in FORMATS]
    with mpl.rc_context(STYLE):
        for file in files:
            # Without a date, the same results give the same file.
            metadata = {"Date": None} if file.suffix == ".svg" else {}
            figure.savefig(file, dpi=PNG_DPI, metadata=metadata, facecolor="white")
    return files
