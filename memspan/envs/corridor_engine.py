"""The Corridor, in the form to train on: many at once, stepped by one numba kernel."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from memspan.envs import corridor_kernel as kernel
from memspan.envs.corridor import CorridorEnv
from memspan.envs.corridor_rules import CorridorActions, check_layout, check_parameters
from memspan.envs.vector_engine import Layout, VectorEngine

STATE_FIELDS = ("length", "cue", "red_door", "x", "step_count")


class CorridorVectorEnv(VectorEngine):
    """Corridors side by side on one core, by the rules of `CorridorEnv`; see `VectorEngine`.

    Observations are `CorridorEnv`'s images, (num_envs, view_size, view_size, 3) uint8.

    Args:
        num_envs: number of corridors.
        min_length: as `CorridorEnv`, and so are the others.
        max_length: longest corridor.
        view_size: 3, 5 or 7.
        shuffle_doors: draw the doors' sides every episode.
        max_steps: steps until truncation; None is `2 * max_length`.
        render_mode: None or "rgb_array".

    Raises:
        ValueError: a parameter is outside its limits.
    """

    metadata: dict[str, Any] = CorridorEnv.metadata | VectorEngine.metadata

    def __init__(
        self,
        num_envs: int = 1,
        min_length: int = 3,
        max_length: int = 200,
        view_size: int = 3,
        shuffle_doors: bool = False,
        *,
        max_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.max_steps = check_parameters(min_length, max_length, view_size, max_steps)
        images = spaces.Box(0, 255, (view_size, view_size, 3), np.uint8)
        super().__init__(num_envs, images, len(CorridorActions), render_mode)
        self.min_length = min_length
        self.max_length = max_length
        self.view_size = view_size
        self.shuffle_doors = shuffle_doors
        self._state = np.zeros((self.num_envs, len(STATE_FIELDS)), dtype=np.int64)
        self._state[:, kernel.LENGTH] = min_length
        self._limits = np.array(
            [min_length, max_length - min_length + 1, self.max_steps, shuffle_doors], np.int64
        )
        self._views = kernel.build_views(view_size)
        self._painter: CorridorEnv | None = None

    def _read_options(self, options: Mapping[str, Any]) -> Layout:
        return dict(check_layout(options, self.min_length, self.max_length, self._shape))

    def _start(self, mask: npt.NDArray[np.bool_], layout: Layout) -> None:
        kernel.draw_layouts(self._state, self._rng, self._limits, mask)
        for field, values in layout.items():
            self._state[mask, STATE_FIELDS.index(field)] = values[mask]

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
            actions, self._state, self._rng, self._limits, self._views, obs, self._final_obs, rewards, flags
        )
        return ended

    def get_state(self) -> dict[str, npt.NDArray[np.int64]]:
        """The oracle: the whole state, and with it what has to be remembered, `cue`.

        Returns:
            Copies, each (num_envs,): `length`, `cue` (0 red, 1 blue), `red_door` (0 up, 1 down), `x`,
            `step_count`.
        """
        return {field: self._state[:, column].copy() for column, field in enumerate(STATE_FIELDS)}

    def set_state(self, state: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.uint8]:
        """Puts every environment where `state`, as `get_state` gives it, says; random streams go on as they
        were.

        Returns:
            What is to be seen there, (num_envs, view_size, view_size, 3).

        Raises:
            ValueError: a field is missing, unknown or outside its limits; nothing was changed.
        """
        if set(state) != set(STATE_FIELDS):
            raise ValueError(f"state must have the fields {', '.join(STATE_FIELDS)}, got {', '.join(state)}")
        new = np.empty_like(self._state)
        for column, field in enumerate(STATE_FIELDS):
            new[:, column] = state[field]
        lowest = np.array([self.min_length, 0, 0, 0, 0])
        highest = np.tile([self.max_length, 1, 1, 0, self.max_steps - 1], (self.num_envs, 1))
        highest[:, kernel.X] = new[:, kernel.LENGTH] - 1
        for i, column in np.argwhere((new < lowest) | (new > highest)):
            raise ValueError(
                f"state[{STATE_FIELDS[column]!r}] must be from {lowest[column]} to {highest[i, column]}, "
                f"got {new[i, column]} for environment {i}"
            )
        self._state[:] = new
        return self._observe()

    def _draw(self, i: int) -> npt.NDArray[np.uint8]:
        if self._painter is None:
            self._painter = CorridorEnv(
                self.min_length,
                self.max_length,
                self.view_size,
                max_steps=self.max_steps,
                render_mode="rgb_array",
            )
        self._painter.set_state(dict(zip(STATE_FIELDS, self._state[i].tolist(), strict=True)))
        return self._painter.draw()
