"""A probe's figure: accuracy or error over size, a line per memory, its name at the line's end."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from memspan.evaluation.labels import name_ends
from memspan.evaluation.looks import look_of, tint
from memspan.evaluation.panels import GREY, PANEL_SIZE, STYLE
from memspan.probes import ProbeResults, Result

DASHES = ("-", "--", ":", "-.")
CHARACTER = 0.075
"""Inches of a name's characters, about."""
LINE_HEIGHT = 0.17
"""Inches between two names."""
MOST_TICKS = 8


def draw_probe(found: ProbeResults) -> Figure:
    """Accuracy or error of every memory at every size.

    Raises:
        ValueError: no results.
    """
    if not found.results:
        raise ValueError("results=[]: must be at least 1")
    lines: dict[tuple[str, str], list[Result]] = {}
    for result in found.results:
        lines.setdefault((result.memory, result.label), []).append(result)
    names = {line: found.name(results[0]) for line, results in lines.items()}
    chance = f"chance ({found.chance:g})"
    panel_width, panel_height = PANEL_SIZE[0] - 1, max(PANEL_SIZE[1] - 1.3, LINE_HEIGHT * (len(lines) + 2))
    width = 0.75 + panel_width + 0.4 + CHARACTER * max(map(len, [*names.values(), chance]))
    caption = _caption(found)
    foot = 0.65 + LINE_HEIGHT * len(caption.splitlines())
    height = panel_height + foot + 0.45
    with mpl.rc_context(STYLE):
        figure = Figure((width, height))
        FigureCanvasAgg(figure)
        frame = (0.75 / width, foot / height, panel_width / width, panel_height / height)
        axes = figure.add_axes(frame)
        _scales(axes, found)
        ends: list[tuple[float, float, str, str]] = []
        for (memory, label), of_line in lines.items():
            of_memory = [other for other in lines if other[0] == memory]
            rank = of_memory.index((memory, label))
            look = look_of(memory.rpartition(":")[2])
            colour = tint(look.colour, rank / (len(of_memory) - 1)) if rank else look.colour
            results = sorted(of_line, key=lambda result: result.size)
            sizes = [result.size for result in results]
            scores = [result.score for result in results]
            if all(result.ci for result in results):
                low, high = zip(*(result.ci or (0, 0) for result in results), strict=True)
                axes.fill_between(sizes, low, high, color=colour, alpha=0.13, lw=0)
            axes.plot(
                sizes,
                scores,
                DASHES[rank % len(DASHES)],
                color=colour,
                marker=look.marker,
                ms=5.5,
                mec="white",
                mew=0.6,
                lw=1.6,
                clip_on=False,
                zorder=3,
            )
            ends.append((sizes[-1], scores[-1], names[memory, label], look.colour))
        axes.axhline(found.chance, color=GREY, ls=(0, (4, 3)), lw=1.1, zorder=1.5)
        # Chance is a line like the others, with a name at its end.
        ends.append((axes.get_xlim()[1], found.chance, chance, GREY))
        name_ends(axes, ends, LINE_HEIGHT / panel_height)
        axes.set_title(_title(found), loc="left", pad=12)
        figure.text(0.01, 0.1 / height, caption, fontsize=8.5, color=GREY)
    return figure


def _scales(axes: Axes, found: ProbeResults) -> None:
    sizes = found.sizes
    axes.set_xlabel(found.size_label)
    axes.set_ylabel("accuracy" if found.measure == "accuracy" else "squared error, relative to chance")
    if len(sizes) > 1:
        axes.set_xscale("log", base=2)
        axes.set_xlim(sizes[0] / 1.1, sizes[-1] * 1.1)
    else:
        axes.set_xlim(sizes[0] - 1, sizes[0] + 1)
    axes.xaxis.set_major_locator(FixedLocator(sizes[:: -(-len(sizes) // MOST_TICKS)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    largest = max(result.score for result in found.results)
    axes.set_ylim(-0.03, max(1.05, 1.03 * largest))
    axes.yaxis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 1]))


def _title(found: ProbeResults) -> str:
    return f"{found.probe}, seed {found.settings['seed']}"


def _caption(found: ProbeResults) -> str:
    training = found.training
    shared = [
        f"Every {memory.rpartition(':')[2]} with {', '.join(settings)}.\n"
        for memory, settings in found.shared_settings().items()
        if settings
    ]
    return "".join(shared) + (
        f"Bands: 95 % intervals, {training['test_sequences']} sequences each.\n"
        f"Learnt from at most {training['steps']} batches of {training['batch_size']} sequences, "
        f"in blocks of {training['block_size']} steps; width {training['width']}."
    )
