"""What the engines of the tasks on a grid share: views drawn beforehand, one array of state, a painter."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from memspan.envs.centred_view import CentredViewEnv
from memspan.envs.moves import Moves
from memspan.envs.vector_arguments import Layout
from memspan.envs.vector_engine import VectorEngine


class ImageEngine(VectorEngine):
    """An engine whose form to read is a `CentredViewEnv`.

    Args:
        num_envs: how many.
        view_size: cells that the agent sees, along each side.
        columns: where in a row of the state each field is.
        views: every view there is, see the task's kernel.
        render_mode: None, "rgb_array" or "ansi".

    Raises:
        ValueError: `num_envs` or `render_mode` is not allowed.
    """

    metadata: dict[str, Any] = CentredViewEnv.metadata | VectorEngine.metadata

    def __init__(
        self,
        num_envs: int,
        view_size: int,
        columns: Mapping[str, int | slice],
        views: npt.NDArray[np.uint8],
        render_mode: str | None,
    ) -> None:
        images = spaces.Box(0, 255, (view_size, view_size, 3), np.uint8)
        n_columns = max(place.stop if isinstance(place, slice) else place + 1 for place in columns.values())
        super().__init__(num_envs, images, len(Moves), n_columns, render_mode)
        self.view_size = view_size
        self._columns = columns
        self._views = views

    @abstractmethod
    def _begin(self, mask: npt.NDArray[np.bool_]) -> None:
        """Draws new episodes for the environments in `mask` (N,)."""

    @abstractmethod
    def _make_painter(self) -> CentredViewEnv:
        """The form to read, with this engine's settings and render mode."""

    @cached_property
    def _painter(self) -> CentredViewEnv:
        return self._make_painter()

    def _fields(self) -> Layout:
        """Views of the state's columns, by name."""
        return {field: self._state[:, place] for field, place in self._columns.items()}

    def _start(self, mask: npt.NDArray[np.bool_], layout: Layout) -> None:
        self._begin(mask)
        fields = self._fields()
        for field, values in layout.items():
            fields[field][mask] = values[mask]

    def get_state(self) -> Layout:
        return {field: values.copy() for field, values in self._fields().items()}

    def _put_state(self, state: Layout) -> None:
        for field, values in self._fields().items():
            values[...] = state[field]

    def _render_one(self, state: Layout) -> Any:
        self._painter.set_state(state)
        return self._painter.render()
