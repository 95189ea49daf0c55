"""What environments are given: integers and flags, and, one per environment, seeds, masks and states."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Layout = dict[str, npt.NDArray[Any]]
Limits = Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]


def is_integer(value: object) -> bool:
    """True for Python's and NumPy's integers, and False for a bool, which Python counts among them."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_bool(name: str, value: object) -> None:
    """Checks a setting that is on or off.

    Raises:
        ValueError: it is neither True nor False.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def read_seeds(
    seed: int | Sequence[int | None] | None, num_envs: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Spreads what `reset(seed=...)` was given over the environments; one seed s gives environment i s + i.

    Returns:
        seeds (num_envs,) modulo 2**64, 0 where there is none; and (num_envs,), whether there is one.

    Raises:
        ValueError: a seed is not None or an integer >= 0, or there are too many or too few.
    """
    seeds: list[int | None]
    if seed is None:
        seeds = [None] * num_envs
    elif isinstance(seed, Sequence | np.ndarray):
        seeds = list(seed)
    elif is_integer(seed) and seed >= 0:
        seeds = [int(seed) + i for i in range(num_envs)]
    else:
        raise ValueError(f"seed must be None, an integer >= 0 or a list of them, got {seed!r}")
    if len(seeds) != num_envs:
        raise ValueError(f"seed must be one seed or {num_envs} of them, got {len(seeds)}")
    for one in seeds:
        if one is not None and (not is_integer(one) or one < 0):
            raise ValueError(f"seed must be None or an integer >= 0, got {one!r}")
    numbers = np.array([0 if one is None else int(one) % 2**64 for one in seeds], dtype=np.uint64)
    return numbers, np.array([one is not None for one in seeds])


def read_mask(mask: Any, num_envs: int) -> npt.NDArray[np.bool_]:
    """Checks `options["reset_mask"]`, (num_envs,) bool: the environments to reset.

    Raises:
        ValueError: it is of another type or shape, or all False.
    """
    given = np.asarray(mask)
    if given.dtype != np.bool_ or given.shape != (num_envs,) or not given.any():
        raise ValueError(
            f"options['reset_mask'] must be a bool array of shape ({num_envs},) with a True in it, "
            f"got {mask!r}"
        )
    return np.ascontiguousarray(given)


def read_state(
    state: Mapping[str, npt.ArrayLike], like: Layout, limits_of: Callable[[Layout], Limits]
) -> Layout:
    """Checks what `set_state` was given.

    Args:
        state: integers by field.
        like: a state with the fields and shapes that are wanted, environments first.
        limits_of: gives the lowest and the highest value of the fields, in the order in which they are to be
            checked, each to be broadcast to the field's shape. What it is given has the right fields and
            shapes, so that a limit may depend on other fields.

    Returns:
        Copies of the fields, int64.

    Raises:
        ValueError: a field is missing, unknown, no integers, of another shape or outside its limits.
    """
    if set(state) != set(like):
        raise ValueError(f"state must have the fields {', '.join(like)}, got {', '.join(state)}")
    read: Layout = {}
    for field, wanted in like.items():
        given = np.asarray(state[field])
        if given.dtype.kind not in "iu" or given.shape != wanted.shape:
            raise ValueError(
                f"state[{field!r}] must be integers of shape {wanted.shape}, "
                f"got {given.dtype} of shape {given.shape}"
            )
        read[field] = given.astype(np.int64)
    for field, limits in limits_of(read).items():
        values = read[field]
        lowest, highest = (np.broadcast_to(limit, values.shape) for limit in limits)
        outside = np.argwhere((values < lowest) | (values > highest))
        if len(outside):
            at = tuple(outside[0])
            raise ValueError(
                f"state[{field!r}] must be from {lowest[at]} to {highest[at]}, got {values[at]} "
                f"for environment {at[0]}"
            )
    return read


def read_streams(streams: Any, num_envs: int) -> npt.NDArray[np.uint64]:
    """Checks a snapshot's `random_streams`, (num_envs,) uint64.

    Raises:
        ValueError: they are missing, or of another type or shape.
    """
    given = np.asarray(streams)
    if given.dtype != np.uint64 or given.shape != (num_envs,):
        raise ValueError(
            f"snapshot['random_streams'] must be uint64 of shape ({num_envs},), "
            f"got {given.dtype} of shape {given.shape}"
        )
    return given
