"""Interactive charts, as Plotly figures; the page gives them the colours of its theme."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from memspan.evaluation import Evaluation, success_interval
from memspan.evaluation.figures import AXES, difficulty_of, pool_buckets
from memspan.evaluation.groups import interval, score
from memspan.evaluation.intervals import Interval
from memspan.evaluation.looks import look_of, tint
from memspan.evaluation.panels import chance_level
from memspan.reports.data import ReportRun, by_name, evaluations

SYMBOLS = {
    "X": "x",
    "s": "square",
    "p": "pentagon",
    "o": "circle",
    "8": "octagon",
    "P": "cross",
    "v": "triangle-down",
    "D": "diamond",
    "d": "diamond-tall",
    "^": "triangle-up",
    "<": "triangle-left",
    ">": "triangle-right",
    "h": "hexagon",
    "H": "hexagon2",
    "*": "star",
}
"""Markers by matplotlib's names."""


def plain(text: str) -> str:
    """A text that Plotly shows as it is: no tags, which it would format, and no templates, which it fills."""
    return html.escape(text, quote=False).replace("%{", "%&#123;")


DASHES = ("solid", "dash", "dot", "dashdot")
Group = tuple[str, list[ReportRun]]


def cost(runs: Sequence[ReportRun]) -> go.Figure:
    """Success over effective memory, of the runs of one task that were evaluated.

    The x axis is linear here. Every trace has in `meta.log_x` where its points are on the logarithmic one, on
    which the page puts 0 at the place of `LOG_ZERO`.
    """
    figure = go.Figure()
    memories = groupby(_groups(runs), key=lambda group: group[1][0].config.memory)
    for memory, groups in memories:
        look = look_of(memory)
        symbol = SYMBOLS.get(look.marker, "circle")
        means = []
        for name, members in groups:
            own = evaluations(members)
            means.append((_mean(own), name, own))
            x = [run.effective_memory for run in own]
            y = [score(run) for run in own]
            low, high = zip(*(interval(run) for run in own), strict=True)
            figure.add_scatter(
                x=x,
                y=y,
                mode="markers",
                marker={"color": look.colour, "symbol": symbol, "size": 6, "opacity": 0.45},
                error_y=_whiskers(y, low, high, look.colour),
                text=[_of_run(run) for run in own],
                hovertemplate="%{text}<extra></extra>",
                legendgroup=plain(memory),
                showlegend=False,
                meta={"log_x": [_on_log(value) for value in x]},
            )
        means.sort(key=lambda one: one[0])
        x = [one[0][0] for one in means]
        figure.add_scatter(
            x=x,
            y=[one[0][1] for one in means],
            mode="lines+markers",
            line={"color": look.colour, "width": 1.5},
            marker={"color": look.colour, "symbol": symbol, "size": 11},
            text=[_of_group(name, own) for _, name, own in means],
            hovertemplate="%{text}<extra></extra>",
            name=plain(memory),
            legendgroup=plain(memory),
            meta={"log_x": [_on_log(value) for value in x]},
        )
    every = evaluations(runs)
    figure.update_layout(
        xaxis_title="effective memory (memory vectors a step can read)", yaxis_title=_score_name(every)
    )
    level = chance_level(every[0], None) if every[0].success_rate is not None else None
    if level is not None:
        figure.add_hline(
            level,
            line={"dash": "dash", "width": 1, "color": "#888"},
            annotation_text="best without memory",
            annotation_position="bottom right",
            annotation_yshift=-6,  # clear of the markers on the line
        )
    if every[0].success_rate is not None:
        figure.update_yaxes(range=[-0.03, 1.06])
    return figure


LOG_ZERO = 0.05
"""Where a logarithmic axis shows 0, which it does not have."""


def curves(runs: Sequence[ReportRun]) -> go.Figure | None:
    """Success and effective memory over environment steps, side by side; None where nothing was logged."""
    column = "success_rate" if any("success_rate" in run.curves for run in runs) else "mean_return"
    panels = {column: column.replace("_", " ") + " while training", "effective_memory": "effective memory"}
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.1)
    shown: set[str] = set()
    for _, members in _groups(runs, evaluated=False):
        for run in members:
            memory = run.config.memory
            for position, panel in enumerate(panels, 1):
                curve = run.curves.get(panel)
                if not curve:
                    continue
                figure.add_scatter(
                    x=[step for step, _ in curve],
                    y=[round(value, 4) for _, value in curve],
                    mode="lines",
                    line={"color": look_of(memory).colour, "width": 1.3},
                    opacity=0.85,
                    name=plain(memory),
                    legendgroup=plain(memory),
                    showlegend=memory not in shown,
                    hovertemplate=f"{plain(run.label)}<br>%{{x:,.0f}} steps: %{{y}}<extra></extra>",
                    row=1,
                    col=position,
                )
                shown.add(memory)
    if not shown:
        return None
    for position, title in enumerate(panels.values(), 1):
        figure.update_yaxes(title=title, rangemode="tozero", row=1, col=position)
        figure.update_xaxes(title="environment steps", row=1, col=position)
    return figure


def difficulty(runs: Sequence[ReportRun]) -> go.Figure | None:
    """Success by what makes the task hard, seeds pooled; None where success is not told."""
    figure = go.Figure()
    kind = difficulty_of(evaluations(runs))
    for _, groups in groupby(_groups(runs), key=lambda group: group[1][0].config.memory):
        members = list(groups)
        for i, (name, own) in enumerate(members):
            buckets = pool_buckets(evaluations(own), kind)
            if not buckets:
                continue
            memory = own[0].config.memory
            colour = tint(look_of(memory).colour, i / len(members))
            low, high = zip(*(bucket.ci for bucket in buckets), strict=True)
            rates = [bucket.success_rate for bucket in buckets]
            figure.add_scatter(
                x=[(bucket.low + bucket.high) / 2 for bucket in buckets],
                y=rates,
                error_y=_whiskers(rates, low, high, colour),
                text=[
                    f"{plain(name)}<br>{bucket.low} to {bucket.high}: {bucket.success_rate:.3f}"
                    f" ({bucket.ci[0]:.3f} to {bucket.ci[1]:.3f}), {bucket.episodes} trials"
                    for bucket in buckets
                ],
                hovertemplate="%{text}<extra></extra>",
                mode="lines+markers",
                line={"color": colour, "dash": DASHES[i % len(DASHES)], "width": 1.6},
                marker={"size": 5},
                name=plain(name),
                legendgroup=plain(name),
            )
    if not figure.data:
        return None
    figure.update_layout(
        xaxis_title=plain(AXES.get(kind, kind)), yaxis_title="success rate", yaxis_range=[-0.03, 1.06]
    )
    return figure


def resources(runs: Sequence[ReportRun]) -> go.Figure:
    """Bytes of a row's memory, and steps of evaluation a second, by group."""
    groups = sorted(_groups(runs), key=lambda group: _state_bytes(evaluations(group[1])), reverse=True)
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    names = [plain(name) for name, _ in groups]
    colours = [look_of(members[0].config.memory).colour for _, members in groups]
    values = {
        "bytes of memory, largest": [_state_bytes(evaluations(members)) for _, members in groups],
        "steps a second, evaluation": [_speed(evaluations(members)) for _, members in groups],
    }
    for position, (title, numbers) in enumerate(values.items(), 1):
        figure.add_bar(
            x=numbers,
            y=names,
            orientation="h",
            marker={"color": colours},
            showlegend=False,
            text=[f"{number:,.0f}" for number in numbers],
            hovertemplate="%{y}: %{text}<extra></extra>",
            row=1,
            col=position,
        )
        figure.update_xaxes(title=title, row=1, col=position)
    figure.update_layout(height=90 + 26 * len(names))
    # Names that are numbers are names.
    figure.update_yaxes(automargin=True, type="category")
    return figure


def horizons(runs: Sequence[ReportRun]) -> go.Figure | None:
    """Success of agents that are shown the last k steps only; None where that was not measured."""
    figure = go.Figure()
    for run in runs:
        if run.horizon is None:
            continue
        points = run.horizon.points
        figure.add_scatter(
            x=[point.steps for point in points],
            y=[point.score for point in points],
            mode="lines+markers",
            line={"color": look_of(run.config.memory).colour},
            name=plain(run.label),
            hovertemplate=f"{plain(run.label)}<br>%{{x}} steps: %{{y:.3f}}<extra></extra>",
        )
    rates = all(run.horizon.tells_success for run in runs if run.horizon is not None)
    figure.update_layout(
        xaxis_title="past steps shown before each decision",
        yaxis_title="success rate" if rates else "mean return",
    )
    return figure if figure.data else None


def beyond(runs: Sequence[ReportRun]) -> go.Figure | None:
    """Success by length far beyond training, a line for each memory and what was asked of it."""
    figure = go.Figure()
    groups = by_name(runs)
    kind = difficulty_of(one for run in runs for one in run.beyond.values())
    lines = [(name, told) for name, own in groups.items() for run in own for told in run.beyond]
    for name, told in dict.fromkeys(lines):
        own = [run.beyond[told] for run in groups[name] if told in run.beyond]
        buckets = pool_buckets(own, kind)
        longer = [part for part in told.split(",") if part.split("=")[0] in own[0].memory_kwargs]
        label = f"{name}, {', '.join(longer)}" if longer else name
        figure.add_scatter(
            x=[(bucket.low + bucket.high) / 2 for bucket in buckets],
            y=[bucket.success_rate for bucket in buckets],
            mode="lines+markers",
            line={"color": look_of(own[0].memory).colour, "dash": "solid" if longer else "dot"},
            marker={"size": 5},
            name=plain(label),
            hovertemplate=f"{plain(label)}<br>about %{{x:,.0f}}: %{{y:.3f}}<extra></extra>",
        )
    figure.update_layout(
        xaxis_title=plain(AXES.get(kind, kind)), yaxis_title="success rate", yaxis_range=[-0.03, 1.06]
    )
    decades = [10, 100, 1_000, 10_000, 100_000]
    figure.update_xaxes(type="log", tickvals=decades, ticktext=[f"{decade:,}" for decade in decades])
    return figure if figure.data else None


def _groups(runs: Sequence[ReportRun], evaluated: bool = True) -> list[Group]:
    groups = by_name(runs)
    return [(name, own) for name, own in groups.items() if not evaluated or evaluations(own)]


def _mean(runs: Sequence[Evaluation]) -> tuple[float, float]:
    n = len(runs)
    return sum(run.effective_memory for run in runs) / n, sum(score(run) for run in runs) / n


def _on_log(value: float) -> float:
    return max(value, LOG_ZERO)


def _score_name(runs: Sequence[Evaluation]) -> str:
    return "mean return" if any(run.success_rate is None for run in runs) else "success rate"


def _state_bytes(runs: Sequence[Evaluation]) -> float:
    return max(run.state_bytes for run in runs)


def _speed(runs: Sequence[Evaluation]) -> float:
    return sum(run.steps_per_second for run in runs) / len(runs)


def _whiskers(y: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [b - a for a, b in zip(y, high, strict=True)],
        "arrayminus": [a - b for a, b in zip(y, low, strict=True)],
        "color": colour,
        "thickness": 1,
        "width": 0,
    }


def _ci(ends: Interval) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def _of_run(run: Evaluation) -> str:
    return (
        f"<b>{plain(run.name)}/{run.seed}</b>"
        f"<br>{score(run):.3f} ({_ci(interval(run))}), {run.episodes:,} episodes"
        f"<br>effective memory {run.effective_memory:.1f}, peak {run.peak_memory:.3g} of {run.capacity:.3g}"
        f"<br>{run.timesteps / 1e6:.2f} M steps of training"
    )


def _of_group(name: str, runs: Sequence[Evaluation]) -> str:
    memory, mean = _mean(runs)
    seeds = f"mean of {len(runs)} seeds" if len(runs) > 1 else "one seed"
    ends = _ci(success_interval(runs))
    return f"<b>{plain(name)}</b>, {seeds}<br>{mean:.3f} ({ends})<br>effective memory {memory:.1f}"
