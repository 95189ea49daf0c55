"""The Corridor, in the form to train on: many at once, stepped by one numba kernel."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from memspan.envs import corridor_kernel as kernel
from memspan.envs.corridor import CorridorEnv
from memspan.envs.corridor_rules import check_layout, check_parameters
from memspan.envs.vector_arguments import is_integer, read_mask, read_seeds

INT64, UINT8, BOOL = np.dtype(np.int64), np.dtype(np.uint8), np.dtype(np.bool_)
STATE_FIELDS = ("length", "cue", "red_door", "x", "step_count")


class CorridorVectorEnv(VectorEnv[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[Any]]):
    """Corridors side by side on one core, by the rules of `CorridorEnv`.

    Observations are `CorridorEnv`'s images, (num_envs, view_size, view_size, 3) uint8. Environments reset
    themselves in the step that ends their episode (`AutoresetMode.SAME_STEP`): the observation is then the
    next episode's first, and `infos["final_obs"]`, present when any episode ended and valid where
    `infos["_final_obs"]` says so, has the last of the episode that ended, in an array shaped like the
    observations.

    `infos["success"]` (num_envs,) belongs to the step just taken. Arrays that are returned are never written
    again.

    Environment i seeded with `reset(seed=s)` plays as if alone and seeded with `s + i`.

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

    metadata = CorridorEnv.metadata | {
        "render_modes": ["rgb_array"],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

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
        if not is_integer(num_envs) or num_envs < 1:
            raise ValueError(f"num_envs must be an integer >= 1, got {num_envs!r}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.max_steps = check_parameters(min_length, max_length, view_size, max_steps)
        self.num_envs = int(num_envs)
        self.min_length = min_length
        self.max_length = max_length
        self.view_size = view_size
        self.shuffle_doors = shuffle_doors
        self.render_mode = render_mode
        self.single_observation_space = spaces.Box(0, 255, (view_size, view_size, 3), np.uint8)
        self.single_action_space = spaces.Discrete(4)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

        self._shape = (self.num_envs,)
        self._obs_shape = (self.num_envs, view_size, view_size, 3)
        self._final_obs = np.zeros(self._obs_shape, dtype=np.uint8)
        self._state = np.zeros((self.num_envs, len(STATE_FIELDS)), dtype=np.int64)
        self._state[:, kernel.LENGTH] = min_length
        self._rng = np.array(
            np.random.SeedSequence().generate_state(self.num_envs, np.uint64), dtype=np.uint64
        )
        self._limits = np.array(
            [min_length, max_length - min_length + 1, self.max_steps, shuffle_doors], np.int64
        )
        self._views = kernel.build_views(view_size)
        self._all = np.ones(self.num_envs, dtype=np.bool_)
        self._all.flags.writeable = False
        self._painter: CorridorEnv | None = None

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        """Starts new episodes.

        Args:
            seed: one seed, from which environment i gets `seed + i`, or one per environment; None goes on
                with the streams as they are.
            options: `length`, `cue` and `red_door` as `CorridorEnv` takes them, each one value or one per
                environment, for this episode only; and `reset_mask` (num_envs,) bool, to leave the other
                environments alone.

        Raises:
            ValueError: a seed or an option is not allowed; nothing was changed.
        """
        asked = dict(options or {})
        mask = read_mask(asked.pop("reset_mask", self._all), self.num_envs)
        layout = check_layout(asked, self.min_length, self.max_length, (self.num_envs,))
        seeds, seeded = read_seeds(seed, self.num_envs)
        kernel.seed_streams(self._rng, seeds, seeded & mask)
        kernel.draw_layouts(self._state, self._rng, self._limits, mask)
        for field, values in layout.items():
            self._state[mask, STATE_FIELDS.index(field)] = values[mask]
        return self._observe(), {}

    def step(
        self, actions: npt.ArrayLike
    ) -> tuple[
        npt.NDArray[np.uint8],
        npt.NDArray[np.float64],
        npt.NDArray[np.bool_],
        npt.NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Moves every agent by one cell.

        Args:
            actions: (num_envs,) integers from 0 to 3.

        Raises:
            ValueError: an action is not allowed, or there are too many or too few; nothing was changed.
        """
        # `_read_actions` is right for every array; what it may skip is tested here first, because at 64
        # environments the calls around the kernel cost as much as the kernel.
        if not (
            type(actions) is np.ndarray
            and actions.dtype is INT64
            and actions.shape == self._shape
            and actions.strides == (8,)
        ):
            actions = self._read_actions(actions)
        obs = np.empty(self._obs_shape, UINT8)
        rewards = np.empty(self.num_envs)
        flags = np.empty((4, self.num_envs), BOOL)
        ended = kernel.step(
            actions, self._state, self._rng, self._limits, self._views, obs, self._final_obs, rewards, flags
        )
        success = flags[kernel.SUCCESS]
        infos: dict[str, Any] = {"success": success, "_success": self._all}
        if ended:
            if ended == kernel.INVALID:
                i = int(np.flatnonzero((actions < 0) | (actions > 3))[0])
                raise ValueError(f"actions must be 0, 1, 2 or 3, got {actions[i]} for environment {i}")
            done = flags[kernel.DONE]
            infos["final_obs"] = self._final_obs.copy()
            infos["final_info"] = {"success": success, "_success": done}
            infos["_final_obs"] = infos["_final_info"] = done
        return obs, rewards, flags[kernel.TERMINATED], flags[kernel.TRUNCATED], infos

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

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """Draws every environment as `CorridorEnv.render` does; None without a render mode."""
        if self.render_mode is None:
            return None
        if self._painter is None:
            self._painter = CorridorEnv(
                self.min_length,
                self.max_length,
                self.view_size,
                max_steps=self.max_steps,
                render_mode="rgb_array",
            )
        frames = []
        for row in self._state:
            self._painter.set_state(dict(zip(STATE_FIELDS, row.tolist(), strict=True)))
            frames.append(self._painter.draw())
        return tuple(frames)

    def _observe(self) -> npt.NDArray[np.uint8]:
        obs = np.empty(self._obs_shape, np.uint8)
        kernel.observe(self._state, self._views, obs)
        return obs

    def _read_actions(self, actions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        given = np.asarray(actions)
        if given.dtype.kind not in "iu":
            raise ValueError(f"actions must be integers from 0 to 3, got dtype {given.dtype}")
        if given.shape != self._shape:
            raise ValueError(f"actions must be of shape {self._shape}, got shape {given.shape}")
        return np.ascontiguousarray(given, dtype=np.int64)
