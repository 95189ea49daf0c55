"""The Corridor, in the form to train on: many at once, stepped by one numba kernel."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from memspan.envs import corridor_kernel as kernel
from memspan.envs.corridor import CorridorEnv
from memspan.envs.corridor_rules import check_layout, check_parameters
from memspan.envs.image_engine import ImageEngine
from memspan.envs.vector_arguments import Layout, Limits

COLUMNS = {
    "length": kernel.LENGTH,
    "cue": kernel.CUE,
    "red_door": kernel.RED_DOOR,
    "x": kernel.X,
    "step_count": kernel.STEP_COUNT,
}


class CorridorVectorEnv(ImageEngine):
    """Corridors side by side on one core, by the rules of `CorridorEnv`; see `VectorEngine`.

    Observations are `CorridorEnv`'s images, (num_envs, view_size, view_size, 3) uint8.

    Args:
        num_envs: number of corridors.
        min_length: shortest corridor, in cells; at least `view_size // 2 + 2`.
        max_length: longest corridor; every episode's length is drawn uniformly.
        view_size: cells that the agent sees, along each side: 3, 5 or 7.
        shuffle_doors: draw the doors' sides every episode.
        max_steps: steps until truncation, at least `max_length`; None is `2 * max_length`.
        render_mode: None, "rgb_array" or "ansi".

    Raises:
        ValueError: a parameter is outside its limits.
    """

    _kernel = staticmethod(kernel.step)

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
        self.max_steps = check_parameters(min_length, max_length, view_size, max_steps, shuffle_doors)
        super().__init__(num_envs, view_size, COLUMNS, kernel.build_views(view_size), render_mode)
        self.min_length = min_length
        self.max_length = max_length
        self.shuffle_doors = shuffle_doors
        self._state[:, kernel.LENGTH] = min_length
        self._limits = np.array(
            [min_length, max_length - min_length + 1, self.max_steps, shuffle_doors], np.int64
        )
        self._world = (self._state, self._limits, self._views)

    def _read_options(self, options: Mapping[str, Any]) -> Layout:
        return dict(check_layout(options, self.min_length, self.max_length, self._shape))

    def _begin(self, mask: npt.NDArray[np.bool_]) -> None:
        kernel.draw_layouts(self._state, self._limits, mask)

    def _write_observations(self, obs: npt.NDArray[np.uint8]) -> None:
        kernel.observe(self._state, self._views, obs)

    def _state_limits(self, state: Layout) -> Limits:
        return {
            "length": (self.min_length, self.max_length),
            "cue": (0, 1),
            "red_door": (0, 1),
            "x": (0, state["length"] - 1),
            "step_count": (0, self.max_steps - 1),
        }

    def _make_painter(self) -> CorridorEnv:
        return CorridorEnv(
            self.min_length,
            self.max_length,
            self.view_size,
            self.shuffle_doors,
            self.max_steps,
            render_mode=self.render_mode,
        )
