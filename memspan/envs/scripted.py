"""A hand-written policy for the Corridor: what a memory has to learn to do, in a few lines."""

from typing import Any

import numpy as np
import numpy.typing as npt
from minigrid.core.constants import OBJECT_TO_IDX

from memspan.envs.moves import Moves


class ScriptedCorridorPolicy:
    """Solves the Corridor from its observations alone, in exactly `length` steps.

    Its memory is the cue's colour, one number per environment. What it does not know it takes for red.

    Args:
        horizon: steps for which the cue is remembered; None: for ever.
    """

    def __init__(self, horizon: int | None = None) -> None:
        self.horizon = np.inf if horizon is None else horizon
        self.cue = np.zeros((), dtype=np.uint8)
        self.age = np.zeros((), dtype=np.int64)

    def act(self, observations: npt.NDArray[np.uint8], episode_starts: npt.ArrayLike) -> npt.NDArray[Any]:
        """Chooses the next moves.

        Args:
            observations: (N, V, V, 3), images as `CorridorEnv` shows them, or (V, V, 3) of a single
                environment.
            episode_starts: (N,), or one, bool: whether the observation is the first of its episode.

        Returns:
            Actions (N,) int64, or () of a single environment.
        """
        half = observations.shape[-2] // 2
        beside = observations[..., 0, half, :]
        above = observations[..., half, half - 1, :]
        if self.cue.shape != beside.shape[:-1]:
            self.cue, self.age = np.zeros_like(beside[..., 1]), np.zeros(beside.shape[:-1], dtype=np.int64)
        sees_cue = beside[..., 0] == OBJECT_TO_IDX["ball"]
        self.age = np.where(sees_cue, 0, self.age + 1)
        knows_cue = (self.age <= self.horizon) & ~np.asarray(episode_starts)
        self.cue = np.where(sees_cue, beside[..., 1], np.where(knows_cue, self.cue, 0))
        at_doors = above[..., 0] == OBJECT_TO_IDX["door"]
        door = np.where(above[..., 1] == self.cue, Moves.up, Moves.down)
        return np.where(at_doors, door, Moves.right)
