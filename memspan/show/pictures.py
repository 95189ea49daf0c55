"""Sizes and margins of pictures: what windows and videos have in common."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memspan.envs.drawing import PAPER

Picture = npt.NDArray[np.uint8]
"""(height, width, 3)."""

MARGIN = 16
MIN_WIDTH = 640
SMALLEST_PICTURE = 320
"""Pictures with less than this on their longer side are enlarged, in whole numbers."""


def enlarge(picture: Picture) -> Picture:
    """A small picture with every pixel as a square of pixels."""
    factor = max(SMALLEST_PICTURE // max(picture.shape[:2]), 1)
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def centred(picture: Picture, width: int) -> Picture:
    """The picture with margins on both sides that make it at least `width` wide."""
    width = max(width, picture.shape[1])
    wide = blank(picture.shape[0], width)
    left = (width - picture.shape[1]) // 2
    wide[:, left : left + picture.shape[1]] = picture[..., :3]
    return wide


def blank(height: int, width: int) -> Picture:
    """A picture of nothing but the background."""
    return np.full((height, width, 3), PAPER, dtype=np.uint8)
