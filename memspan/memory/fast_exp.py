"""An exponential that numba turns into vector instructions, for the kernels of this package.

`math.exp` is a call to the C library for every number, several times slower than all else that the kernels do
around it.

numba does not see that a cached kernel is stale when what it calls here changes: delete `__pycache__` after
editing this file.
"""

import numpy as np
from numba import njit

F32 = np.float32


@njit(inline="always", error_model="numpy")
def exp32(x: np.float32) -> np.float32:
    """exp(x) in single precision, within 3e-7 of it; NaN stays NaN, and what would overflow ends at exp(88).

    exp(x) = 2 ** n * exp(r): n whole, put into the exponent's bits, and |r| <= log(2) / 2 by Taylor's series.
    """
    # Comparisons that are false of NaN, where min and max would lose it.
    x = F32(88) if x > F32(88) else x
    x = F32(-87) if x < F32(-87) else x
    n = np.rint(x * F32(1.4426950408889634))
    # log(2) in two parts, of which the first times n is exact.
    r = x - n * F32(0.693359375) + n * F32(2.12194440e-4)
    p = F32(1 / 720)
    p = p * r + F32(1 / 120)
    p = p * r + F32(1 / 24)
    p = p * r + F32(1 / 6)
    p = p * r + F32(1 / 2)
    p = p * r + F32(1)
    p = p * r + F32(1)
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(inline="always", error_model="numpy")
def sigmoid32(x: np.float32) -> np.float32:
    """1 / (1 + exp(-x)) in single precision."""
    return F32(1) / (F32(1) + exp32(-x))


@njit(inline="always", error_model="numpy")
def tanh32(x: np.float32) -> np.float32:
    """tanh(x) in single precision, within 3e-7 of it."""
    return F32(2) / (F32(1) + exp32(F32(-2) * x)) - F32(1)
