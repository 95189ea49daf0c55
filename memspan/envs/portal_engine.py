"""Portal, in the form to train on: many at once, stepped by one numba kernel."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from memspan.envs import portal_kernel as kernel
from memspan.envs.corridor_rules import CorridorActions
from memspan.envs.portal import PortalEnv
from memspan.envs.portal_rules import check_layout, check_parameters
from memspan.envs.vector_engine import Layout, VectorEngine

AGENT_FIELDS = ("room", "x", "y", "step_count", "rooms_reached")
DOOR_FIELDS = ("right_door", "red_door", "mistakes")


class PortalVectorEnv(VectorEngine):
    """Portals side by side on one core, by the rules of `PortalEnv`; see `VectorEngine`.

    Observations are `PortalEnv`'s images, (num_envs, view_size, view_size, 3) uint8. `infos` has
    `rooms_reached` beside `success`.

    Args:
        num_envs: number of portals.
        num_rooms: as `PortalEnv`, and so are the others.
        room_size: cells inside a room, along one side.
        view_size: 3, 5 or 7.
        room_labels: show the number of the room.
        max_mistakes_per_room: the episode fails with that many; None: no such limit.
        max_steps: steps until truncation; None: twice what perfect memory can need.
        render_mode: None or "rgb_array".

    Raises:
        ValueError: a parameter is outside its limits.
    """

    metadata: dict[str, Any] = PortalEnv.metadata | VectorEngine.metadata
    told: ClassVar[tuple[str, ...]] = ("rooms_reached",)

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
        images = spaces.Box(0, 255, (view_size, view_size, 3), np.uint8)
        super().__init__(num_envs, images, len(CorridorActions), render_mode)
        self.num_rooms = num_rooms
        self.room_size = room_size
        self.view_size = view_size
        self.room_labels = room_labels
        self.max_mistakes_per_room = max_mistakes_per_room
        n_columns = len(AGENT_FIELDS) + len(DOOR_FIELDS) * (num_rooms - 1)
        self._state = np.zeros((self.num_envs, n_columns), dtype=np.int64)
        self._max_mistakes = max_mistakes_per_room or 0
        self._views = kernel.build_views(num_rooms, room_size, view_size, room_labels)
        self._painter: PortalEnv | None = None

    def _read_options(self, options: Mapping[str, Any]) -> Layout:
        return dict(check_layout(options, self.num_rooms, self._shape))

    def _start(self, mask: npt.NDArray[np.bool_], layout: Layout) -> None:
        kernel.draw_layouts(self._state, self._rng, self.room_size // 2, mask)
        fields = self._fields(self._state)
        for field, values in layout.items():
            fields[field][mask] = values[mask]

    def _fields(self, state: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.int64]]:
        """Views of the columns of a state, by name."""
        fields = {field: state[:, column] for column, field in enumerate(AGENT_FIELDS)}
        for k, field in enumerate(DOOR_FIELDS):
            first = kernel.FIRST + k * (self.num_rooms - 1)
            fields[field] = state[:, first : first + self.num_rooms - 1]
        return fields

    def _write_observations(self, obs: npt.NDArray[np.uint8]) -> None:
        kernel.observe(self._state, self._views, obs)

    def _advance(
        self,
        actions: npt.NDArray[np.int64],
        obs: npt.NDArray[np.uint8],
        rewards: npt.NDArray[np.float64],
        flags: npt.NDArray[np.bool_],
        told: npt.NDArray[np.int64],
    ) -> int:
        ended: int = kernel.step(
            actions,
            self._state,
            self._rng,
            self.max_steps,
            self._max_mistakes,
            self._views,
            obs,
            self._final_obs,
            rewards,
            flags,
            told,
        )
        return ended

    def get_state(self) -> dict[str, npt.NDArray[np.int64]]:
        """The oracle: the whole state, and with it what has to be remembered.

        Returns:
            Copies, each (num_envs,): `room`, `x`, `y` (cells inside the room, from 0), `step_count`,
            `rooms_reached`; and (num_envs, num_rooms - 1): `right_door`, `red_door` (0 west, 1 east),
            `mistakes`.
        """
        return {field: values.copy() for field, values in self._fields(self._state).items()}

    def set_state(self, state: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.uint8]:
        """Puts every environment where `state`, as `get_state` gives it, says; random streams go on as they
        were.

        Returns:
            What is to be seen there, (num_envs, view_size, view_size, 3).

        Raises:
            ValueError: a field is missing, unknown or outside its limits; nothing was changed.
        """
        fields = AGENT_FIELDS + DOOR_FIELDS
        if set(state) != set(fields):
            raise ValueError(f"state must have the fields {', '.join(fields)}, got {', '.join(state)}")
        most_mistakes = (self.max_mistakes_per_room or self.max_steps) - 1
        limits = {
            "room": (0, self.num_rooms - 2),
            "x": (0, self.room_size - 1),
            "y": (0, self.room_size - 1),
            "step_count": (0, self.max_steps - 1),
            "rooms_reached": (1, self.num_rooms - 1),
            "right_door": (0, 1),
            "red_door": (0, 1),
            "mistakes": (0, most_mistakes),
        }
        new = np.empty_like(self._state)
        for field, values in self._fields(new).items():
            lowest, highest = limits[field]
            values[...] = state[field]
            for index in np.argwhere((values < lowest) | (values > highest)):
                raise ValueError(
                    f"state[{field!r}] must be from {lowest} to {highest}, got {values[tuple(index)]} "
                    f"for environment {index[0]}"
                )
        self._state[:] = new
        return self._observe()

    def _draw(self, i: int) -> npt.NDArray[np.uint8]:
        if self._painter is None:
            self._painter = PortalEnv(
                self.num_rooms,
                self.room_size,
                self.view_size,
                self.room_labels,
                self.max_mistakes_per_room,
                max_steps=self.max_steps,
                render_mode="rgb_array",
            )
        self._painter.set_state({field: values[i] for field, values in self.get_state().items()})
        return self._painter.draw()
