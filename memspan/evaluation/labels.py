"""Labels beside points where there is room for them, and at the ends of lines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.transforms import Bbox

# Where a label may stand, best first: offset from its point in units of the gap, and alignment.
_PLACES = (
    ((1.0, -1.0), "left", "top"),
    ((1.0, 1.0), "left", "bottom"),
    ((-1.0, 1.0), "right", "bottom"),
    ((-1.0, -1.0), "right", "top"),
    ((0.0, -1.6), "center", "top"),
    ((0.0, 1.6), "center", "bottom"),
    ((1.6, 0.0), "left", "center"),
    ((-1.6, 0.0), "right", "center"),
)
_GAP = 5.0
"""Points between a marker's centre and its label."""
_MARGIN = 4.0
"""Pixels that stay free around a label."""


def place_labels(axes: Axes, labels: Sequence[tuple[float, float, str, str]], fontsize: float = 9) -> int:
    """Writes each label beside its point, or not at all where it would cover a line or another label.

    Args:
        axes: final limits and scales; the figure has to be drawn first, so that its layout stands.
        labels: x, y, text and colour.
        fontsize: of the labels.

    Returns:
        How many were written.
    """
    pixels = _drawn_pixels(axes)
    taken: list[Bbox] = []
    frame = axes.get_window_extent()
    for x, y, text, colour in labels:
        for (dx, dy), ha, va in _PLACES:
            note = axes.annotate(
                text,
                (x, y),
                xytext=(dx * _GAP, dy * _GAP),
                textcoords="offset points",
                ha=ha,
                va=va,
                fontsize=fontsize,
                color=colour,
            )
            box = note.get_window_extent().padded(_MARGIN)
            inside = box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1
            if inside and not box.count_contains(pixels) and not box.count_overlaps(taken):
                taken.append(box)
                break
            note.remove()
    return len(taken)


def name_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], apart: float) -> None:
    """Names right of the axes, each tied to its line's end.

    Args:
        axes: final limits and scales.
        ends: x, y, name and colour.
        apart: least distance of two names, as a share of the axes' height.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [to_axes.transform((x, y))[1] for x, y, _, _ in ends]
    order = sorted(range(len(ends)), key=heights.__getitem__)
    for i, place in zip(order, spread([heights[i] for i in order], apart), strict=True):
        x, y, name, colour = ends[i]
        axes.annotate(
            name,
            (x, y),
            xytext=(1.05, place),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            color=colour,
            annotation_clip=False,
            arrowprops=dict(
                arrowstyle="-", color=colour, lw=0.6, alpha=0.6, relpos=(0, 0.5), shrinkA=0, shrinkB=4
            ),
        )


def spread(wanted: Sequence[float], apart: float) -> list[float]:
    """Places close to the rising ones wanted, at least `apart` apart, within 0 and 1 if they fit."""
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + apart) if places else max(place, 0.0))
    # Those pushed out at the top push the others down.
    highest = max(1.0, apart * (len(places) - 1))
    for i in range(len(places) - 1, -1, -1):
        places[i] = min(places[i], highest)
        highest = places[i] - apart
    return places


def _drawn_pixels(axes: Axes) -> npt.NDArray[np.float64]:
    """(N, 2) pixels along every line and error bar, close enough together that no label fits between."""
    paths = [line.get_transform().transform(line.get_xydata()) for line in axes.get_lines()]
    for collection in axes.collections:
        if isinstance(collection, LineCollection):
            paths += [axes.transData.transform(segment) for segment in collection.get_segments()]
    pixels = [np.empty((0, 2))]
    for path in paths:
        pixels.append(path)
        for start, end in pairwise(path):
            steps = int(np.hypot(*(end - start)) / 3) + 1
            pixels.append(start + np.linspace(0, 1, steps)[:, None] * (end - start))
    return np.concatenate(pixels)
