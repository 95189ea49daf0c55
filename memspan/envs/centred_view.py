"""MiniGrid with the agent in the centre of what it sees: what the tasks on a grid share to read."""

from abc import abstractmethod
from collections.abc import Mapping
from difflib import get_close_matches
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from minigrid.core.constants import DIR_TO_VEC
from minigrid.core.grid import Grid
from minigrid.minigrid_env import MiniGridEnv

from memspan.envs.ansi import grid_text
from memspan.envs.moves import Moves
from memspan.envs.vector_arguments import Layout
from memspan.envs.window import HasWindow


class CentredViewEnv(HasWindow, MiniGridEnv):
    """A MiniGrid environment whose agent sees the square of cells around it, through walls.

    MiniGrid's own agent looks forward from the lower edge of its view, which turns with it. Everything in
    MiniGrid that follows from that is replaced here, so that MiniGrid's wrappers find what they expect.

    Actions are `Moves`: the agent strafes, and never turns.

    `render` shows what `draw` returns, or `draw_text` in a terminal; `get_frame`, which MiniGrid's image
    wrappers call, still draws the plain grid.
    """

    metadata = MiniGridEnv.metadata | {"render_modes": ["human", "rgb_array", "ansi"]}

    # MiniGrid's own annotations are wider.
    agent_pos: tuple[int, int]

    def __init__(self, **kwargs: Any) -> None:
        known = signature(type(self)).parameters.keys() | signature(MiniGridEnv).parameters.keys()
        for name in kwargs.keys() - known:
            near = get_close_matches(name, sorted(known), n=1)
            raise TypeError(f"{name}: unknown" + (f"; did you mean {near[0]}?" if near else ""))
        # What the options of this episode ask for, and how it ended, if it has.
        self._asked: Layout = {}
        self._outcome = ""
        super().__init__(see_through_walls=True, **kwargs)
        self.actions = Moves  # type: ignore[assignment]
        self.action_space = spaces.Discrete(len(Moves))

    @abstractmethod
    def _read_options(self, options: Mapping[str, Any] | None) -> Layout:
        """What `reset(options=...)` asks for.

        Raises:
            ValueError: an unknown field, or a value that is not allowed.
        """

    @abstractmethod
    def _move(self, target: tuple[int, int]) -> tuple[float, str, dict[str, Any]]:
        """Moves the agent to the cell beside it at `target`, as far as that is possible.

        Returns:
            The reward; how the episode ended, "" if it goes on; and the info.
        """

    @abstractmethod
    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`, as `get_state` gives it."""

    def reset(  # type: ignore[override]
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: seeds the layouts from here on; None goes on with the present stream.
            options: fixes what they name for this episode; see the class.

        Raises:
            ValueError: `options` holds an unknown field or a value that is not allowed.
        """
        self._asked = self._read_options(options)
        self._outcome = ""
        self.step_count = 0
        return super().reset(seed=seed)

    def step(  # type: ignore[override]
        self, action: Any
    ) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Moves the agent by one cell.

        Raises:
            ValueError: `action` is not 0, 1, 2 or 3.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"action must be 0, 1, 2 or 3, got {action!r}")
        self.step_count += 1
        dx, dy = DIR_TO_VEC[int(action)]
        target = int(self.agent_pos[0] + dx), int(self.agent_pos[1] + dy)
        reward, outcome, info = self._move(target)
        terminated = outcome != ""
        truncated = not terminated and self.step_count >= self.max_steps
        self._outcome = "out of time" if truncated else outcome
        if self.render_mode == "human":
            self.render()
        observation = self.gen_obs()  # type: ignore[no-untyped-call]
        return observation, reward, terminated, truncated, info

    @abstractmethod
    def draw(self) -> npt.NDArray[np.uint8]:
        """Draws the environment for people; of the same shape in every episode."""

    def title(self) -> str:
        """The line above the picture: how the episode stands."""
        return f"step {self.step_count} of {self.max_steps}"

    def draw_text(self) -> list[str]:
        """Draws the environment as lines for a terminal; here the whole grid."""
        return grid_text(self.grid, self.agent_pos, self.agent_dir, self.view_mask(self.highlight))

    def get_view_exts(self, agent_view_size: int | None = None) -> tuple[int, int, int, int]:
        """Corners of the view in the grid: left, top, and (not included) right, bottom."""
        size = agent_view_size or self.agent_view_size
        left, top = self.agent_pos[0] - size // 2, self.agent_pos[1] - size // 2
        return left, top, left + size, top + size

    def get_view_coords(self, i: int, j: int) -> tuple[int, int]:
        """Where grid cell (i, j) is in the view; may lie outside of it."""
        left, top, _, _ = self.get_view_exts()
        return i - left, j - top

    def gen_obs_grid(self, agent_view_size: int | None = None) -> tuple[Grid, npt.NDArray[np.bool_]]:
        """The cells in view, and a mask that says that all of them are visible."""
        size = agent_view_size or self.agent_view_size
        left, top, _, _ = self.get_view_exts(size)
        return self.grid.slice(left, top, size, size), np.ones((size, size), dtype=bool)

    def view_mask(self, highlight: bool = True) -> npt.NDArray[np.bool_]:
        """(width, height) of the grid: the cells in view, or none if `highlight` is off."""
        left, top, right, bottom = self.get_view_exts()
        mask = np.zeros((self.width, self.height), dtype=bool)
        mask[max(left, 0) : right, max(top, 0) : bottom] = highlight
        return mask

    def get_pov_render(self, tile_size: int) -> npt.NDArray[np.uint8]:
        """A picture of the view alone."""
        grid, mask = self.gen_obs_grid()
        centre = self.agent_view_size // 2
        return grid.render(tile_size, (centre, centre), self.agent_dir, highlight_mask=mask)

    def get_pov_text(self) -> list[str]:
        """The view alone, as lines for a terminal."""
        grid, mask = self.gen_obs_grid()
        centre = self.agent_view_size // 2
        return grid_text(grid, (centre, centre), self.agent_dir, mask)

    def get_full_render(self, highlight: bool, tile_size: int) -> npt.NDArray[np.uint8]:
        """A picture of the whole grid, (height * tile_size, width * tile_size, 3)."""
        return self.grid.render(
            tile_size, self.agent_pos, self.agent_dir, highlight_mask=self.view_mask(highlight)
        )

    def render(self) -> npt.NDArray[np.uint8] | str | None:
        """Shows what `draw` returns, or the view alone with `agent_pov`.

        Returns:
            The picture (height, width, 3) for `render_mode="rgb_array"`, lines of text with ANSI colours for
            "ansi", else None.
        """
        if self.render_mode is None:
            return None
        if self.render_mode == "ansi":
            # The title may tell what the view does not show.
            return "\n".join(self.get_pov_text() if self.agent_pov else [self.title(), *self.draw_text()])
        picture = self.get_pov_render(self.tile_size) if self.agent_pov else self.draw()
        if self.render_mode == "rgb_array":
            return picture
        self.show(picture)
        return None
