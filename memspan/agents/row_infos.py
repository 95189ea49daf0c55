"""A step's infos by environment, as SB3 has them, each made when somebody reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

Info = dict[str, Any]


def tell_end(info: Info, last_obs: Any, truncated: bool, r: float, length: int, seconds: float) -> None:
    """Adds what SB3 and its Monitor tell in the last step of an episode.

    Args:
        info: of that step, changed in place.
        last_obs: the last observation.
        truncated: whether nothing but a limit ended the episode.
        r: its return.
        length: its steps.
        seconds: since the environments were made.
    """
    info["terminal_observation"] = last_obs
    info["TimeLimit.truncated"] = truncated
    info["episode"] = {"r": float(r), "l": int(length), "t": round(seconds, 6)}
    if "success" in info:
        info.setdefault("is_success", bool(info["success"]))


class Ends(NamedTuple):
    """How episodes ended in a step; arrays over all environments, of which those count that are `done`."""

    done: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    last_obs: npt.NDArray[Any]
    returns: npt.NDArray[np.float64]
    starts: npt.NDArray[np.int64]
    steps: int
    seconds: float


class RowInfos(Sequence[Info]):
    """One dictionary per environment.

    Making one takes longer than an environment's step in an engine, and most are never looked at: a trainer
    reads those of episodes that ended. What was made is kept, so that writing into an info works as in a
    list of them. Like the tuple of SB3's `SubprocVecEnv`, this is no list.

    Args:
        told: arrays (num_envs,) by name; names with a leading underscore are left out. They must not be
            written again.
        num_envs: how many environments there are.
        ends: how episodes ended in this step, if any did.
    """

    __slots__ = ("_ends", "_made", "_num_envs", "_told")

    def __init__(self, told: Mapping[str, Any], num_envs: int, ends: Ends | None = None) -> None:
        self._told = told
        self._num_envs = num_envs
        self._ends = ends
        self._made: dict[int, Info] = {}

    def __len__(self) -> int:
        return self._num_envs

    @overload
    def __getitem__(self, row: int) -> Info: ...

    @overload
    def __getitem__(self, row: slice) -> list[Info]: ...

    def __getitem__(self, row: int | slice) -> Info | list[Info]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(self._num_envs))]
        place = range(self._num_envs)[row]
        if place not in self._made:
            self._made[place] = self._make(place)
        return self._made[place]

    def __repr__(self) -> str:
        return repr(list(self))

    def _make(self, row: int) -> Info:
        info = {
            name: values[row]
            for name, values in self._told.items()
            if name[0] != "_" and name not in ("final_obs", "final_info")
        }
        ends = self._ends
        if ends is not None and ends.done[row]:
            length = ends.steps - ends.starts[row]
            tell_end(
                info, ends.last_obs[row], bool(ends.truncated[row]), ends.returns[row], length, ends.seconds
            )
        return info
