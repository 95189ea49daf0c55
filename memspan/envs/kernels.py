"""What the kernels of all engines share: random streams, and how their outputs lie in memory.

N environments. A stream is a counter (splitmix64) of one environment, so that what an environment draws
depends on its own seed and on nothing else. It is the first column of every state (N, columns), as the other
64 bits of an int64.

Every array that a kernel is given costs time at every step, as much as two or three environments. So what
changes is one array, and what a step returns is another.

numba does not see that a cached kernel is stale when what it calls here changes: delete `__pycache__` after
editing this file.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, types, uint64
from numba.core import cgutils
from numba.extending import intrinsic

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

STREAM = 0
"""Column of a state: the random stream."""
STRIDE = uint64(0x9E3779B97F4A7C15)
"""Between two numbers of a stream."""

N_FLAGS = 4
TERMINATED, TRUNCATED, SUCCESS, DONE = range(N_FLAGS)
"""Rows of the flags (4, N) that a kernel's step writes."""

INVALID = -1
"""What a kernel's step returns, with nothing changed, where an action is outside its range."""


@njit(cache=True, inline="always")
def mix(z: np.uint64) -> np.uint64:
    """splitmix64's output function: 64 bits, each a hash of all bits of `z`."""
    z = (z ^ (z >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> uint64(27))) * uint64(0x94D049BB133111EB)
    return z ^ (z >> uint64(31))


@njit(cache=True, inline="always")
def bits_ahead(state: I64, i: int, k: int) -> np.uint64:
    """The k-th 64 random bits to come, from 1, of environment i's stream, which stays where it is."""
    return mix(uint64(state[i, STREAM]) + uint64(k) * STRIDE)


@njit(cache=True, inline="always")
def go_on(state: I64, i: int, k: int) -> None:
    """Environment i's stream goes on by k."""
    state[i, STREAM] = np.int64(uint64(state[i, STREAM]) + uint64(k) * STRIDE)


@njit(cache=True, inline="always")
def next_bits(state: I64, i: int) -> np.uint64:
    """64 random bits of environment i's stream, which goes on by one."""
    go_on(state, i, 1)
    return bits_ahead(state, i, 0)


@njit(cache=True, inline="always")
def below(bits: np.uint64, n: int) -> np.int64:
    """A number from 0 to n - 1, from the upper 32 of random bits: off from uniform by at most n / 2**32."""
    return np.int64(((bits >> uint64(32)) * uint64(n)) >> uint64(32))


@njit(cache=True)
def seed_streams(state: I64, seeds: U64, mask: Bools) -> None:
    """Starts the streams in `mask` (N,) afresh; seeds next to each other give streams far apart."""
    for i in range(state.shape[0]):
        if mask[i]:
            state[i, STREAM] = np.int64(mix(seeds[i]))


@njit(cache=True, inline="always")
def any_outside(actions: I64, n: int) -> bool:
    """Whether an action is outside 0..n - 1."""
    invalid = False
    for i in range(actions.shape[0]):
        invalid |= actions[i] < 0 or actions[i] >= n
    return invalid


@njit(cache=True, inline="always")
def split(block: U8, num_envs: int, n_told: int, row_bytes: int) -> tuple[F64, I64, U8, U8, Bools]:
    """The parts of a step's outputs::

        rewards (N,) float64 | told (n_told, N) int64 | obs, final_obs (N, row_bytes) | flags (4, N) bool

    Those of 8 bytes are first, so that they lie where multiples of 8 do.
    """
    end_told = 8 * num_envs * (1 + n_told)
    end_obs = end_told + num_envs * row_bytes
    end_final_obs = end_obs + num_envs * row_bytes
    return (
        block[: 8 * num_envs].view(np.float64),
        block[8 * num_envs : end_told].view(np.int64).reshape((n_told, num_envs)),
        block[end_told:end_obs].reshape((num_envs, row_bytes)),
        block[end_obs:end_final_obs].reshape((num_envs, row_bytes)),
        block[end_final_obs:].view(np.bool_).reshape((N_FLAGS, num_envs)),
    )


@intrinsic
def _copy_bytes(_: Any, views: Any, place: Any, out: Any, i: Any, n: Any) -> Any:
    """views[place] to out[i], n bytes; slices would cost more than the copy."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = context.get_constant(types.intp, 0)
        at_view = cgutils.unpack_tuple(builder, args[1])  # type: ignore[no-untyped-call]
        indices = [*at_view, first], [args[3], first]
        source, target = (
            cgutils.get_item_pointer(  # type: ignore[no-untyped-call]
                context, builder, kind, context.make_array(kind)(context, builder, array), at
            )
            for kind, array, at in zip(signature.args[:3:2], args[:3:2], indices, strict=True)
        )
        cgutils.raw_memcpy(builder, target, source, args[4], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(views, place, out, types.intp, types.intp), generate


@njit(cache=True, inline="always")
def copy_view(views: U8, place: tuple[int, ...], out: U8, i: int) -> None:
    """Copies views[place] (P,) to out[i] (P,).

    Of 3 x 3 cells, the default, the number of bytes is known to the compiler, which makes two moves of them.
    A loop over them costs more than everything else in a step.
    """
    if out.shape[1] == 27:
        _copy_bytes(views, place, out, i, 27)  # type: ignore[call-arg]
    else:
        _copy_bytes(views, place, out, i, out.shape[1])  # type: ignore[call-arg]
