"""What an agent remembers, as text for a terminal; the strips and heat maps of `lens`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from memspan.envs.ansi import paint
from memspan.memory import Remembered
from memspan.show.lens import by_step, headline, squash, summary
from memspan.show.moments import Moment

COLUMNS = 78
MOST_ROWS = 8
BARS = "▁▂▃▄▅▆▇█"
FORGOTTEN, PRESENT = "·", "|"
FAINT = 240
SHADES = {"transformer-xl": (25, 32, 39), "expire-span": (130, 166, 209)}
"""Memory -> colours from hardly read to read in full, close to its look in figures."""
OTHER_SHADES = (243, 248, 253)
NEGATIVE, POSITIVE = (24, 32, 39), (130, 166, 209)


def memory_lines(moment: Moment) -> list[str]:
    """How the episode stands, and what is remembered, in lines of at most 80 characters."""
    outcome = moment.success
    head = headline(moment).replace("    ", "  ")
    lines = [paint(head, 71 if outcome else 203) if outcome is not None else head, summary(moment)]
    for n, layer in enumerate(moment.layers):
        name = f"layer {n + 1}: " if len(moment.layers) > 1 else ""
        if layer.age.shape[1]:
            if name:
                lines.append(f"{name}{int(layer.readable[0].sum())} readable")
            lines += _strip(moment, layer)
        for vector, values in layer.vectors.items():
            lines += [f"{name}{vector}", *_heat_map(values[0].float().cpu().numpy())]
    return lines


def _strip(moment: Moment, layer: Remembered) -> list[str]:
    strength = by_step(layer, layer.strength[0].cpu().numpy(), moment.seen)
    left = by_step(layer, layer.steps_left[0].cpu().numpy(), moment.seen)
    share = np.clip(left / max(moment.capacity, 1), 0, 1)
    shades = SHADES.get(moment.memory, OTHER_SHADES)
    marks = []
    for step in range(moment.seen):
        if step == moment.seen - 1:
            marks.append(PRESENT)
        elif strength[step] > 0:
            marks.append(paint(_pick(BARS, share[step]), _pick(shades, strength[step])))
        else:
            marks.append(paint(FORGOTTEN, FAINT))
    rows = ["".join(marks[i : i + COLUMNS]) for i in range(0, len(marks), COLUMNS)]
    return rows[-MOST_ROWS:]


def _heat_map(values: npt.NDArray[np.float32]) -> list[str]:
    cells = []
    for value in values:
        size = squash(value)
        cells.append(paint(_pick(BARS, size), _pick(POSITIVE if value > 0 else NEGATIVE, size)))
    return ["".join(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)]


def _pick(steps: str | tuple[int, ...], share: float) -> Any:
    return steps[min(int(share * len(steps)), len(steps) - 1)]
