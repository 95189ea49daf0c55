"""A hand-written policy for Portal: what a memory has to learn to keep, in a few lines."""

import numpy as np
import numpy.typing as npt
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX

from memspan.envs.corridor_rules import CorridorActions
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
        num_envs: observations come in batches of this size.
        num_rooms: rooms, the last included.
        room_size: cells inside a room, along one side.
        horizon: steps for which anything is remembered; None: for ever.
        seed: of the guesses.
    """

    def __init__(
        self,
        num_envs: int,
        num_rooms: int = 10,
        room_size: int = 5,
        horizon: int | None = None,
        seed: int = 0,
    ) -> None:
        self.num_rooms = num_rooms
        self.half = room_size // 2
        self.horizon = np.inf if horizon is None else horizon
        self.rng = np.random.default_rng(seed)
        self.time = 0
        self.right_door = np.full((num_envs, num_rooms), UNKNOWN)
        self.learnt_at = np.zeros((num_envs, num_rooms), dtype=np.int64)
        self.room = np.zeros(num_envs, dtype=np.int64)
        self.started_at = np.zeros(num_envs, dtype=np.int64)
        self.offset = np.zeros(num_envs, dtype=np.int64)
        self.side = np.zeros(num_envs, dtype=np.int64)

    def act(
        self, observations: npt.NDArray[np.uint8], episode_starts: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """Chooses the next moves.

        Args:
            observations: (num_envs, V, V, 3), images as `PortalEnv` shows them.
            episode_starts: (num_envs,) where an episode has just started.

        Returns:
            Actions (num_envs,) int64.
        """
        rows = np.arange(len(self.room))
        self.time += 1
        # One step further to the side chosen; beyond the last cell is a door.
        self.offset += np.where(self.side == EAST, 1, -1)
        through = (np.abs(self.offset) > self.half) & ~episode_starts
        middle = observations.shape[1] // 2
        around = observations[:, middle - 1 : middle + 2, middle - 1 : middle + 2, :2]
        in_first = (around == GREEN_FLOOR).all(axis=(1, 2, 3))

        learnt = np.where(in_first, 1 - self.side, self.side)
        self.right_door[rows[through], self.room[through]] = learnt[through]
        # What is known of a door follows from the action before.
        self.learnt_at[rows[through], self.room[through]] = self.time - 1
        self.room[through] = np.where(in_first, 0, np.minimum(self.room + 1, self.num_rooms - 1))[through]
        self.right_door[episode_starts] = UNKNOWN
        self.room[episode_starts] = 0
        entered = through | episode_starts
        self.offset[entered] = 0
        self.started_at[in_first] = self.time

        knows_room = self.time - self.started_at <= self.horizon
        known = self.right_door[rows, self.room]
        known = np.where(self.time - self.learnt_at[rows, self.room] <= self.horizon, known, UNKNOWN)
        # With a perfect memory any guess is as good as another; without one, always the same is the worst.
        guess = WEST if self.horizon == np.inf else self.rng.integers(0, 2, len(rows))
        choice = np.where(knows_room & (known != UNKNOWN), known, guess)
        self.side[entered] = choice[entered]
        return np.where(self.side == EAST, CorridorActions.right, CorridorActions.left).astype(np.int64)
