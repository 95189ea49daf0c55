"""Pictures of the Corridor: the strip of cells folded into rows, under a line of text."""

import numpy as np
import numpy.typing as npt
from minigrid.core.grid import Grid

from memspan.envs.ansi import WALL_SIGN, cell_text
from memspan.envs.drawing import PAPER, write

CELLS_PER_ROW = 40
MAX_ROW_WIDTH = 1140
MAX_TILE = 48
MIN_WIDTH = 560
MARGIN = 16
TITLE_HEIGHT = 30
TITLE_SIZE = 18
LABEL_HEIGHT = 18
LABEL_SIZE = 12
LABEL_EVERY = 10
GAP = 6
TEXT_COLUMNS = 80
"""Of a terminal; 200 cells then fit into 24 lines."""


def draw_corridor(
    grid: Grid,
    *,
    origin: int,
    length: int,
    agent_pos: tuple[int, int],
    agent_dir: int,
    highlight_mask: npt.NDArray[np.bool_],
    title: str,
) -> npt.NDArray[np.uint8]:
    """Draws a corridor folded into rows of 40 cells, every tenth cell numbered.

    Args:
        grid: three rows of cells; its width says how much room to leave, whatever this episode's length.
        origin: column of x = 0.
        length: cells of this episode's corridor.
        agent_pos: column and row.
        agent_dir: MiniGrid's direction.
        highlight_mask: (width, height) of the grid, the cells in the agent's view.
        title: the line of text above.

    Returns:
        (height, width, 3) uint8, of a shape that depends on the grid's size only.
    """
    room = grid.width - origin - 1
    columns = origin + min(room, CELLS_PER_ROW) + 1
    rows = -(-room // CELLS_PER_ROW)
    tile = min(MAX_TILE, MAX_ROW_WIDTH // columns)
    row_height = LABEL_HEIGHT + grid.height * tile + GAP
    width = max(columns * tile + 2 * MARGIN, MIN_WIDTH)
    picture = np.full((2 * MARGIN + TITLE_HEIGHT + rows * row_height - GAP, width, 3), PAPER, dtype=np.uint8)
    write(picture, title, MARGIN, MARGIN, TITLE_SIZE)

    for x in range(-origin, length + 1):
        # The wall behind the last cell stays in that cell's row, as the walls before the first do.
        row, place = divmod(min(max(x, 0), length - 1), CELLS_PER_ROW)
        place += x - min(max(x, 0), length - 1)
        top = MARGIN + TITLE_HEIGHT + row * row_height + LABEL_HEIGHT
        left = MARGIN + (origin + place) * tile
        for y in range(grid.height):
            column = origin + x
            picture[top + y * tile : top + (y + 1) * tile, left : left + tile] = Grid.render_tile(
                grid.get(column, y),
                agent_dir=agent_dir if (column, y) == tuple(agent_pos) else None,
                highlight=bool(highlight_mask[column, y]),
                tile_size=tile,
            )
        if 0 <= x < length and x % LABEL_EVERY == 0:
            write(picture, str(x), left, top - LABEL_HEIGHT + 3, LABEL_SIZE)
    return picture


def corridor_text(
    grid: Grid,
    *,
    origin: int,
    length: int,
    agent_pos: tuple[int, int],
    agent_dir: int,
    highlight_mask: npt.NDArray[np.bool_],
) -> list[str]:
    """Draws a corridor for a terminal, folded into rows of 80 columns, every tenth cell numbered in the wall.

    Args:
        grid: three rows of cells.
        origin: column of x = 0.
        length: cells of this episode's corridor.
        agent_pos: column and row.
        agent_dir: MiniGrid's direction.
        highlight_mask: (width, height) of the grid, the cells in the agent's view.
    """
    lines: list[str] = []
    # Two characters a cell, and room for the walls before the first and behind the last. Even, so that no
    # label, which takes two cells, starts in the last cell of a row.
    cells_per_row = (TEXT_COLUMNS // 2 - origin - 1) // 2 * 2
    for first in range(0, length, cells_per_row):
        last = min(first + cells_per_row, length)
        # Walls before the first cell and behind the last stand in the row of those cells.
        columns = range(origin + first if first else 0, origin + last + (last == length))
        indent = "  " * (origin if first else 0)
        for y in range(grid.height):
            cells = []
            number = ""
            for column in columns:
                x = column - origin
                if y == 0 and 0 <= x < length - 1 and x % LABEL_EVERY == 0:
                    number = f"{x:<4}"
                mark, number = (number[:2], number[2:]) if number.strip() else (WALL_SIGN, "")
                here = agent_dir if (column, y) == tuple(agent_pos) else None
                cells.append(cell_text(grid.get(column, y), bool(highlight_mask[column, y]), here, mark))
            lines.append(indent + "".join(cells))
    return lines
