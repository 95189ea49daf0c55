"""Hand-written optimal policies: what a memory has to learn to do, in a few lines."""

from typing import Any

import numpy as np
import numpy.typing as npt
from minigrid.core.constants import OBJECT_TO_IDX

from memspan.envs.corridor_rules import CorridorActions


class ScriptedCorridorPolicy:
    """Solves the Corridor from its observations alone, in exactly `length` steps.

    Its memory is the cue's colour, one number per environment, rewritten whenever a cue is in view; so it
    needs no sign that an episode starts. Works for one observation as for a batch of them.

    Args:
        horizon: steps for which the cue is remembered; None: for ever. What it has forgotten it takes for
            red.
    """

    def __init__(self, horizon: int | None = None) -> None:
        self.horizon = np.inf if horizon is None else horizon
        self.cue: npt.NDArray[np.uint8] | None = None
        self.age: npt.NDArray[np.int64] | int = 0

    def reset(self) -> None:
        """Forgets the cue."""
        self.cue = None

    def act(self, observations: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Chooses the next moves.

        Args:
            observations: (..., V, V, 3), images as `CorridorEnv` shows them.

        Returns:
            Actions (...) int64.
        """
        half = observations.shape[-2] // 2
        beside = observations[..., 0, half, :]
        above = observations[..., half, half - 1, :]
        sees_cue = beside[..., 0] == OBJECT_TO_IDX["ball"]
        known = np.zeros_like(beside[..., 1]) if self.cue is None else self.cue
        self.age = np.where(sees_cue, 0, self.age + 1)
        self.cue = np.where(sees_cue, beside[..., 1], np.where(self.age <= self.horizon, known, 0))
        at_doors = above[..., 0] == OBJECT_TO_IDX["door"]
        door = np.where(above[..., 1] == self.cue, CorridorActions.up, CorridorActions.down)
        return np.where(at_doors, door, CorridorActions.right)
