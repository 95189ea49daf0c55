"""How sure the order of groups of runs is: each beside the best, in words and numbers for tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from memspan.evaluation.groups import score
from memspan.evaluation.results import Evaluation
from memspan.evaluation.statistics import compare, fewest_pairs

COLUMNS = ("pairs", "gain", "95 % CI", "p(better)", "p-value", "verdict")


@dataclass(frozen=True)
class Order:
    """Of M groups."""

    best: int
    """Index of the group with the highest mean score; of equals the one that needs less memory."""
    rows: list[tuple[int, list[str]]]
    """Of every other group, the better ones first: its index, and cells for `COLUMNS`."""
    n_comparisons: int
    """Of which the p-values are corrected."""

    @property
    def fewest_pairs(self) -> int:
        """Pairs below which nothing can be told apart."""
        return fewest_pairs(self.n_comparisons)


def against_best(groups: Sequence[Sequence[Evaluation]]) -> Order:
    """Compares every group with the best.

    Which is the best is seen from the same runs. That is to have looked at every pair of groups, so p-values
    are corrected for as many comparisons (Bonferroni): of thirteen memories that are all the same, more than
    half of such tables would otherwise call some of them worse.

    Args:
        groups: M groups of runs of one task, each of runs that differ in their seed alone.
    """
    ranked = sorted(
        range(len(groups)),
        key=lambda i: (-fmean(map(score, groups[i])), fmean(run.effective_memory for run in groups[i])),
    )
    n_comparisons = len(groups) * (len(groups) - 1) // 2
    rows = [(i, _cells(groups[i], groups[ranked[0]], n_comparisons)) for i in ranked[1:]]
    return Order(ranked[0], rows, n_comparisons)


def _cells(group: Sequence[Evaluation], best: Sequence[Evaluation], n_comparisons: int) -> list[str]:
    try:
        found = compare([group], [best], n_comparisons=n_comparisons)
    except ValueError:
        return ["0", "", "", "", "", "no seed in common"]
    low, high = found.difference.ci
    return [
        str(found.n_pairs),
        f"{found.difference.value:+.3f}",
        f"{low:+.3f} to {high:+.3f}",
        f"{found.improvement.value:.2f}",
        f"{found.p_value:.3f}",
        found.verdict,
    ]
