"""What both forms of Portal share: its words, the limits of its parameters, and layouts to order.

The readable form (`portal.py`) and the engine (`portal_engine.py`) each spell out moves, rewards and views
on their own, so that comparing them means something.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from memspan.envs.moves import check_view_size
from memspan.envs.vector_arguments import check_bool, is_integer

DOORS = ("red", "blue")
"""Colours of a room's two doors; states hold the position in this tuple."""

SIDES = ("west", "east")
"""Walls that doors are in; states hold the position in this tuple."""

FLOORS = ("green", "yellow", "purple", "grey", "red", "blue")
"""Colours of floors; the first room's is green."""


class Label(NamedTuple):
    """What a floor looks like: one colour, or two that alternate."""

    pattern: Literal["plain", "checkerboard", "rows", "columns"]
    colours: tuple[str, str]


# Told apart by any two by two cells, and no pattern is another one that is shifted or has its colours
# swapped. So every view of a room shows which room it is.
LABELS = (
    *(Label("plain", (colour, colour)) for colour in FLOORS),
    *(
        Label(pattern, pair)
        for pair in combinations(FLOORS, 2)
        for pattern in ("checkerboard", "rows", "columns")
    ),
)
"""By room."""
MOST_ROOMS = 10_000
"""An environment holds three numbers for every room: of more, a batch would ask for gigabytes."""


def check_parameters(
    num_rooms: int,
    room_size: int,
    view_size: int,
    max_mistakes_per_room: int | None,
    max_steps: int | None,
    room_labels: bool = False,
) -> int:
    """Returns the number of steps after which an episode is truncated.

    Raises:
        ValueError: a parameter is outside its limits.
    """
    if not is_integer(num_rooms) or not 2 <= num_rooms <= MOST_ROOMS:
        raise ValueError(f"num_rooms must be an integer from 2 to {MOST_ROOMS:,}, got {num_rooms!r}")
    check_bool("room_labels", room_labels)
    if room_labels and num_rooms > len(LABELS):
        raise ValueError(f"num_rooms must be at most {len(LABELS)} with room_labels, got {num_rooms!r}")
    if not is_integer(room_size) or room_size < 3 or room_size % 2 == 0:
        raise ValueError(f"room_size must be an odd integer >= 3, got {room_size!r}")
    check_view_size(view_size)
    if max_mistakes_per_room is not None and (
        not is_integer(max_mistakes_per_room) or max_mistakes_per_room < 1
    ):
        raise ValueError(
            f"max_mistakes_per_room must be None or an integer >= 1, got {max_mistakes_per_room!r}"
        )
    needed = most_steps(num_rooms, room_size)
    if max_steps is None:
        return 2 * needed
    if not is_integer(max_steps) or max_steps < needed:
        raise ValueError(
            f"max_steps must be None or an integer >= {needed}, what perfect memory can need with "
            f"{num_rooms} rooms of size {room_size}, got {max_steps!r}"
        )
    return int(max_steps)


def steps_per_room(room_size: int) -> int:
    """Steps from the middle of a room through a door."""
    return room_size // 2 + 1


def most_steps(num_rooms: int, room_size: int) -> int:
    """Steps that an agent with perfect memory needs if its first guess is wrong in every room.

    A mistake in room k (from 0) costs that visit and the way back through k rooms.
    """
    visits = (num_rooms - 1) + num_rooms * (num_rooms - 1) // 2
    return visits * steps_per_room(room_size)


def check_layout(
    options: Mapping[str, Any] | None, num_rooms: int, shape: tuple[int, ...] = ()
) -> dict[str, npt.NDArray[np.int64]]:
    """Reads the layout that `reset(options=...)` asks for.

    Args:
        options: any of `right_door` and `red_door`, each "west" or "east" for every room but the last: one
            list for all environments, or an array (*shape, num_rooms - 1).
        num_rooms: rooms, the last included.
        shape: `()` for one environment, `(num_envs,)` for many.

    Returns:
        The fields asked for, as positions in `SIDES`, (*shape, num_rooms - 1).

    Raises:
        ValueError: an unknown field, a value that is not allowed, or an array of another shape.
    """
    wanted = (*shape, num_rooms - 1)
    layout: dict[str, npt.NDArray[np.int64]] = {}
    for field, value in (options or {}).items():
        if field not in ("right_door", "red_door"):
            raise ValueError(f"options: unknown field {field!r}, allowed are 'right_door' and 'red_door'")
        given = np.asarray(value)
        if not np.all(np.isin(given, SIDES)):
            raise ValueError(f"options[{field!r}] must be 'west' or 'east' for every room, got {value!r}")
        if given.shape not in (wanted, wanted[len(shape) :]):
            shapes = " or ".join(dict.fromkeys(map(str, (wanted[len(shape) :], wanted))))
            raise ValueError(f"options[{field!r}] must be of shape {shapes}, got shape {given.shape}")
        layout[field] = np.broadcast_to(given == SIDES[1], wanted).astype(np.int64)
    return layout
