"""Portal, in the form to read: the rules in plain Python on top of MiniGrid."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Door, Floor

from memspan.envs.centred_view import CentredViewEnv
from memspan.envs.portal_render import draw_portal, rooms_text
from memspan.envs.portal_rules import DOORS, LABELS, SIDES, check_layout, check_parameters
from memspan.envs.vector_arguments import Layout


class PortalEnv(CentredViewEnv):
    """A sequence of doors, found by trial and error and kept in mind.

    ## Description

    Rooms in a row. Each has a door in its west wall and one in its east wall, one red and one blue. One of
    the two, the right one, leads to the next room, the other back to the first. Which one that is, and where
    the red one is, is drawn for every room and episode, independently of each other. The agent enters every
    room in the middle. The floor of the first room is green, so that an agent can see that it was sent back;
    all other rooms look alike, so that it has to know how far it has come.

    The only way on is to try a door, and the only way to get far is to remember, for every room, which door
    was right: one bit per room, and the number of the room one is in.

    ## Mission Space

    "find the way through all rooms"

    ## Action Space

    | Num | Name  | Action                                                          |
    |-----|-------|-----------------------------------------------------------------|
    | 0   | right | move to the cell on the right (east), or through the east door  |
    | 1   | down  | move to the cell below                                          |
    | 2   | left  | move to the cell on the left (west), or through the west door   |
    | 3   | up    | move to the cell above                                          |

    A move into a wall leaves the agent where it is.

    ## Observation Encoding

    - `image`: the `view_size` x `view_size` cells centred on the agent, seen through walls, as `image[x, y]`.
      Each cell is `(OBJECT_IDX, COLOR_IDX, STATE)`, with MiniGrid's numbers. Doors are always closed.
    - `direction`: always 0.
    - `mission`: as above.

    ## Rewards

    +1 for each room reached for the first time. `info["success"]` says whether the last room was reached,
    `info["rooms_reached"]` how many rooms were, the first included.

    ## Termination

    The episode terminates when the last room is reached, and, as a failure, with the mistake number
    `max_mistakes_per_room` in the same room. It is truncated after `max_steps` steps.

    ## Options

    `reset(options=...)` fixes `right_door`, `red_door` or both for the episode: "west" or "east" for every
    room but the last.

    ## Registered Configurations

    - `memspan/Portal-v0`: 10 rooms.
    - `memspan/PortalLong-v0`: 50 rooms.
    - `memspan/PortalLabelled-v0`: 10 rooms that show which they are.

    Args:
        num_rooms: rooms, the first and the last included; 2 to 10,000, and at most 51 with `room_labels`.
        room_size: cells inside a room, along one side; odd, at least 3.
        view_size: 3, 5 or 7.
        room_labels: show which room it is by the pattern of its floor.
        max_mistakes_per_room: the episode fails with that many; None: no such limit.
        max_steps: steps until truncation, at least what perfect memory can need; None: twice that.
        **kwargs: MiniGrid's own: `render_mode`, `highlight`, `tile_size`, `agent_pov`, `screen_size`.

    Raises:
        ValueError: a parameter is outside its limits.
    """

    def __init__(
        self,
        num_rooms: int = 10,
        room_size: int = 5,
        view_size: int = 3,
        room_labels: bool = False,
        max_mistakes_per_room: int | None = 2,
        max_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        max_steps = check_parameters(
            num_rooms, room_size, view_size, max_mistakes_per_room, max_steps, room_labels
        )
        self.num_rooms = num_rooms
        self.room_size = room_size
        self.room_labels = room_labels
        self.max_mistakes_per_room = max_mistakes_per_room
        self._middle = (1 + room_size // 2, 1 + room_size // 2)
        super().__init__(
            mission_space=MissionSpace(mission_func=self._gen_mission),
            width=room_size + 2,
            height=room_size + 2,
            max_steps=max_steps,
            agent_view_size=view_size,
            **kwargs,
        )

    @staticmethod
    def _gen_mission() -> str:
        return "find the way through all rooms"

    def _read_options(self, options: Mapping[str, Any] | None) -> Layout:
        return dict(check_layout(options, self.num_rooms))

    def _gen_grid(self, width: int, height: int) -> None:
        # Both are drawn whatever the options say, so that asking for one leaves the other's draws alone.
        drawn = {field: self.np_random.integers(0, 2, self.num_rooms - 1) for field in ("right", "red")}
        self.right_door = self._asked.get("right_door", drawn["right"])
        self.red_door = self._asked.get("red_door", drawn["red"])
        self.mistakes = np.zeros(self.num_rooms - 1, dtype=np.int64)
        self.rooms_reached = 1
        self._enter(0)

    def _enter(self, room: int) -> None:
        """Builds a room and puts the agent into its middle."""
        self.room = room
        self.agent_pos = self._middle
        # The agent strafes and faces right for ever: a direction that it could choose would be a memory.
        self.agent_dir = 0
        self.grid = Grid(self.width, self.height)
        self.grid.wall_rect(0, 0, self.width, self.height)
        if room == 0 or self.room_labels:
            label = LABELS[room]
            for x in range(self.room_size):
                for y in range(self.room_size):
                    place = {"plain": 0, "checkerboard": x + y, "rows": y, "columns": x}[label.pattern]
                    self.grid.set(1 + x, 1 + y, Floor(label.colours[place % 2]))
        if room < self.num_rooms - 1:
            columns = {"west": 0, "east": self.width - 1}
            for side, column in columns.items():
                is_red = SIDES[self.red_door[room]] == side
                self.grid.set(column, self._middle[1], Door(DOORS[0] if is_red else DOORS[1]))

    def _move(self, target: tuple[int, int]) -> tuple[float, str, dict[str, Any]]:
        cell = self.grid.get(*target)
        reward, outcome = 0.0, ""
        if isinstance(cell, Door):
            side = "west" if target[0] == 0 else "east"
            room = self.room
            if SIDES[self.right_door[room]] == side:
                self._enter(room + 1)
                if self.room == self.rooms_reached:
                    self.rooms_reached += 1
                    reward = 1.0
                if self.room == self.num_rooms - 1:
                    outcome = "last room reached"
            else:
                self.mistakes[room] += 1
                if self.mistakes[room] == self.max_mistakes_per_room:
                    outcome = "too many mistakes"
                self._enter(0)
        elif cell is None or cell.can_overlap():
            self.agent_pos = target
        success = self.room == self.num_rooms - 1
        return reward, outcome, {"success": success, "rooms_reached": self.rooms_reached}

    def get_state(self) -> dict[str, Any]:
        """The whole state, and with it what has to be remembered: `right_door` of the rooms passed, `room`.

        Returns:
            `room`, `x`, `y` (cells inside the room, from 0), `step_count`, `rooms_reached`; and
            (num_rooms - 1,) each: `right_door`, `red_door` (0 west, 1 east), `mistakes`.
        """
        return {
            "room": self.room,
            "x": self.agent_pos[0] - 1,
            "y": self.agent_pos[1] - 1,
            "step_count": self.step_count,
            "rooms_reached": self.rooms_reached,
            "right_door": self.right_door.copy(),
            "red_door": self.red_door.copy(),
            "mistakes": self.mistakes.copy(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Puts rooms and agent where `state`, as `get_state` gives it, says."""
        self.right_door = np.array(state["right_door"])
        self.red_door = np.array(state["red_door"])
        self.mistakes = np.array(state["mistakes"])
        self.rooms_reached = int(state["rooms_reached"])
        self._enter(int(state["room"]))
        self.agent_pos = (int(state["x"]) + 1, int(state["y"]) + 1)
        self.step_count = int(state["step_count"])
        self._outcome = ""

    def title(self) -> str:
        """Room, steps and, once it is over, how the episode ended."""
        return (
            f"room {self.room} of 0-{self.num_rooms - 1}    "
            f"step {self.step_count} of {self.max_steps}    {self._outcome}"
        )

    def draw(self) -> npt.NDArray[np.uint8]:
        """Draws the room, the row of rooms reached and the mistakes made in each."""
        return draw_portal(
            self.grid,
            agent_pos=self.agent_pos,
            agent_dir=self.agent_dir,
            highlight_mask=self.view_mask(self.highlight),
            room=self.room,
            rooms_reached=self.rooms_reached,
            mistakes=self.mistakes,
            title=self.title(),
        )

    def draw_text(self) -> list[str]:
        """Draws the same as lines for a terminal."""
        return [*super().draw_text(), "", *rooms_text(self.room, self.rooms_reached, self.mistakes)]
