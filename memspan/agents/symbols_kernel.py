"""MiniGrid's symbols to features of few rows, on a CPU, without one-hot numbers in between."""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "arcp", "reassoc"})
def embed_symbols(
    symbols: npt.NDArray[np.uint8],
    last: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    usual: Floats,
    weight: Floats,
    bias: Floats,
    out: Floats,
) -> None:
    """relu(weight (one-hot symbols - usual) + bias).

    Args:
        symbols: (B, cells * channels).
        last: (cells * channels,) greatest symbol that has a column.
        columns: (cells * channels,) column of symbol 0.
        usual: (columns,).
        weight: (features, columns).
        bias: (features,).
        out: (B, features) written.
    """
    for f in range(len(weight)):
        row = weight[f]
        always = row[0] * usual[0]
        for c in range(1, row.size):
            always += row[c] * usual[c]
        for b in range(len(symbols)):
            total = bias[f] - always
            for i in range(last.size):
                total += row[min(np.int64(symbols[b, i]), last[i]) + columns[i]]
            # A NaN is not below 0, and stays to be seen.
            out[b, f] = weight.dtype.type(0) if total < 0 else total
