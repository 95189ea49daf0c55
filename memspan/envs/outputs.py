"""The arrays that a step returns, which are filled again when nobody holds them any more."""

from __future__ import annotations

from collections.abc import Sequence
from sys import getrefcount
from typing import Any

import numpy as np
import numpy.typing as npt

from memspan.envs import kernels


class Outputs:
    """Memory for what one step of an engine returns.

    Making new arrays costs more than a step of the kernel at 64 environments. Python frees an array when
    nothing refers to it; then, and no sooner, a step may as well write into it again. Whatever reads an array
    refers to it: variables, views and slices, infos, memoryviews, tensors that share its memory.

    Args:
        obs_shape: (N, ...).
        obs_dtype: of observations.
        info_names: what infos hold besides `success`.

    Attributes:
        block: all of the memory, bytes; see `kernels.split`. The others are parts of it.
        obs: (N, ...); as is `final_obs`.
        rewards: (N,) float64.
        terminated: (N,) bool; as are `truncated` and `done`.
        infos: names and arrays, to be copied.
    """

    def __init__(
        self, obs_shape: tuple[int, ...], obs_dtype: npt.DTypeLike, info_names: Sequence[str]
    ) -> None:
        self._arguments = obs_shape, obs_dtype, info_names
        self._divide(obs_shape, np.dtype(obs_dtype), info_names)
        self._references = sum(map(getrefcount, self._arrays))

    def _divide(
        self, obs_shape: tuple[int, ...], obs_dtype: np.dtype[Any], info_names: Sequence[str]
    ) -> None:
        num_envs, n_told = obs_shape[0], len(info_names)
        row_bytes = int(np.prod(obs_shape[1:])) * obs_dtype.itemsize
        self.block = np.zeros(num_envs * (8 + 8 * n_told + 2 * row_bytes + kernels.N_FLAGS), np.uint8)
        rewards, told, obs, final_obs, flags = kernels.split.py_func(self.block, num_envs, n_told, row_bytes)
        self.rewards: npt.NDArray[np.float64] = rewards
        self.obs: npt.NDArray[Any] = obs.view(obs_dtype).reshape(obs_shape)
        self.final_obs: npt.NDArray[Any] = final_obs.view(obs_dtype).reshape(obs_shape)
        self.terminated, self.truncated, success, self.done = flags
        self.infos: dict[str, npt.NDArray[Any]] = dict(
            zip(("success", *info_names), (success, *told), strict=True)
        )
        # What is handed out; what is a part of a part refers to the block.
        self._arrays = (
            *(self.block, self.obs, self.final_obs, self.rewards),
            *(self.terminated, self.truncated, self.done, *self.infos.values()),
        )
        everywhere = np.ones(num_envs, np.bool_)
        everywhere.flags.writeable = False
        self.infos |= {f"_{name}": everywhere for name in self.infos}

    def held(self) -> bool:
        """Whether anything but this object refers to an array, or to a part of one."""
        return sum(map(getrefcount, self._arrays)) != self._references

    def __reduce__(self) -> Any:
        # A copy of an engine has outputs of its own: copied arrays would not be parts of one block.
        return Outputs, self._arguments
