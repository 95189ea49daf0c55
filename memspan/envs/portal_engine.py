"""Portal, in the form to train on: many at once, stepped by one numba kernel."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from memspan.envs import portal_kernel as kernel
from memspan.envs.image_engine import ImageEngine
from memspan.envs.portal import PortalEnv
from memspan.envs.portal_rules import check_layout, check_parameters
from memspan.envs.vector_arguments import Layout, Limits

AGENT_COLUMNS = {
    "room": kernel.ROOM,
    "x": kernel.X,
    "y": kernel.Y,
    "step_count": kernel.STEP_COUNT,
    "rooms_reached": kernel.REACHED,
}
DOOR_FIELDS = ("right_door", "red_door", "mistakes")


class PortalVectorEnv(ImageEngine):
    """Portals side by side on one core, by the rules of `PortalEnv`; see `VectorEngine`.

    Observations are `PortalEnv`'s images, (num_envs, view_size, view_size, 3) uint8. `infos` has
    `rooms_reached` beside `success`.

    Args:
        num_envs: number of portals.
        num_rooms: rooms, the first and the last included; 2 to 10,000, and at most 51 with `room_labels`.
        room_size: cells inside a room, along one side; odd, at least 3.
        view_size: cells that the agent sees, along each side: 3, 5 or 7.
        room_labels: show which room it is by the pattern of its floor.
        max_mistakes_per_room: the episode fails with that many; None: no such limit.
        max_steps: steps until truncation, at least what perfect memory can need; None: twice that.
        render_mode: None, "rgb_array" or "ansi".

    Raises:
        ValueError: a parameter is outside its limits.
    """

    info_names: ClassVar[tuple[str, ...]] = ("rooms_reached",)
    _kernel = staticmethod(kernel.step)

    def __init__(
        self,
        num_envs: int = 1,
        num_rooms: int = 10,
        room_size: int = 5,
        view_size: int = 3,
        room_labels: bool = False,
        max_mistakes_per_room: int | None = 2,
        *,
        max_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.max_steps = check_parameters(
            num_rooms, room_size, view_size, max_mistakes_per_room, max_steps, room_labels
        )
        columns: dict[str, int | slice] = dict(AGENT_COLUMNS)
        for k, field in enumerate(DOOR_FIELDS):
            first = kernel.FIRST + k * (num_rooms - 1)
            columns[field] = slice(first, first + num_rooms - 1)
        views = kernel.build_views(num_rooms, room_size, view_size, room_labels)
        super().__init__(num_envs, view_size, columns, views, render_mode)
        self.num_rooms = num_rooms
        self.room_size = room_size
        self.room_labels = room_labels
        self.max_mistakes_per_room = max_mistakes_per_room
        limits = np.array([self.max_steps, max_mistakes_per_room or 0], np.int64)
        self._world = (self._state, limits, self._views)

    def _read_options(self, options: Mapping[str, Any]) -> Layout:
        return dict(check_layout(options, self.num_rooms, self._shape))

    def _begin(self, mask: npt.NDArray[np.bool_]) -> None:
        kernel.draw_layouts(self._state, self.room_size // 2, mask)

    def _write_observations(self, obs: npt.NDArray[np.uint8]) -> None:
        kernel.observe(self._state, self._views, obs)

    def _state_limits(self, state: Layout) -> Limits:
        most_mistakes = (self.max_mistakes_per_room or self.max_steps) - 1
        return {
            "rooms_reached": (1, self.num_rooms - 1),
            "room": (0, state["rooms_reached"] - 1),
            "x": (0, self.room_size - 1),
            "y": (0, self.room_size - 1),
            "step_count": (0, self.max_steps - 1),
            "right_door": (0, 1),
            "red_door": (0, 1),
            "mistakes": (0, most_mistakes),
        }

    def _make_painter(self) -> PortalEnv:
        return PortalEnv(
            self.num_rooms,
            self.room_size,
            self.view_size,
            self.room_labels,
            self.max_mistakes_per_room,
            self.max_steps,
            render_mode=self.render_mode,
        )
