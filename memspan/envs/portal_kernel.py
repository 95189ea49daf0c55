"""Numba kernels of Portal's engine.

Letters: N environments, R rooms, S size of a room, V view size, P = V * V * 3 bytes of a view, F floors: 2
(first room, others), or R where every room has a floor of its own.

- state (N, 6 + 3 (R - 1)) int64: the random stream and the columns below, then for all rooms but the last
  their right doors, their red doors (0 west, 1 east), and their mistakes.
- limits (2,) int64: max_steps; and mistakes in a room that end the episode, 0: any number is allowed.
- views (F, S, S, 3, P) uint8: every view there is, see `build_views`.
"""

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from numba import njit, uint64

from memspan.envs.kernels import (
    DONE,
    I64,
    INVALID,
    SUCCESS,
    TERMINATED,
    TRUNCATED,
    U8,
    Bools,
    any_outside,
    copy_view,
    next_bits,
    split,
)
from memspan.envs.portal_rules import DOORS, LABELS

ROOM, X, Y, STEP_COUNT, REACHED = range(1, 6)
FIRST = 6
"""First column of the right doors."""
RIGHT, DOWN, LEFT, UP = range(4)
NO_DOORS = 2
"""Third index of `views` in the last room; elsewhere it is the side of the red door."""


def build_views(num_rooms: int, room_size: int, view_size: int, room_labels: bool) -> U8:
    """Draws every view there is, so that a step only has to copy one.

    Returns:
        (F, S, S, 3, P) uint8, indexed by floor, x, y, and doors: red one west, red one east, none.
    """
    half, middle = view_size // 2, room_size // 2
    empty = (OBJECT_TO_IDX["empty"], 0, 0)
    wall = (OBJECT_TO_IDX["wall"], COLOR_TO_IDX["grey"], 0)
    red, blue = ((OBJECT_TO_IDX["door"], COLOR_TO_IDX[colour], STATE_TO_IDX["closed"]) for colour in DOORS)
    n_floors = num_rooms if room_labels else 2
    views = np.empty((n_floors, room_size, room_size, 3, view_size, view_size, 3), dtype=np.uint8)
    for floor in range(n_floors):
        # A room inside walls as thick as a view reaches.
        world = np.empty((3, room_size + 2 * half, room_size + 2 * half, 3), dtype=np.uint8)
        world[...] = wall
        inside = world[:, half : half + room_size, half : half + room_size]
        inside[...] = empty
        if floor == 0 or room_labels:
            pattern, colours = LABELS[floor]
            first, second = ((OBJECT_TO_IDX["floor"], COLOR_TO_IDX[colour], 0) for colour in colours)
            inside[...] = first
            if pattern == "rows":
                inside[:, :, 1::2] = second
            elif pattern == "columns":
                inside[:, 1::2] = second
            elif pattern == "checkerboard":
                inside[:, 1::2, ::2] = inside[:, ::2, 1::2] = second
        west, east = half - 1, half + room_size
        world[0, west, half + middle] = world[1, east, half + middle] = red
        world[0, east, half + middle] = world[1, west, half + middle] = blue
        for x in range(room_size):
            for y in range(room_size):
                views[floor, x, y] = world[:, x : x + view_size, y : y + view_size]
    return views.reshape(*views.shape[:4], -1)


@njit(cache=True, inline="always")
def _begin(state: I64, i: int, middle: int) -> None:
    rooms = (state.shape[1] - FIRST) // 3
    bits = uint64(0)
    for k in range(rooms):
        if k % 32 == 0:
            bits = next_bits(state, i)
        state[i, FIRST + k] = np.int64(bits & uint64(1))
        state[i, FIRST + rooms + k] = np.int64((bits >> uint64(1)) & uint64(1))
        state[i, FIRST + 2 * rooms + k] = 0
        bits >>= uint64(2)
    state[i, ROOM] = 0
    state[i, X] = state[i, Y] = middle
    state[i, STEP_COUNT] = 0
    state[i, REACHED] = 1


@njit(cache=True, inline="always")
def _observe(state: I64, views: U8, out: U8, i: int) -> None:
    rooms = (state.shape[1] - FIRST) // 3
    room = state[i, ROOM]
    floor = min(room, views.shape[0] - 1)
    look = NO_DOORS if room == rooms else state[i, FIRST + rooms + room]
    copy_view(views, (floor, state[i, X], state[i, Y], look), out, i)


@njit(cache=True)
def draw_layouts(state: I64, middle: int, mask: Bools) -> None:
    """Starts new episodes in the environments in `mask` (N,)."""
    for i in range(state.shape[0]):
        if mask[i]:
            _begin(state, i, middle)


@njit(cache=True)
def observe(state: I64, views: U8, obs: U8) -> None:
    """Writes what every environment shows into `obs` (N, V, V, 3)."""
    out = obs.reshape(obs.shape[0], views.shape[4])
    for i in range(state.shape[0]):
        _observe(state, views, out, i)


@njit(cache=True)
def step(actions: I64, state: I64, limits: I64, views: U8, out: U8) -> int:
    """Moves every agent by one cell and starts the next episode where one has ended.

    Args:
        actions: (N,) int64.
        state: changed in place.
        limits: see the module.
        views: see the module.
        out: see `kernels.split`. `told` is the rooms reached. `obs` is what is to be seen now, the next
            episode's first view where one has ended. `final_obs` is written only where one has: its last
            view.

    Returns:
        The number of episodes that ended, or `INVALID` if an action is outside 0..3; then nothing was
        changed.
    """
    num_envs = state.shape[0]
    if any_outside(actions, 4):
        return INVALID

    rewards, told, obs, final_obs, flags = split(out, num_envs, 1, views.shape[4])
    max_steps, max_mistakes = limits[0], limits[1]
    size = views.shape[1]
    middle = size // 2
    rooms = (state.shape[1] - FIRST) // 3
    ended = 0
    for i in range(num_envs):
        action = actions[i]
        state[i, STEP_COUNT] += 1
        x = state[i, X] + (action == RIGHT) - (action == LEFT)
        y = state[i, Y] + (action == DOWN) - (action == UP)
        rewards[i] = 0.0
        success = failed = False
        # Where x is outside, y has not changed: the door is there if it is the middle row.
        if (x < 0 or x == size) and y == middle:
            room = state[i, ROOM]
            state[i, X] = state[i, Y] = middle
            if state[i, FIRST + room] == (x == size):
                room += 1
                state[i, ROOM] = room
                if room == state[i, REACHED]:
                    state[i, REACHED] += 1
                    rewards[i] = 1.0
                success = room == rooms
            else:
                state[i, FIRST + 2 * rooms + room] += 1
                failed = state[i, FIRST + 2 * rooms + room] == max_mistakes
                state[i, ROOM] = 0
        else:
            state[i, X] = min(max(x, 0), size - 1)
            state[i, Y] = min(max(y, 0), size - 1)
        terminated = success or failed
        truncated = state[i, STEP_COUNT] >= max_steps and not terminated
        flags[TERMINATED, i] = terminated
        flags[TRUNCATED, i] = truncated
        flags[SUCCESS, i] = success
        flags[DONE, i] = terminated or truncated
        told[0, i] = state[i, REACHED]
        if terminated or truncated:
            ended += 1
            _observe(state, views, final_obs, i)
            _begin(state, i, middle)
        _observe(state, views, obs, i)
    return ended
