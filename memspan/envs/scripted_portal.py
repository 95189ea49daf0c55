"""A hand-written policy for Portal: what a memory has to learn to keep, in a few lines."""

import numpy as np
import numpy.typing as npt
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX

from memspan.envs.moves import Moves
from memspan.envs.portal_rules import FLOORS, SIDES

UNKNOWN = -1
WEST, EAST = range(len(SIDES))
GREEN_FLOOR = (OBJECT_TO_IDX["floor"], COLOR_TO_IDX[FLOORS[0]])


class ScriptedPortalPolicy:
    """Solves Portal from its observations and its own actions, with as few mistakes as can be.

    Its memory is one bit per room, which door was right, and the number of the room it is in, counted from
    the last time it saw the first room. In a room that it has not passed yet it tries the west door.

    With a horizon it forgets what it saw more than that many steps ago: how far it has come, if the first
    room was longer ago; the right door of a room that it has not gone through since. What it does not know
    it guesses.

    Args:
        num_rooms: rooms, the last included.
        room_size: cells inside a room, along one side.
        horizon: steps for which anything is remembered; None: for ever.
        seed: of the guesses.
    """

    def __init__(
        self, num_rooms: int = 10, room_size: int = 5, horizon: int | None = None, seed: int = 0
    ) -> None:
        self.num_rooms = num_rooms
        self.half = room_size // 2
        self.horizon = np.inf if horizon is None else horizon
        self.rng = np.random.default_rng(seed)
        self.time = 0
        self._forget(0)

    def _forget(self, num_envs: int) -> None:
        """Knows nothing of any of so many environments."""
        self.right_door = np.full((num_envs, self.num_rooms), UNKNOWN)
        self.learnt_at = np.zeros((num_envs, self.num_rooms), dtype=np.int64)
        self.room = np.zeros(num_envs, dtype=np.int64)
        self.started_at = np.zeros(num_envs, dtype=np.int64)
        self.offset = np.zeros(num_envs, dtype=np.int64)
        self.side = np.zeros(num_envs, dtype=np.int64)

    def act(
        self, observations: npt.NDArray[np.uint8], episode_starts: npt.ArrayLike
    ) -> npt.NDArray[np.int64]:
        """Chooses the next moves.

        Args:
            observations: (N, V, V, 3), images as `PortalEnv` shows them, or (V, V, 3) of a single
                environment.
            episode_starts: (N,), or one, bool: whether the observation is the first of its episode.

        Returns:
            Actions (N,) int64, or () of a single environment.
        """
        views = observations.reshape(-1, *observations.shape[-3:])
        starts = np.atleast_1d(episode_starts)
        if len(self.room) != len(views):
            self._forget(len(views))
        rows = np.arange(len(views))
        self.time += 1
        # One step further to the side chosen; beyond the last cell is a door.
        self.offset += np.where(self.side == EAST, 1, -1)
        through = (np.abs(self.offset) > self.half) & ~starts
        middle = views.shape[1] // 2
        around = views[:, middle - 1 : middle + 2, middle - 1 : middle + 2, :2]
        in_first = (around == GREEN_FLOOR).all(axis=(1, 2, 3))

        learnt = np.where(in_first, 1 - self.side, self.side)
        self.right_door[rows[through], self.room[through]] = learnt[through]
        # What is known of a door follows from the action before.
        self.learnt_at[rows[through], self.room[through]] = self.time - 1
        self.room[through] = np.where(in_first, 0, np.minimum(self.room + 1, self.num_rooms - 1))[through]
        self.right_door[starts] = UNKNOWN
        self.room[starts] = 0
        entered = through | starts
        self.offset[entered] = 0
        self.started_at[in_first] = self.time

        knows_room = self.time - self.started_at <= self.horizon
        known = self.right_door[rows, self.room]
        known = np.where(self.time - self.learnt_at[rows, self.room] <= self.horizon, known, UNKNOWN)
        # With a perfect memory any guess is as good as another; without one, always the same is the worst.
        guess = WEST if self.horizon == np.inf else self.rng.integers(0, 2, len(rows))
        choice = np.where(knows_room & (known != UNKNOWN), known, guess)
        self.side[entered] = choice[entered]
        actions = np.where(self.side == EAST, Moves.right, Moves.left).astype(np.int64)
        return actions.reshape(observations.shape[:-3])
