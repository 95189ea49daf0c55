"""How sure a rate or a mean from finitely many episodes is."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]
"""Low and high end."""

Z_95 = 1.959963984540054
"""Standard deviations to either side that hold 95 % of a normal distribution."""


def wilson_interval(successes: int, episodes: int) -> Interval:
    """95 % interval of a success rate (Wilson 1927, doi:10.2307/2276774).

    Unlike the textbook's `p +- z sqrt(p (1 - p) / n)` it stays inside [0, 1] and keeps a width at 0 and 1.

    Raises:
        ValueError: no episodes, or more successes than episodes.
    """
    if episodes < 1:
        raise ValueError(f"episodes={episodes!r}: must be at least 1")
    if not 0 <= successes <= episodes:
        raise ValueError(f"successes={successes!r}: must be from 0 to episodes, {episodes}")
    rate, square = successes / episodes, Z_95**2
    centre = (rate + square / (2 * episodes)) / (1 + square / episodes)
    half = Z_95 * math.sqrt(rate * (1 - rate) / episodes + square / (4 * episodes**2))
    half /= 1 + square / episodes
    # Where nothing or everything succeeded, an end is the rate itself, up to rounding.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == episodes else centre + half
    return low, high


def mean_interval(values: npt.NDArray[np.floating]) -> Interval:
    """95 % interval of a mean, by the normal approximation: for hundreds of episodes, not for ten.

    Args:
        values: (N,), at least one.
    """
    if len(values) < 1:
        raise ValueError(f"values={values!r}: must hold at least 1 value")
    mean = float(values.mean())
    half = Z_95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return mean - half, mean + half
