"""Figure and tables of `past.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, StrMethodFormatter

from memspan.evaluation.labels import name_ends
from memspan.evaluation.looks import look_of, tint
from memspan.evaluation.panels import GREY, STYLE

LINE_HEIGHT = 0.165
"""Inches between two names."""
PANEL_WIDTH, PANEL_HEIGHT = 4.9, 3.7
LEFT, RIGHT, TOP, BOTTOM, BETWEEN = 0.8, 2.2, 0.4, 1.1, 0.75

Points = list[dict[str, Any]]


def lines_of(measured: dict[str, Any]) -> dict[tuple[str, str], Points]:
    """Memory and label -> its points, pasts rising."""
    lines: dict[tuple[str, str], Points] = {}
    for point in measured["points"]:
        lines.setdefault((point["memory"], point["label"]), []).append(point)
    return lines


def duration(seconds: float) -> str:
    """In words, for an axis."""
    return f"{1e6 * seconds:,.0f} µs" if seconds < 1e-3 else f"{1e3 * seconds:,.0f} ms"


def size(n_bytes: float) -> str:
    """In words, for an axis."""
    if n_bytes < 1e3:
        return f"{n_bytes:,.0f} B"
    return f"{n_bytes / 1e3:,.0f} kB" if n_bytes < 1e6 else f"{n_bytes / 1e6:,.0f} MB"


def draw(measured: dict[str, Any]) -> Figure:
    """Time of an acting step, and bytes of state, over the length of the past; a line per memory."""
    width = LEFT + PANEL_WIDTH + RIGHT
    height = TOP + 2 * PANEL_HEIGHT + BETWEEN + BOTTOM
    with mpl.rc_context(STYLE):
        figure = Figure((width, height))
        FigureCanvasAgg(figure)
        bottoms = (BOTTOM + PANEL_HEIGHT + BETWEEN, BOTTOM)
        upper, lower = (
            figure.add_axes((LEFT / width, y / height, PANEL_WIDTH / width, PANEL_HEIGHT / height))
            for y in bottoms
        )
        _panel(upper, measured, "act_seconds", duration)
        _panel(lower, measured, "state_bytes", size)
        upper.set_title("time of one step, acting (one environment, one thread)", loc="left")
        lower.set_title("state of one environment", loc="left")
        lower.set_xlabel("steps of the past")
        note = f"; {measured['note']}" if measured["note"] else ""
        figure.text(
            0.1 / width,
            0.1 / height,
            "Settings are raised to reach back over all of the past; "
            f"width {measured['width']}; CPU time{note}.\n"
            f"Lines that end early: to read more would have taken over {measured['fill_seconds']:g} s.",
            fontsize=8.5,
            color=GREY,
        )
    return figure


def _panel(axes: Axes, measured: dict[str, Any], field: str, words: Callable[[float], str]) -> None:
    lines = lines_of(measured)
    axes.set(xscale="log", yscale="log")
    ends: list[tuple[float, float, str, str]] = []
    for (memory, label), of_line in lines.items():
        # What takes no bytes has no place on a logarithmic scale.
        points = [point for point in of_line if point[field] > 0]
        if not points:
            continue
        look = look_of(memory)
        x, y = [point["past"] for point in points], [point[field] for point in points]
        axes.plot(
            x,
            y,
            "--" if label else "-",
            color=tint(look.colour, 0.4) if label else look.colour,
            marker=look.marker,
            ms=5,
            mec="white",
            mew=0.6,
            lw=1.5,
            clip_on=False,
            zorder=3,
        )
        ends.append((x[-1], y[-1], ", ".join(filter(None, (memory, label))), look.colour))
    axes.set_xlim(min(point["past"] for point in measured["points"]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words(value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    # Limits and scales are settled only now.
    name_ends(axes, ends, LINE_HEIGHT / PANEL_HEIGHT)


TABLES: dict[str, tuple[str, Callable[[float], str]]] = {
    "Microseconds of a step, acting": ("act_seconds", lambda seconds: f"{1e6 * seconds:,.0f}"),
    "Microseconds of a step in a training block of 64 steps, forward and backward": (
        "train_seconds",
        lambda seconds: f"{1e6 * seconds:,.0f}",
    ),
    "Bytes of state": ("state_bytes", lambda n_bytes: f"{n_bytes:,.0f}"),
    "Effective memory, vectors": ("effective_memory", lambda vectors: f"{vectors:,.1f}"),
}
"""Title -> field, and how its numbers are written."""


def tables(measured: dict[str, Any]) -> str:
    """Markdown; a row per memory, a column per past. A past that was cut short is told in the cell."""
    lines = lines_of(measured)
    n_columns = max(map(len, lines.values()))
    # Where all were cut short, the column has the longest.
    pasts = [max(p["past"] for points in lines.values() for p in points[i : i + 1]) for i in range(n_columns)]
    parts = [_about(measured)]
    for title, (field, words) in TABLES.items():
        rows = [
            "| memory | " + " | ".join(f"{past:,}" for past in pasts) + " |",
            "|---" + n_columns * "|--:" + "|",
        ]
        for (memory, label), points in lines.items():
            cells = [
                words(point[field]) + (f" (at {point['past']:,})" if point["past"] != past else "")
                for point, past in zip(points, pasts, strict=False)
            ]
            cells += (n_columns - len(cells)) * [""]
            rows.append(f"| {', '.join(filter(None, (memory, label)))} | " + " | ".join(cells) + " |")
        parts.append(f"**{title}** after a past of so many steps\n\n" + "\n".join(rows))
    return "\n\n".join(parts)


def _about(measured: dict[str, Any]) -> str:
    note = f" {measured['note']}." if measured["note"] else ""
    return (
        f"`{measured['command']}`; {measured['processor']}, one of {measured['cores']} cores, "
        f"load {measured['load_before']:.1f} when it began, {measured['minutes']:.0f} minutes; "
        f"memspan {measured['memspan_version']}, PyTorch {measured['torch_version']}, "
        f"Python {measured['python_version']}, commit {str(measured['git_commit'])[:7]}.{note}"
    )
