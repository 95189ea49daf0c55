"""Figures of how far back agents remember, and of which past steps they act on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memspan.evaluation.horizon import Horizon
from memspan.evaluation.looks import look_of, tint
from memspan.evaluation.occlusion import Occlusion
from memspan.evaluation.panels import GREY, STYLE, memory_scale, success_scale

PANEL = (7.5, 4.0)
ROW_HEIGHT = 1.15
"""Inches of one strip of the figure of hidden steps."""


def success_against_horizon(found: Sequence[Horizon]) -> Figure:
    """One panel per environment: success over the past steps that the memory is shown, a line per run.

    Dotted lines mark the horizons.

    Raises:
        ValueError: nothing was found.
    """
    if not found:
        raise ValueError("runs=[]: must be at least 1")
    tasks = list(dict.fromkeys((one.env, str(one.env_kwargs)) for one in found))
    with mpl.rc_context(STYLE):
        figure = Figure((PANEL[0], PANEL[1] * len(tasks)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(tasks), 1, squeeze=False)[:, 0]
        entries: dict[str, Line2D] = {}
        for axes, task in zip(panels, tasks, strict=True):
            of_task = [one for one in found if (one.env, str(one.env_kwargs)) == task]
            memory_scale(axes, max(point.steps for one in of_task for point in one.points))
            axes.set_xlabel("past steps that the memory is shown (k)")
            if all(one.tells_success for one in of_task):
                success_scale(axes)
            else:
                axes.set_ylabel("mean return per episode")
            axes.set_title(task[0], loc="left")
            for one in of_task:
                look = look_of(one.memory)
                x, y = zip(*((point.steps, point.score) for point in one.points), strict=True)
                low, high = zip(*(point.ci for point in one.points), strict=True)
                style: dict[str, Any] = dict(color=look.colour, marker=look.marker, ms=4.5, lw=1.5)
                axes.fill_between(x, low, high, color=look.colour, alpha=0.1, lw=0)
                axes.plot(x, y, alpha=0.85, **style)
                if one.horizon:
                    axes.axvline(one.horizon, color=look.colour, ls=":", lw=1.2, alpha=0.8)
                entries.setdefault(one.memory, Line2D([], [], label=one.memory, **style))
        figure.legend(handles=list(entries.values()), loc="outside right upper")
        episodes = " to ".join(str(n) for n in sorted({one.episodes for one in found}))
        caption = (
            f"The memory starts empty before every decision. Bands: 95 % intervals, {episodes} episodes a "
            "point.\nDotted: the memory horizon, the fewest steps that keep 99 % of the success."
        )
        figure.supxlabel(caption, x=0.01, ha="left", fontsize=8.5, color=GREY)
    return figure


def influence_of_steps(found: Sequence[tuple[str, str, Occlusion]], title: str = "") -> Figure:
    """For each run a strip of what hiding each step changes, and strips of how long each could be read.

    Args:
        found: name of the run, name of its memory, and what was found.
        title: over everything.

    Raises:
        ValueError: nothing was found.
    """
    if not found:
        raise ValueError("runs=[]: must be at least 1")
    n_strips = sum(1 + len(one.read_for) for _, _, one in found)
    with mpl.rc_context(STYLE):
        figure = Figure((9.0, ROW_HEIGHT * n_strips + 0.8), layout="constrained")
        FigureCanvasAgg(figure)
        strips = iter(figure.subplots(n_strips, 1, squeeze=False)[:, 0])
        for name, memory, one in found:
            n_steps = len(one.influence)
            steps, colour = np.arange(n_steps), look_of(memory).colour
            axes = next(strips)
            axes.bar(steps, one.influence, width=0.85, color=colour)
            axes.set(ylim=(0, 1.05), xlim=(-1, n_steps))
            axes.set_ylabel("change", fontsize=9)
            axes.set_title(name, loc="left", fontsize=10.5)
            for layer, life in enumerate(one.read_for):
                axes = next(strips)
                axes.bar(steps, life, width=0.85, color=tint(colour, 0.7))
                axes.set(ylim=(0, n_steps), xlim=(-1, n_steps))
                label = f"read for\n(layer {layer + 1})" if len(one.read_for) > 1 else "read for\n(steps)"
                axes.set_ylabel(label, fontsize=9)
        axes.set_xlabel("step of the episode")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=12)
        caption = (
            "change: how far hiding the step moves the actions at any later step (total variation, 0 to 1).\n"
            "read for: for how many later steps the memory could read it."
        )
        figure.supxlabel(caption, x=0.01, ha="left", fontsize=8.5, color=GREY)
    return figure
