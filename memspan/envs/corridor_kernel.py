"""Numba kernels of the Corridor's engine.

Letters: N environments, V view size, P = V * V * 3 bytes of a view.

- state (N, 6) int64: the random stream and the columns below.
- limits (4,) int64: shortest length, number of lengths, max_steps, 1 if the doors are shuffled.
- views (H + 1, H + 2, 2, 2, P) uint8, H = V // 2: every view there is, see `build_views`.
"""

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from numba import njit, uint64

from memspan.envs.corridor_rules import CUES
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
    below,
    copy_view,
    next_bits,
    split,
)

LENGTH, CUE, RED_DOOR, X, STEP_COUNT = range(1, 6)
RIGHT, DOWN, LEFT, UP = range(4)


def build_views(view_size: int) -> U8:
    """Draws every view there is, so that a step only has to copy one.

    A view depends on how far the ends of the corridor are, as far as they are in sight, on the cue at the
    start, and on the doors' sides at the end::

        left = min(x, H)                       0: at the start, the cue is in view
        right = min(length - 1 - x, H + 1)     H + 1: no door is in view

    Returns:
        (H + 1, H + 2, 2, 2, P) uint8, indexed by left, right, cue, red door.
    """
    half = view_size // 2
    empty = (OBJECT_TO_IDX["empty"], 0, 0)
    wall = (OBJECT_TO_IDX["wall"], COLOR_TO_IDX["grey"], 0)
    ball = [(OBJECT_TO_IDX["ball"], COLOR_TO_IDX[colour], 0) for colour in CUES]
    door = [(OBJECT_TO_IDX["door"], COLOR_TO_IDX[colour], STATE_TO_IDX["closed"]) for colour in CUES]

    views = np.empty((half + 1, half + 2, 2, 2, view_size, view_size, 3), dtype=np.uint8)
    views[...] = wall
    for left in range(half + 1):
        for right in range(half + 2):
            here = views[left, right]  # (cue, red door, V, V, 3)
            here[:, :, half - left : half + right + 1, half] = empty
            if left == 0:
                here[0, :, 0, half] = ball[0]
                here[1, :, 0, half] = ball[1]
            if right <= half:
                above, below = half - 1, half + 1
                here[:, 0, half + right, above] = here[:, 1, half + right, below] = door[0]
                here[:, 0, half + right, below] = here[:, 1, half + right, above] = door[1]
    return views.reshape(*views.shape[:4], -1)


@njit(cache=True, inline="always")
def _begin(state: I64, limits: I64, i: int) -> None:
    bits = next_bits(state, i)
    state[i, LENGTH] = limits[0] + below(bits, limits[1])
    state[i, CUE] = np.int64(bits & uint64(1))
    state[i, RED_DOOR] = np.int64((bits >> uint64(1)) & uint64(1)) * limits[3]
    state[i, X] = 0
    state[i, STEP_COUNT] = 0


@njit(cache=True, inline="always")
def _observe(state: I64, views: U8, out: U8, i: int) -> None:
    half = views.shape[0] - 1
    left = min(state[i, X], half)
    right = min(state[i, LENGTH] - 1 - state[i, X], half + 1)
    copy_view(views, (left, right, state[i, CUE], state[i, RED_DOOR]), out, i)


@njit(cache=True)
def draw_layouts(state: I64, limits: I64, mask: Bools) -> None:
    """Starts new episodes in the environments in `mask` (N,)."""
    for i in range(state.shape[0]):
        if mask[i]:
            _begin(state, limits, i)


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
        out: see `kernels.split`. `obs` is what is to be seen now, the next episode's first view where one has
            ended. `final_obs` is written only where one has: its last view.

    Returns:
        The number of episodes that ended, or `INVALID` if an action is outside 0..3; then nothing was
        changed.
    """
    num_envs = state.shape[0]
    if any_outside(actions, 4):
        return INVALID

    rewards, _, obs, final_obs, flags = split(out, num_envs, 0, views.shape[4])
    ended = 0
    # Sums and comparisons instead of branches: a branch on a random action is guessed wrong every other time.
    for i in range(num_envs):
        action = actions[i]
        last = state[i, LENGTH] - 1
        x = state[i, X]
        state[i, X] = min(max(x + (action == RIGHT) - (action == LEFT), 0), last)
        state[i, STEP_COUNT] += 1

        # UP and DOWN are the odd actions. The red door is above (0) or below (1), so the door entered is blue
        # where the row and that side differ.
        terminated = (x == last) & (action & 1 == 1)
        enters_blue = (action == DOWN) ^ (state[i, RED_DOOR] == 1)
        enters_cue = enters_blue == (state[i, CUE] == 1)
        truncated = (state[i, STEP_COUNT] >= limits[2]) & (not terminated)
        flags[TERMINATED, i] = terminated
        flags[TRUNCATED, i] = truncated
        flags[SUCCESS, i] = terminated & enters_cue
        flags[DONE, i] = terminated | truncated
        rewards[i] = terminated & enters_cue
        if terminated | truncated:
            ended += 1
            _observe(state, views, final_obs, i)
            _begin(state, limits, i)
        _observe(state, views, obs, i)
    return ended
