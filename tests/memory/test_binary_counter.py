"""The tree's arithmetic against a counter that carries one by one."""

import pytest
import torch
from torch import Tensor

from memspan.memory.binary_counter import arrivals, carries, carry, size


class Counter:
    """Summaries as lists: of each level those there are, each as its arrival and the things it sums up."""

    def __init__(self, n_levels: int) -> None:
        self.levels: list[list[tuple[int, list[int]]]] = [[] for _ in range(n_levels)]
        self.count = 0

    def add(self, thing: int) -> tuple[list[int], int]:
        """What comes out, and how many merges that took."""
        self.count += 1
        things, level = [thing], 0
        while level < len(self.levels) - 1 and self.levels[level]:
            things, level = self.levels[level].pop()[1] + things, level + 1
        self.levels[level] = [(self.count, things)]
        return things, level


@pytest.mark.parametrize("n_levels", [1, 2, 3, 8])
def test_which_summaries_there_are(n_levels: int) -> None:
    counter = Counter(n_levels)
    born: dict[int, int] = {}
    for n in range(1, 200):
        counter.add(n - 1)
        expected = [level[0][0] if level else 0 for level in counter.levels]
        assert arrivals(torch.tensor(n), n_levels).tolist() == expected
        for level in counter.levels:
            for arrival, things in level:
                assert size(torch.tensor(arrival), n_levels) == len(things)
                assert things == list(range(arrival - len(things), arrival))
                born.setdefault(arrival, n)
                assert n < arrival + len(things)  # it lasts for as long as it is large,
        for arrival, first in born.items():
            assert first == arrival
            if n < arrival + size(torch.tensor(arrival), n_levels):  # and no shorter
                assert arrival in expected
    assert arrivals(torch.tensor([[0], [-7]]), 3).tolist() == [[[0, 0, 0]], [[0, 0, 0]]]


def summed(older: Tensor, newer: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """Things are one-hot: a summary shows what it sums up. Each merge counts in units of its level."""
    assert (older.sum(1) == 2**level).all()
    assert (newer.sum(1) == 2**level).all()
    assert (older.argmax(1) < newer.argmax(1)).all()
    return older + newer, torch.full((len(older),), 100.0**level)


@pytest.mark.parametrize("n_levels", [2, 4, 7])
@pytest.mark.parametrize("n_steps", [1, 3, 20, 50])
def test_a_block_is_counted_one_by_one(n_levels: int, n_steps: int) -> None:
    """Rows that have counted 0, 5, 12 and 13 before, and one that starts anew in the block."""
    before, restart = [0, 5, 12, 13, 6], n_steps // 3
    most = 13 + n_steps
    counters, anew = [Counter(n_levels) for _ in before], Counter(n_levels)
    for counter, n in zip(counters, before, strict=True):
        for thing in range(n):
            counter.add(thing)
    held = torch.full((5, n_levels, most), float("nan"))
    for row, counter in enumerate(counters):
        for level, there in enumerate(counter.levels):
            for _, things in there:
                held[row, level] = torch.eye(most)[things].sum(0)
    count = torch.tensor(before)[:, None] + torch.arange(1, n_steps + 1)
    count[4, restart:] = torch.arange(-2, n_steps - restart - 2)  # three steps that are not counted
    things = torch.eye(most)[(count - 1).clamp(min=0)]
    came_out, lacking = carry(held, things, carries(count, n_levels), summed)
    for row, counter in enumerate(counters):
        for t in range(n_steps):
            n = int(count[row, t])
            if n < 1:
                assert lacking[row, t] == 0
                continue
            counting = anew if row == 4 and t >= restart else counter
            expected, n_merges = counting.add(n - 1)
            assert came_out[row, t].nonzero()[:, 0].tolist() == expected
            assert lacking[row, t] == sum(100.0**level for level in range(n_merges))
