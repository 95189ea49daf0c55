"""Means over a batch of which the rows are spread over processes.

A memory or a feature extractor that keeps an average of what it has seen, as a batch norm does, sees this
process's rows only. `over_all` makes of their mean that of all rows, wherever they are. Whoever trains says
how, by `averaging`; while nobody does, there are no other rows, and a mean is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

Average = Callable[[Tensor], Tensor]
_averages: list[Average] = []


def over_all(mean: Tensor) -> Tensor:
    """The mean over all rows, given that over this process's; the same tensor where there are no others.

    Every process has to call it, in the same order. There is no gradient to the others' rows.
    """
    return _averages[-1](mean) if _averages else mean


@contextmanager
def averaging(average: Average) -> Iterator[None]:
    """Has `over_all` ask `average` within the block."""
    _averages.append(average)
    try:
        yield
    finally:
        _averages.pop()
