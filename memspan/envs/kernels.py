"""What the kernels of all engines share: random streams and the rows of their flags.

N environments. A stream is a counter (splitmix64) of one environment, so that what an environment draws
depends on its own seed and on nothing else.

numba does not see that a cached kernel is stale when what it calls here changes: delete `__pycache__` after
editing this file.
"""

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Rows of the flags (4, N) that a kernel's step writes.
TERMINATED, TRUNCATED, SUCCESS, DONE = range(4)

INVALID = -1
"""What a kernel's step returns, with nothing changed, where an action is outside its range."""


@njit(cache=True, inline="always")
def mix(z: np.uint64) -> np.uint64:
    """splitmix64's output function: 64 bits, each a hash of all bits of `z`."""
    z = (z ^ (z >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> uint64(27))) * uint64(0x94D049BB133111EB)
    return z ^ (z >> uint64(31))


@njit(cache=True, inline="always")
def next_bits(rng: U64, i: int) -> np.uint64:
    """64 random bits of environment i's stream, which goes on by one."""
    rng[i] += uint64(0x9E3779B97F4A7C15)
    return mix(rng[i])


@njit(cache=True, inline="always")
def below(bits: np.uint64, n: int) -> np.int64:
    """A number from 0 to n - 1, from the upper 32 of random bits: off from uniform by at most n / 2**32."""
    return np.int64(((bits >> uint64(32)) * uint64(n)) >> uint64(32))


@njit(cache=True)
def seed_streams(rng: U64, seeds: U64, mask: Bools) -> None:
    """Starts the streams in `mask` (N,) afresh; seeds next to each other give streams far apart."""
    for i in range(rng.shape[0]):
        if mask[i]:
            rng[i] = mix(seeds[i])


@njit(cache=True, inline="always")
def any_outside(actions: I64, n: int) -> bool:
    """Whether an action is outside 0..n - 1."""
    invalid = False
    for i in range(actions.shape[0]):
        invalid |= actions[i] < 0 or actions[i] >= n
    return invalid
