"""What both forms of the Corridor share: its words, the limits of its parameters, and layouts to order.

The readable form (`corridor.py`) and the engine (`corridor_engine.py`) each spell out moves, rewards and
views on their own, so that comparing them means something.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from memspan.envs.moves import check_view_size
from memspan.envs.vector_arguments import check_bool, is_integer

CUES = ("red", "blue")
"""Colours of the cue and of the doors; states hold the position in this tuple."""

SIDES = ("up", "down")
"""Sides of the last cell where the red door can be; states hold the position in this tuple."""


def check_parameters(
    min_length: int, max_length: int, view_size: int, max_steps: int | None, shuffle_doors: bool
) -> int:
    """Returns the number of steps after which an episode is truncated.

    Raises:
        ValueError: a parameter is outside its limits.
    """
    check_view_size(view_size)
    check_bool("shuffle_doors", shuffle_doors)
    shortest = view_size // 2 + 2
    if not is_integer(min_length) or min_length < shortest:
        # One cell less, and the start cell shows cue and doors at once: nothing left to remember.
        raise ValueError(
            f"min_length must be an integer >= {shortest} (view_size // 2 + 2, with view_size {view_size}), "
            f"got {min_length!r}"
        )
    if not is_integer(max_length) or max_length < min_length:
        raise ValueError(f"max_length must be an integer >= min_length ({min_length}), got {max_length!r}")
    if max_steps is None:
        return 2 * int(max_length)
    if not is_integer(max_steps) or max_steps < max_length:
        raise ValueError(
            f"max_steps must be None or an integer >= max_length ({max_length}), got {max_steps!r}"
        )
    return int(max_steps)


def check_layout(
    options: Mapping[str, Any] | None, min_length: int, max_length: int, shape: tuple[int, ...] = ()
) -> dict[str, npt.NDArray[np.int64]]:
    """Reads the layout that `reset(options=...)` asks for.

    Args:
        options: any of `length`, `cue` ("red" or "blue") and `red_door` ("up" or "down"), each one value for
            all environments or an array of `shape`.
        min_length: shortest length allowed.
        max_length: longest length allowed.
        shape: `()` for one environment, `(num_envs,)` for many.

    Returns:
        The fields asked for, as integers of `shape`; `cue` and `red_door` as positions in `CUES` and `SIDES`.

    Raises:
        ValueError: an unknown field, a value that is not allowed, or an array of another shape.
    """
    words = {"cue": CUES, "red_door": SIDES}
    layout: dict[str, npt.NDArray[np.int64]] = {}
    for field, value in (options or {}).items():
        given = np.asarray(value)
        if field == "length":
            limits = f"an integer from {min_length} to {max_length}"
            good = given.dtype.kind in "iu" and bool(np.all((given >= min_length) & (given <= max_length)))
            numbers = given
        elif field in words:
            limits = " or ".join(repr(word) for word in words[field])
            good = bool(np.all(np.isin(given, words[field])))
            numbers = (given == words[field][1]).astype(np.int64)
        else:
            raise ValueError(f"options: unknown field {field!r}, allowed are 'length', 'cue' and 'red_door'")
        if not good:
            raise ValueError(f"options[{field!r}] must be {limits}, got {value!r}")
        if given.shape not in ((), shape):
            raise ValueError(
                f"options[{field!r}] must be one value or of shape {shape}, got shape {given.shape}"
            )
        layout[field] = np.broadcast_to(numbers, shape).astype(np.int64)
    return layout
