"""Pictures of what an agent remembers, below the picture of its environment.

Slots are a strip: one mark for every step of the episode so far, in rows. A step that can still be read has
a bar, as high as the number of steps that it will last and as strong as it is read now; what is forgotten
has a dash. Vectors of constant size are heat maps.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memspan.envs.drawing import FAINT, INK, PAPER, Colour, write
from memspan.envs.instruction_render import BAD, GOOD
from memspan.evaluation.looks import BLUE, VERMILION, look_of
from memspan.memory import Remembered
from memspan.show.environments import short
from memspan.show.frames import Frame
from memspan.show.pictures import MARGIN, MIN_WIDTH, Picture, blank, centred, enlarge

TEXT_SIZE, SMALL_SIZE = 15, 12
LINE_HEIGHT, SMALL_LINE_HEIGHT = 24, 19
GUTTER = 40
"""For the number of a row's first step."""
BAR_HEIGHT, ROW_HEIGHT = 22, 28
MARK_WIDTHS = (10, 8, 6, 5, 4, 3, 2)
WIDE = 1000
"""Strips have 3 rows in pictures this wide, and 4 in narrower ones."""
PALEST = 0.3
"""Share of its colour that a bar has when it is hardly read any more."""
CELL_WIDTH, CELL_HEIGHT = 16, 20
DASH: Colour = (205, 205, 200)
ZERO: Colour = (228, 228, 224)
"""Of a heat map: unlike the background, so that small numbers are seen to be there."""


def headline(frame: Frame) -> str:
    """How the episode stands, on one line."""
    parts = [f"episode {frame.episode}", f"step {frame.step}"]
    parts += [f"action {frame.action}"] if frame.action else [frame.outcome]
    parts += [f"reward {short(frame.reward)}", f"return {short(frame.total)}", f"value {frame.value:.2f}"]
    return "    ".join(parts)


def summary(frame: Frame) -> str:
    """How much is remembered, on one line."""
    if not frame.layers:
        kept = "does not tell what it keeps" if frame.capacity else "nothing is kept"
        return f"{frame.memory}: {kept}"
    if any(layer.age.shape[1] for layer in frame.layers):
        return (
            f"{frame.memory}: {frame.effective:g} of {max(frame.seen - 1, 0)} past steps "
            f"can be read, at most {frame.capacity:g}"
        )
    return f"{frame.memory}: {frame.capacity:g} vectors of constant size, whatever the episode's length"


def by_step(layer: Remembered, values: npt.ArrayLike, seen: int) -> npt.NDArray[np.float64]:
    """(seen,) values of slots by the step that they hold; 0 where a step is held no more."""
    age = layer.age[0].cpu().numpy()
    row = np.asarray(values, dtype=np.float64)
    placed = np.zeros(seen)
    held = (age >= 0) & (age < seen)
    placed[seen - 1 - age[held]] = row[held]
    return placed


def squash(value: float) -> float:
    """The size of a number from 0 to 1; half of that for 1 and -1."""
    return abs(float(value)) / (1 + abs(float(value)))


def draw_frame(frame: Frame, longest: int | None = None) -> Picture:
    """The environment, and below it what the agent does and remembers.

    Args:
        frame: its drawing is a picture.
        longest: steps that an episode can have, for which room is left; None: not known.

    Returns:
        (height, width, 3) uint8, of one shape as long as the drawing is.
    """
    drawing = centred(enlarge(frame.drawing), MIN_WIDTH)
    width = drawing.shape[1]
    head = blank(2 * LINE_HEIGHT + MARGIN // 2, width)
    ink = INK if frame.success is None else GOOD if frame.success else BAD
    write(head, headline(frame), MARGIN, MARGIN // 2, TEXT_SIZE, ink)
    write(
        head,
        summary(frame),
        MARGIN,
        MARGIN // 2 + LINE_HEIGHT,
        TEXT_SIZE,
        _rgb(look_of(frame.memory).colour),
    )
    parts = [drawing, head]
    for n, layer in enumerate(frame.layers):
        name = f"layer {n + 1}: " if len(frame.layers) > 1 else ""
        if layer.age.shape[1]:
            if name:  # with one layer, the summary has said so
                parts.append(_line(f"{name}{int(layer.readable[0].sum())} readable", width, INK))
            parts.append(_strip(frame, layer, width, longest))
        for vector, values in layer.vectors.items():
            parts.append(_line(f"{name}{vector}", width, INK))
            parts.append(_heat_map(values[0].float().cpu().numpy(), width))
    if any(layer.age.shape[1] for layer in frame.layers):
        full = f"{frame.capacity:g} steps"
        legend = f"height: steps that a memory will last (full: {full})    "
        legend += "strength: how far it is read    dash: forgotten"
        parts.append(_line(legend, width, FAINT))
    elif any(layer.vectors for layer in frame.layers):
        parts.append(_line("blue: below 0    orange: above 0    half the colour: 1", width, FAINT))
    return np.concatenate([*parts, blank(MARGIN // 2, width)])


def _line(text: str, width: int, ink: Colour) -> Picture:
    line = blank(SMALL_LINE_HEIGHT, width)
    write(line, text, MARGIN, 3, SMALL_SIZE, ink)
    return line


def _strip(frame: Frame, layer: Remembered, width: int, longest: int | None) -> Picture:
    """One mark a step; marks get narrower when there are too many, and at last the oldest rows go."""
    room = width - 2 * MARGIN - GUTTER
    per_row = [room // mark // 10 * 10 for mark in MARK_WIDTHS]
    most_rows = 3 if width >= WIDE else 4
    n_rows = most_rows if longest is None else min(max(-(-longest // per_row[0]), 1), most_rows)
    fits = (i for i, n in enumerate(per_row) if n * n_rows >= frame.seen)
    choice = next(fits, len(per_row) - 1)
    mark, n = MARK_WIDTHS[choice], per_row[choice]
    skipped = max(-(-frame.seen // n) - n_rows, 0)
    strength = by_step(layer, layer.strength[0].cpu().numpy(), frame.seen)
    left = by_step(layer, layer.steps_left[0].cpu().numpy(), frame.seen)
    share = np.clip(left / max(frame.capacity, 1), 0, 1)
    colour = np.array(_rgb(look_of(frame.memory).colour))
    strip = blank(n_rows * ROW_HEIGHT, width)
    for step in range(skipped * n, frame.seen):
        row, place = divmod(step - skipped * n, n)
        x, base = MARGIN + GUTTER + place * mark, row * ROW_HEIGHT + BAR_HEIGHT
        right = x + mark - (mark > 3)
        if place == 0:
            write(strip, str(step), MARGIN, base - SMALL_SIZE, SMALL_SIZE, FAINT)
        if step == frame.seen - 1:
            strip[base - BAR_HEIGHT : base + 2, x:right] = INK
        elif strength[step] > 0:
            weight = PALEST + (1 - PALEST) * strength[step]
            top = base - max(round(share[step] * BAR_HEIGHT), 3)
            strip[top : base + 2, x:right] = np.array(PAPER) + weight * (colour - np.array(PAPER))
        else:
            strip[base : base + 2, x:right] = DASH
    return strip


def _heat_map(values: npt.NDArray[np.float32], width: int) -> Picture:
    """One cell a number."""
    room = width - 2 * MARGIN - GUTTER
    cell = max(min(CELL_WIDTH, room // len(values)), 4)
    n = room // cell
    sheet = blank(-(-len(values) // n) * CELL_HEIGHT + 4, width)
    for i, value in enumerate(values):
        row, place = divmod(i, n)
        x, y = MARGIN + GUTTER + place * cell, row * CELL_HEIGHT
        end, zero = np.array(_rgb(VERMILION if value > 0 else BLUE)), np.array(ZERO)
        shade = zero + squash(value) * (end - zero)
        sheet[y : y + CELL_HEIGHT - 1, x : x + cell - 1] = shade
    return sheet


def _rgb(colour: str) -> Colour:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
