"""Colours and text that the pictures of all tasks share."""

import numpy as np
import numpy.typing as npt
import pygame.freetype
import pygame.surfarray

Colour = tuple[int, int, int]

PAPER: Colour = (247, 247, 245)
INK: Colour = (45, 45, 45)
FAINT: Colour = (150, 150, 150)


def write(
    picture: npt.NDArray[np.uint8],
    text: str,
    left: int,
    top: int,
    size: int,
    ink: Colour = INK,
    paper: Colour = PAPER,
) -> int:
    """Writes a line of text into a picture (height, width, 3), cut off at its edges.

    Returns:
        The width of the text in pixels.
    """
    # Closing a window ends pygame as a whole, fonts included, so nothing of pygame is kept between calls.
    pygame.freetype.init()
    font = pygame.freetype.Font(None, size)
    surface, box = font.render(text, ink, paper)
    # The surface is cut to the ink: lines without tall letters have to start lower.
    top += max(font.get_rect("l").y - box.y, 0)
    left += box.x
    pixels = pygame.surfarray.array3d(surface).swapaxes(0, 1)
    shown = pixels[: picture.shape[0] - top, : picture.shape[1] - left]
    picture[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    return int(pixels.shape[1])
