"""Figure of one run: how success and effective memory went while it was trained."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from memspan.evaluation.curves import MEAN_RETURN, MEMORY, SUCCESS, Curves
from memspan.evaluation.looks import look_of
from memspan.evaluation.panels import STYLE, success_scale

PANEL = (4.2, 3.2)
"""Inches."""


def training_figure(curves: Curves, memory: str) -> Figure:
    """Success rate, or mean return where the task does not tell success, beside effective memory, by steps.

    Args:
        curves: of the run, read.
        memory: its name.
    """
    reached = SUCCESS if SUCCESS in curves.points else MEAN_RETURN
    panels = {reached: "mean return of the last episodes", MEMORY: "effective memory (vectors)"}
    with mpl.rc_context(STYLE):
        figure = Figure((PANEL[0] * len(panels), PANEL[1]), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (tag, name) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            points = curves.points.get(tag, {})
            steps = sorted(points)
            one = "o" if len(steps) == 1 else ""
            axes.plot(steps, [points[step].value for step in steps], one + "-", color=look_of(memory).colour)
            if tag == SUCCESS:
                success_scale(axes)
            else:
                axes.set_ylabel(name)
                axes.set_ylim(bottom=0 if tag == MEMORY else None)
            axes.set_xlim(left=0)
            axes.set_xlabel("steps")
            axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    return figure
