"""What all engines are: Gymnasium vector environments around a numba kernel."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium import Space, spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy import ndarray

from memspan.envs import kernels
from memspan.envs.outputs import Outputs
from memspan.envs.vector_arguments import (
    Layout,
    Limits,
    is_integer,
    read_mask,
    read_seeds,
    read_state,
    read_streams,
)

STREAMS = "random_streams"
"""The field of a snapshot that a state does not have."""
INT64, STRIDES = np.dtype(np.int64), (8,)


class VectorEngine(VectorEnv[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[Any]]):
    """Environments side by side on one core.

    Environments reset themselves in the step that ends their episode (`AutoresetMode.SAME_STEP`): the
    observation is then the next episode's first, and `infos["final_obs"]`, present when any episode ended and
    valid where `infos["_final_obs"]` says so, has the last of the episode that ended, in an array shaped like
    the observations.

    `infos["success"]` (num_envs,) and whatever else a task tells belong to the step just taken. Arrays that
    are returned are never written again while anything refers to them, see `Outputs`. Environment i seeded
    with `reset(seed=s)` plays as if alone and seeded with `s + i`.

    Args:
        num_envs: how many.
        observation_space: of one environment; a Box or a MultiDiscrete.
        num_actions: actions are 0 .. num_actions - 1.
        n_columns: of the state, the random stream included.
        render_mode: None or one of `metadata["render_modes"]`.

    Raises:
        ValueError: `num_envs` or `render_mode` is not allowed.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array", "ansi"],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }
    never_rewrites: ClassVar[bool] = True
    """That what a step returned stays as it is while anything refers to it; adapters may rely on it."""
    info_names: ClassVar[tuple[str, ...]] = ()
    """Names of what `infos` holds besides `success`: integers, one per environment."""
    _kernel: Callable[..., int]
    """Steps all environments: given the actions (N,) int64, `_world` and the block of an `Outputs`, it
    returns how many episodes have ended, or `kernels.INVALID`."""
    _world: tuple[npt.NDArray[Any], ...]
    """All that the kernel reads and changes, `_state` among it."""

    def __init__(
        self,
        num_envs: int,
        observation_space: Space[Any],
        num_actions: int,
        n_columns: int,
        render_mode: str | None,
    ) -> None:
        if not is_integer(num_envs) or num_envs < 1:
            raise ValueError(f"num_envs must be an integer >= 1, got {num_envs!r}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            modes = " or ".join(map(repr, (None, *self.metadata["render_modes"])))
            raise ValueError(f"render_mode must be {modes}, got {render_mode!r}")
        self.num_envs = int(num_envs)
        self.num_actions = num_actions
        self.render_mode = render_mode
        self.single_observation_space = observation_space
        self.single_action_space = spaces.Discrete(num_actions)
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        assert observation_space.shape is not None
        assert observation_space.dtype is not None
        self._shape = (self.num_envs,)
        self._obs_shape = (self.num_envs, *observation_space.shape)
        self._obs_dtype = np.dtype(observation_space.dtype)
        self._state = np.zeros((self.num_envs, n_columns), np.int64)
        self._streams[:] = np.random.SeedSequence().generate_state(self.num_envs, np.uint64)
        # Of the last step, which its caller still holds as a rule, and of the one before.
        self._last, self._spare = self._make_outputs(), self._make_outputs()

    @property
    def _streams(self) -> npt.NDArray[np.uint64]:
        return self._state[:, kernels.STREAM].view(np.uint64)

    @abstractmethod
    def _read_options(self, options: Mapping[str, Any]) -> Layout:
        """What `reset(options=...)` asks for, checked; without `reset_mask`.

        Raises:
            ValueError: an unknown field, or a value that is not allowed.
        """

    @abstractmethod
    def _start(self, mask: npt.NDArray[np.bool_], layout: Layout) -> None:
        """Starts new episodes in the environments in `mask` (N,), as `layout` asks for."""

    @abstractmethod
    def _write_observations(self, obs: npt.NDArray[Any]) -> None:
        """Writes what every environment shows now."""

    @abstractmethod
    def get_state(self) -> Layout:
        """The oracle: the whole state, and with it what has to be remembered.

        Returns:
            Copies of the fields that the form to read gives, each with num_envs before its shape.
        """

    @abstractmethod
    def _state_limits(self, state: Layout) -> Limits:
        """Lowest and highest value of a state's fields, for `read_state`."""

    @abstractmethod
    def _put_state(self, state: Layout) -> None:
        """Goes on from a state that has been checked."""

    @abstractmethod
    def _render_one(self, state: Layout) -> Any:
        """Renders an environment whose state this is, as the form to read does."""

    def set_state(self, state: Mapping[str, npt.ArrayLike]) -> npt.NDArray[Any]:
        """Puts every environment where `state`, as `get_state` gives it, says.

        Random streams go on as they were.

        Returns:
            What is observed there, (num_envs, ...).

        Raises:
            ValueError: a field is missing, unknown, of another shape or outside its limits; nothing was
                changed.
        """
        self._put_state(read_state(state, self.get_state(), self._state_limits))
        return self._observe()

    def get_snapshot(self) -> Layout:
        """All that the future depends on: the state, and where the random streams are.

        Returns:
            Copies of the fields of `get_state`, and `random_streams` (num_envs,) uint64.
        """
        return self.get_state() | {STREAMS: self._streams.copy()}

    def set_snapshot(self, snapshot: Mapping[str, npt.ArrayLike]) -> npt.NDArray[Any]:
        """Goes on from a snapshot of an engine with the same parameters as if it had never been left.

        Returns:
            What is observed there, (num_envs, ...).

        Raises:
            ValueError: as `set_state`; nothing was changed.
        """
        state = dict(snapshot)
        streams = read_streams(state.pop(STREAMS, None), self.num_envs)
        obs = self.set_state(state)
        self._streams[:] = streams
        return obs

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Starts new episodes.

        Args:
            seed: one seed, from which environment i gets `seed + i`, or one per environment; None goes on
                with the streams as they are.
            options: what the form to read takes, each one value or one per environment, for this episode
                only; and `reset_mask` (num_envs,) bool, to leave the other environments alone.

        Raises:
            ValueError: a seed or an option is not allowed; nothing was changed.
        """
        asked = dict(options or {})
        mask = read_mask(asked.pop("reset_mask", np.ones(self._shape, np.bool_)), self.num_envs)
        layout = self._read_options(asked)
        seeds, seeded = read_seeds(seed, self.num_envs)
        kernels.seed_streams(self._state, seeds, seeded & mask)
        self._start(mask, layout)
        return self._observe(), {}

    def step(
        self, actions: npt.ArrayLike
    ) -> tuple[
        npt.NDArray[Any],
        npt.NDArray[np.float64],
        npt.NDArray[np.bool_],
        npt.NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Takes one step in every environment.

        Args:
            actions: (num_envs,) integers.

        Raises:
            ValueError: an action is not allowed, or there are too many or too few; nothing was changed.
        """
        # `_read_actions` is right for every array; what it may skip is tested here first, because at 64
        # environments the calls around the kernel cost as much as the kernel.
        if not (
            type(actions) is ndarray
            and actions.dtype is INT64
            and actions.shape == self._shape
            and actions.strides == STRIDES
        ):
            actions = self._read_actions(actions)
        out = self._spare if not self._spare.held() else self._make_outputs()
        self._spare, self._last = self._last, out
        ended = self._kernel(actions, *self._world, out.block)
        infos: dict[str, Any] = out.infos.copy()
        if ended:
            if ended == kernels.INVALID:
                i = int(np.flatnonzero((actions < 0) | (actions >= self.num_actions))[0])
                raise ValueError(
                    f"actions must be from 0 to {self.num_actions - 1}, got {actions[i]} for environment {i}"
                )
            final = {name: infos[name] for name in ("success", *self.info_names)}
            final |= {f"_{name}": out.done for name in final}
            infos["final_obs"] = out.final_obs
            infos["final_info"] = final
            infos["_final_obs"] = infos["_final_info"] = out.done
        return out.obs, out.rewards, out.terminated, out.truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        """Draws every environment as the form to read does; None without a render mode."""
        if self.render_mode is None:
            return None
        state = self.get_state()
        return tuple(
            self._render_one({field: values[i] for field, values in state.items()})
            for i in range(self.num_envs)
        )

    def _make_outputs(self) -> Outputs:
        return Outputs(self._obs_shape, self._obs_dtype, self.info_names)

    def _observe(self) -> npt.NDArray[Any]:
        obs = np.empty(self._obs_shape, self._obs_dtype)
        self._write_observations(obs)
        return obs

    def _read_actions(self, actions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        given = np.asarray(actions)
        if given.dtype.kind not in "iu":
            raise ValueError(
                f"actions must be integers from 0 to {self.num_actions - 1}, got dtype {given.dtype}"
            )
        if given.shape != self._shape:
            raise ValueError(f"actions must be of shape {self._shape}, got shape {given.shape}")
        return np.ascontiguousarray(given, dtype=np.int64)
