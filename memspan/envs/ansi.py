"""MiniGrid's cells as text for a terminal: two characters a cell, coloured by ANSI codes.

Legible without colours too: what is not a wall is a sign and the first letter of its colour.
"""

import numpy as np
import numpy.typing as npt
from minigrid.core.grid import Grid
from minigrid.core.world_object import WorldObj

# Of the 256 colours that every terminal has.
COLOURS = {"red": 203, "green": 71, "blue": 75, "purple": 140, "yellow": 221, "grey": 250}
DARK_COLOURS = {"red": 131, "green": 65, "blue": 67, "purple": 97, "yellow": 136, "grey": 242}
FLOOR, SEEN_FLOOR, WALL, SEEN_WALL, AGENT = 235, 239, 244, 249, 203
RESET = "\x1b[0m"
SIGNS = {"ball": "●", "door": "▮", "key": "⚷", "box": "■", "goal": "◆", "lava": "≈"}
OPEN_DOOR = "▯"
AGENT_SIGNS = ("▶ ", "▼ ", "◀ ", "▲ ")
"""By MiniGrid's direction."""
WALL_SIGN = "██"


def paint(text: str, ink: int | None = None, paper: int | None = None) -> str:
    """Text in one of 256 colours on another."""
    codes = ([f"38;5;{ink}"] if ink is not None else []) + ([f"48;5;{paper}"] if paper is not None else [])
    return f"\x1b[{';'.join(codes)}m{text}{RESET}" if codes else text


def cell_text(cell: WorldObj | None, seen: bool, agent_dir: int | None = None, wall: str = WALL_SIGN) -> str:
    """One cell, two characters wide.

    Args:
        cell: what is there.
        seen: whether it is in the agent's view, and drawn lighter.
        agent_dir: where the agent looks if it is in this cell, else None.
        wall: what to write if it is a wall; other than full blocks, it is written on the wall.
    """
    if cell is not None and cell.type == "wall":
        shade = SEEN_WALL if seen else WALL
        return paint(wall, shade) if wall == WALL_SIGN else paint(wall, FLOOR, shade)
    paper = SEEN_FLOOR if seen else FLOOR
    if cell is not None and cell.type == "floor":
        paper = DARK_COLOURS.get(cell.color, paper)
    if agent_dir is not None:
        return paint(AGENT_SIGNS[agent_dir], AGENT, paper)
    if cell is None:
        return paint("  ", paper=paper)
    if cell.type == "floor":
        return paint(f" {cell.color[0]}", FLOOR, paper)
    sign = OPEN_DOOR if getattr(cell, "is_open", False) else SIGNS.get(cell.type, cell.type[0].upper())
    return paint(sign + cell.color[0], COLOURS.get(cell.color, COLOURS["grey"]), paper)


def grid_text(
    grid: Grid, agent_pos: tuple[int, int], agent_dir: int, highlight_mask: npt.NDArray[np.bool_]
) -> list[str]:
    """A grid's lines.

    Args:
        grid: the cells.
        agent_pos: column and row.
        agent_dir: MiniGrid's direction.
        highlight_mask: (width, height), the cells in the agent's view.
    """
    return [
        "".join(
            cell_text(
                grid.get(x, y), bool(highlight_mask[x, y]), agent_dir if (x, y) == tuple(agent_pos) else None
            )
            for x in range(grid.width)
        )
        for y in range(grid.height)
    ]
