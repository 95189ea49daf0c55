"""How a memory looks in every figure: the same colour and marker wherever it is drawn."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

# Okabe and Ito's colours, which readers with any colour vision tell apart; without their yellow, too pale
# for lines on white.
BLACK, GREY = "#000000", "#6b6b6b"
ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
)


@dataclass(frozen=True)
class Look:
    """Colour and marker, in matplotlib's words."""

    colour: str
    marker: str


# Relatives have neighbouring colours; markers tell them apart, too.
LOOKS = {
    "none": Look(GREY, "X"),
    "lstm": Look(GREEN, "s"),
    "gru": Look("#8bc98b", "p"),
    "transformer-xl": Look(BLUE, "o"),
    "gated-transformer-xl": Look(SKY, "8"),
    "compressive": Look("#1f3a6e", "P"),
    "adaptive-span": Look("#7b68c8", "v"),
    "expire-span": Look(VERMILION, "D"),
    "refresh-span": Look("#f0927a", "d"),
    "linear-attention": Look(ORANGE, "^"),
    "state-space": Look("#8c510a", "<"),
    "infinity-former": Look(PURPLE, "h"),
    "summary-tree": Look("#9e9d24", "*"),
}
"""Memories with a look of their own."""

# The others are spread by name over colours that are not taken and, so that two of them rarely look the
# same, over markers.
_OTHER_COLOURS = (BLACK, "#b2182b", "#2a9d8f")
_OTHER_MARKERS = (">", "H", "^", "v", "s", "o", "D")


def look_of(memory: str) -> Look:
    """The look of a memory; the same in every figure, on every machine, whatever else is drawn."""
    if memory in LOOKS:
        return LOOKS[memory]
    digest = hashlib.sha256(memory.encode()).digest()
    return Look(
        _OTHER_COLOURS[digest[0] % len(_OTHER_COLOURS)], _OTHER_MARKERS[digest[1] % len(_OTHER_MARKERS)]
    )


def tint(colour: str, paleness: float) -> str:
    """Shades of a colour for settings of one memory: itself at 0, still readable on white at 1."""
    share = 0.55 * paleness
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)
