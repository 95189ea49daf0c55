"""What every engine's `reset` has to read: seeds and masks, one per environment."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def is_integer(value: object) -> bool:
    """True for Python's and NumPy's integers, and False for a bool, which Python counts among them."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


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
