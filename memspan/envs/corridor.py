"""The Corridor, in the form to read: the rules in plain Python on top of MiniGrid."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Door, Wall

from memspan.envs.centred_view import CentredViewEnv
from memspan.envs.corridor_render import corridor_text, draw_corridor
from memspan.envs.corridor_rules import CUES, SIDES, check_layout, check_parameters
from memspan.envs.vector_arguments import Layout


class CorridorEnv(CentredViewEnv):
    """One bit, carried through a corridor.

    ## Description

    The agent starts at the left end (x = 0) of a corridor one cell wide, beside a ball that is red or blue:
    the cue. At the right end (x = length - 1) are two doors, a red one and a blue one, above and below the
    last cell. Entering the door of the cue's colour is success. The cue is visible from the start cell only,
    so one bit has to be remembered for `length` steps: `length - 1` moves to the right and one through a
    door.

    The corridor has to be one cell wide: in a wider one, an agent without memory could carry the bit by
    walking along one wall or the other. As it is, none gets above a success of 0.5 (see `docs/corridor.md`).

    ## Mission Space

    "go to the matching door at the end of the hallway"

    ## Action Space

    | Num | Name  | Action                                                        |
    |-----|-------|---------------------------------------------------------------|
    | 0   | right | move to the cell on the right                                 |
    | 1   | down  | move down: from the last cell through a door, else into a wall |
    | 2   | left  | move to the cell on the left                                  |
    | 3   | up    | move up: from the last cell through a door, else into a wall  |

    A move into a wall or into the cue leaves the agent where it is.

    ## Observation Encoding

    - `image`: the `view_size` x `view_size` cells centred on the agent, seen through walls, as `image[x, y]`.
      Each cell is `(OBJECT_IDX, COLOR_IDX, STATE)`, with MiniGrid's numbers. The agent's own cell is empty.
    - `direction`: always 0.
    - `mission`: as above.

    ## Rewards

    +1 for entering the door of the cue's colour, 0 for everything else. It is not discounted by time.
    `info["success"]` says at every step whether the right door was entered.

    ## Termination

    The episode terminates when the agent enters a door; the agent is then still shown in the last cell. It is
    truncated after `max_steps` steps without a door.

    ## Options

    `reset(options=...)` fixes any of the episode's `length`, `cue` ("red" or "blue") and `red_door` ("up" or
    "down").

    ## Registered Configurations

    - `memspan/Corridor-v0`: the red door is always above.
    - `memspan/CorridorShuffled-v0`: the red door is above or below, drawn every episode.

    Args:
        min_length: shortest corridor, in cells; at least `view_size // 2 + 2`, so that cue and doors are
            never seen at once.
        max_length: longest corridor; every episode's length is drawn uniformly, both ends included.
        view_size: 3, 5 or 7.
        shuffle_doors: draw the doors' sides every episode.
        max_steps: steps until truncation, at least `max_length`; None is `2 * max_length`.
        **kwargs: MiniGrid's own: `render_mode`, `highlight`, `tile_size`, `agent_pov`, `screen_size`.

    Raises:
        ValueError: a parameter is outside its limits.
    """

    def __init__(
        self,
        min_length: int = 3,
        max_length: int = 200,
        view_size: int = 3,
        shuffle_doors: bool = False,
        max_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        max_steps = check_parameters(min_length, max_length, view_size, max_steps, shuffle_doors)
        self.min_length = min_length
        self.max_length = max_length
        self.shuffle_doors = shuffle_doors
        half = view_size // 2
        # Grid column of x = 0: a border of wall, then the cue at x = -half and wall up to the start.
        self._origin = half + 1
        super().__init__(
            mission_space=MissionSpace(mission_func=self._gen_mission),
            width=self._origin + max_length + 1,
            height=3,
            max_steps=max_steps,
            agent_view_size=view_size,
            **kwargs,
        )

    @staticmethod
    def _gen_mission() -> str:
        return "go to the matching door at the end of the hallway"

    def _read_options(self, options: Mapping[str, Any] | None) -> Layout:
        return dict(check_layout(options, self.min_length, self.max_length))

    def _gen_grid(self, width: int, height: int) -> None:
        # All three are drawn whatever the options say, so that asking for one leaves the others' draws alone.
        drawn = {
            "length": self._rand_int(self.min_length, self.max_length + 1),
            "cue": self._rand_int(0, 2),
            "red_door": self._rand_int(0, 2) if self.shuffle_doors else 0,
        }
        layout = drawn | self._asked
        self._build(*(int(layout[field]) for field in ("length", "cue", "red_door")))

    def _build(self, length: int, cue: int, red_door: int) -> None:
        self.length, self.cue, self.red_door = length, cue, red_door
        self.grid = Grid(self.width, self.height)
        for x in range(self.width):
            for y in range(self.height):
                self.grid.set(x, y, Wall())
        for x in range(length):
            self.grid.set(self._origin + x, 1, None)
        ball = Ball(CUES[cue])  # type: ignore[no-untyped-call]
        self.put_obj(ball, self._origin - self.agent_view_size // 2, 1)
        above, below = CUES if SIDES[red_door] == "up" else reversed(CUES)
        self.put_obj(Door(above), self._origin + length - 1, 0)
        self.put_obj(Door(below), self._origin + length - 1, 2)
        self.agent_pos = (self._origin, 1)
        # The agent strafes and faces right for ever: a direction that it could choose would be a place to
        # keep the bit.
        self.agent_dir = 0

    def _move(self, target: tuple[int, int]) -> tuple[float, str, dict[str, Any]]:
        cell = self.grid.get(*target)
        if cell is None:
            self.agent_pos = target
        if not isinstance(cell, Door):
            return 0.0, "", {"success": False}
        success = cell.color == CUES[self.cue]
        return float(success), "correct door" if success else "wrong door", {"success": success}

    def get_state(self) -> dict[str, int]:
        """The whole state, and with it what has to be remembered: `cue`.

        Returns:
            `length`, `cue` (0 red, 1 blue), `red_door` (0 up, 1 down), `x` and `step_count`.
        """
        return {
            "length": self.length,
            "cue": self.cue,
            "red_door": self.red_door,
            "x": self.agent_pos[0] - self._origin,
            "step_count": self.step_count,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Puts the corridor and the agent where `state`, as `get_state` gives it, says."""
        self._build(int(state["length"]), int(state["cue"]), int(state["red_door"]))
        self.agent_pos = (self._origin + int(state["x"]), 1)
        self.step_count = int(state["step_count"])
        self._outcome = ""

    def title(self) -> str:
        """Cue, cell, steps and, once it is over, how the episode ended."""
        cell = self.agent_pos[0] - self._origin
        return (
            f"cue {CUES[self.cue]}    cell {cell} of 0-{self.length - 1}    "
            f"step {self.step_count} of {self.max_steps}    {self._outcome}"
        )

    def draw(self) -> npt.NDArray[np.uint8]:
        """Draws the corridor folded into rows, under a line that says how the episode stands."""
        return draw_corridor(
            self.grid,
            origin=self._origin,
            length=self.length,
            agent_pos=self.agent_pos,
            agent_dir=self.agent_dir,
            highlight_mask=self.view_mask(self.highlight),
            title=self.title(),
        )

    def draw_text(self) -> list[str]:
        """Draws the corridor as lines for a terminal, folded into rows."""
        return corridor_text(
            self.grid,
            origin=self._origin,
            length=self.length,
            agent_pos=self.agent_pos,
            agent_dir=self.agent_dir,
            highlight_mask=self.view_mask(self.highlight),
        )
