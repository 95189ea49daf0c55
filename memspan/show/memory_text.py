"""What an agent remembers, as text for a terminal; the strips and heat maps of `memory_picture`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from memspan.envs.ansi import COLOURS, paint
from memspan.memory import Remembered
from memspan.show.frames import Frame
from memspan.show.memory_picture import by_step, headline, squash, summary
from memspan.show.terminal import fold

LINE_COLUMNS = 80
COLUMNS = 78
"""Steps in a row of a strip, and numbers in a row of a heat map."""
MOST_ROWS = 8
"""Of all strips together; each has two at least."""
BARS = "▁▂▃▄▅▆▇█"
FORGOTTEN, PRESENT = "·", "|"
FAINT = 240
SHADES = (25, 32, 39)
"""Colours from hardly read to read in full."""
NEGATIVE, POSITIVE = (24, 32, 39), (130, 166, 209)


def memory_lines(frame: Frame) -> list[str]:
    """How the episode stands, and what is remembered, in lines of at most 80 characters."""
    outcome = frame.success
    head = fold(headline(frame).replace("    ", "  "), LINE_COLUMNS)
    if outcome is not None:
        head = [paint(line, COLOURS["green" if outcome else "red"]) for line in head]
    lines = [*head, *fold(summary(frame), LINE_COLUMNS)]
    most_rows = max(MOST_ROWS // max(sum(layer.age.shape[1] > 0 for layer in frame.layers), 1), 2)
    for n, layer in enumerate(frame.layers):
        name = f"layer {n + 1}: " if len(frame.layers) > 1 else ""
        if layer.age.shape[1]:
            if name:
                lines.append(f"{name}{int(layer.readable[0].sum())} readable")
            lines += _strip(frame, layer)[-most_rows:]
        for vector, values in layer.vectors.items():
            lines += [f"{name}{vector}", *_heat_map(values[0].float().cpu().numpy())]
    return lines


def _strip(frame: Frame, layer: Remembered) -> list[str]:
    strength = by_step(layer, layer.strength[0].cpu().numpy(), frame.seen)
    left = by_step(layer, layer.steps_left[0].cpu().numpy(), frame.seen)
    share = np.clip(left / max(frame.capacity, 1), 0, 1)
    marks = []
    for step in range(frame.seen):
        if step == frame.seen - 1:
            marks.append(PRESENT)
        elif strength[step] > 0:
            marks.append(paint(_pick(BARS, share[step]), _pick(SHADES, strength[step])))
        else:
            marks.append(paint(FORGOTTEN, FAINT))
    return ["".join(marks[i : i + COLUMNS]) for i in range(0, len(marks), COLUMNS)]


def _heat_map(values: npt.NDArray[np.float32]) -> list[str]:
    cells = []
    for value in values:
        size = squash(value)
        cells.append(paint(_pick(BARS, size), _pick(POSITIVE if value > 0 else NEGATIVE, size)))
    return ["".join(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)]


def _pick(steps: str | tuple[int, ...], share: float) -> Any:
    return steps[min(int(share * len(steps)), len(steps) - 1)]
