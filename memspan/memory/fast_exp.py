"""An exponential that numba turns into vector instructions, for the kernels of this package.

`math.exp` is a call to the C library for every number, several times slower than all else that the kernels do
around it. Double precision, which is for tests, takes it all the same.

numba does not see that a cached kernel is stale when what it calls here changes: delete `__pycache__` after
editing this file.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

F32 = np.float32


def exp(x: Any) -> Any:
    """The exponential function, within 3e-7 in single precision, which ends at 1.6e38; NaN stays NaN."""
    return np.exp(x)


def _exp32(x: Any) -> Any:
    # exp(x) = 2 ** n * exp(r): n whole, put into the exponent's bits; |r| <= log(2) / 2, by Taylor's series.
    # Comparisons that are false of NaN, where min and max would lose it.
    below = F32(88) if x > F32(88) else x
    inside = F32(-87) if below < F32(-87) else below
    n = np.rint(inside * F32(1.4426950408889634))
    # log(2) in two parts, of which the first times n is exact.
    r = inside - n * F32(0.693359375) + n * F32(2.12194440e-4)
    high = (F32(1 / 720) * r + F32(1 / 120)) * r + F32(1 / 24)
    series = (((high * r + F32(1 / 6)) * r + F32(1 / 2)) * r + F32(1)) * r + F32(1)
    return series * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


def _exp64(x: Any) -> Any:
    return math.exp(x)


@overload(exp)
def _exp_of(x: Any) -> Callable[[Any], Any]:
    return _exp32 if x == types.float32 else _exp64


@njit(error_model="numpy")
def sigmoid(x: Any) -> Any:
    """The logistic function."""
    return F32(1) / (F32(1) + exp(-x))


@njit(error_model="numpy", fastmath={"contract", "nsz", "arcp", "reassoc"})
def softmax(scores: Any) -> None:
    """The softmax of an array, in place."""
    top = scores[0]
    for k in range(scores.size):
        top = max(top, scores[k])
    for k in range(scores.size):
        scores[k] = exp(scores[k] - top)
    total = F32(0)
    for k in range(scores.size):
        total += scores[k]
    for k in range(scores.size):
        scores[k] /= total


@njit(error_model="numpy")
def tanh(x: Any) -> Any:
    """The hyperbolic tangent, within 3e-7 in single precision."""
    return F32(2) / (F32(1) + exp(F32(-2) * x)) - F32(1)
