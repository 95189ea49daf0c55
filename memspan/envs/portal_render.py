"""Pictures of Portal: the room the agent is in, above the row of all rooms."""

import numpy as np
import numpy.typing as npt
from minigrid.core.grid import Grid

from memspan.envs.ansi import COLOURS, FLOOR, SEEN_FLOOR, paint
from memspan.envs.drawing import FAINT, INK, PAPER, Colour, write

MARGIN = 16
TITLE_HEIGHT = 34
TITLE_SIZE = 18
SMALL_SIZE = 12
ROOM_WIDTH = 308
MIN_TILE = 12
WIDTH = 560
CELL = 36
MOST_MARKS = 4
"""As many as fit below a square."""
ROOMS_PER_ROW = 14
ROW_HEIGHT = CELL + 22

REACHED: Colour = (178, 214, 178)
AHEAD: Colour = (228, 228, 224)
TEXT_ROOMS_PER_ROW = 15
"""At five columns each, in a terminal of 80."""
HERE: Colour = (200, 60, 40)
MISTAKE: Colour = (200, 60, 40)


def draw_portal(
    grid: Grid,
    *,
    agent_pos: tuple[int, int],
    agent_dir: int,
    highlight_mask: npt.NDArray[np.bool_],
    room: int,
    rooms_reached: int,
    mistakes: npt.NDArray[np.int64],
    title: str,
) -> npt.NDArray[np.uint8]:
    """Draws the present room, and below it one square per room.

    Squares are green up to the furthest room reached, with the number of the room in them, a frame around
    the present one, and a mark below for every mistake made in it, four at most.

    Args:
        grid: the present room.
        agent_pos: column and row.
        agent_dir: MiniGrid's direction.
        highlight_mask: (width, height) of the grid, the cells in the agent's view.
        room: number of the present room.
        rooms_reached: how many rooms were reached.
        mistakes: (rooms - 1,) made in each.
        title: the line of text above.

    Returns:
        (height, width, 3) uint8, of a shape that depends on the number and size of rooms only.
    """
    n_rooms = len(mistakes) + 1
    tile = max(ROOM_WIDTH // grid.width, MIN_TILE)
    # MiniGrid draws lines and shapes per tile: the result is as it would be drawn there.
    inside = grid.render(tile, agent_pos, agent_dir, highlight_mask=highlight_mask)
    n_rows = -(-n_rooms // ROOMS_PER_ROW)
    width = max(WIDTH, inside.shape[1] + 2 * MARGIN)
    top = MARGIN + TITLE_HEIGHT
    rows_top = top + inside.shape[0] + MARGIN
    picture = np.full((rows_top + n_rows * ROW_HEIGHT + MARGIN, width, 3), PAPER, dtype=np.uint8)
    write(picture, title, MARGIN, MARGIN, TITLE_SIZE)
    left = (width - inside.shape[1]) // 2
    picture[top : top + inside.shape[0], left : left + inside.shape[1]] = inside

    for k in range(n_rooms):
        row, column = divmod(k, ROOMS_PER_ROW)
        x, y = MARGIN + column * (CELL + 2), rows_top + row * ROW_HEIGHT
        if k == room:
            picture[y - 2 : y + CELL + 1, x - 2 : x + CELL + 1] = HERE
        paper = REACHED if k < rooms_reached else AHEAD
        picture[y + 1 : y + CELL - 2, x + 1 : x + CELL - 2] = paper
        ink = INK if k < rooms_reached else FAINT
        write(picture, str(k), x + 6, y + 8, SMALL_SIZE, ink, paper)
        for mark in range(min(int(mistakes[k]) if k < n_rooms - 1 else 0, MOST_MARKS)):
            picture[y + CELL + 4 : y + CELL + 10, x + 2 + 8 * mark : x + 8 + 8 * mark] = MISTAKE
    return picture


def rooms_text(room: int, rooms_reached: int, mistakes: npt.NDArray[np.int64]) -> list[str]:
    """Draws one number per room for a terminal: the present one in brackets, below it an x for every mistake.

    Rooms that were reached are green, or, without colours, those that are not have a dot before the number.

    Args:
        room: number of the present room.
        rooms_reached: how many rooms were reached.
        mistakes: (rooms - 1,) made in each.
    """
    n_rooms = len(mistakes) + 1
    lines = []
    for first in range(0, n_rooms, TEXT_ROOMS_PER_ROW):
        numbers, marks = [], []
        for k in range(first, min(first + TEXT_ROOMS_PER_ROW, n_rooms)):
            number = f"[{k}]" if k == room else f" {k} " if k < rooms_reached else f".{k} "
            ink, paper = (FLOOR, COLOURS["green"]) if k < rooms_reached else (COLOURS["grey"], SEEN_FLOOR)
            numbers.append(paint(f"{number:^4}", ink, paper))
            mark = "x" * min(int(mistakes[k]) if k < n_rooms - 1 else 0, 4)
            marks.append(paint(f"{mark:^4}", COLOURS["red"]))
        lines += [" ".join(numbers), " ".join(marks)]
    return lines
