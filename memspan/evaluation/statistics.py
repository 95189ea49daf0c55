"""How sure a comparison is: over seeds of the training as well as over episodes.

Dimension letters: R runs that differ in their seed, E episodes, K tasks.

Two things are random about a success rate: which agent a seed trains, and which episodes it is tested on. An
interval over episodes alone tells how good *these agents* are; it is narrow, and says little of how good the
next one will be. The bootstrap here draws runs with replacement and, within each, episodes: of K tasks each
on its own (stratified; Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice,
2021, arXiv 2108.13264). With three runs even that is too narrow: a bootstrap cannot know of outcomes that
none of the three had.

The luck of k successes in E episodes is drawn from Beta(k + 1/2, E - k + 1/2). That is what drawing episodes
with replacement comes to, except at 0 and E successes, where it would leave no width at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from memspan.evaluation.groups import score
from memspan.evaluation.intervals import Z_95, Interval
from memspan.evaluation.results import Evaluation

RESAMPLES = 4000
SIGNIFICANCE = 0.05
PERMUTATIONS = 2**14
"""Up to 14 pairs all are looked at; of more, so many are drawn."""

Scores = npt.NDArray[Any]
Statistic = Callable[..., Scores]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    ci: Interval


@dataclass(frozen=True)
class Comparison:
    """One memory against another, over runs that are paired by task and seed."""

    difference: Estimate
    """Mean difference of the scores."""
    p_value: float
    """Of the paired permutation test, two-sided: how often signs drawn by a coin give as much; times the
    comparisons (Bonferroni)."""
    n_pairs: int
    n_comparisons: int
    """Of which this is one."""
    improvement: Estimate
    """Probability that a run of the first is better than one of the second, ties counted half; mean over
    tasks."""

    @property
    def verdict(self) -> str:
        """Words for it: who is ahead, or that they are not distinguishable."""
        if self.p_value < SIGNIFICANCE:
            return "better" if self.difference.value > 0 else "worse"
        if self.n_pairs < fewest_pairs(self.n_comparisons):
            return "too few pairs"
        return "not distinguishable"


def fewest_pairs(n_comparisons: int = 1) -> int:
    """Pairs that the rarest permutation needs to be significant: of one comparison six, two-sided."""
    n_pairs = 1
    while 2 * n_comparisons / 2**n_pairs >= SIGNIFICANCE:
        n_pairs += 1
    return n_pairs


def success_interval(runs: Sequence[Evaluation], seed: int = 0) -> Interval:
    """95 % interval of the mean score of runs that differ in their seed, over seeds and episodes.

    With one run, over its episodes alone.

    Args:
        runs: R of the same task, memory and settings.
        seed: of the bootstrap.

    Raises:
        ValueError: no runs.
    """
    return interquartile_mean([runs], seed, trim=0.0).ci


def interquartile_mean(tasks: Sequence[Sequence[Evaluation]], seed: int = 0, trim: float = 0.25) -> Estimate:
    """Mean over runs and tasks of the scores between the quartiles, and its stratified bootstrap interval.

    Args:
        tasks: K times the runs of one memory.
        seed: of the bootstrap.
        trim: share of the scores that is left out at either end; 0: the plain mean.

    Raises:
        ValueError: no tasks, or one without runs.
    """

    def statistic(*scores: Scores) -> Scores:
        return np.asarray(stats.trim_mean(_joined(scores), trim, axis=-1))

    return _bootstrapped(tasks, statistic, seed)


def probability_of_improvement(
    first: Sequence[Sequence[Evaluation]], second: Sequence[Sequence[Evaluation]], seed: int = 0
) -> Estimate:
    """Probability that a run of `first` beats one of `second` on the same task, mean over the tasks.

    Args:
        first: K times the runs of a memory.
        second: K times the runs of another, tasks in the same order.
        seed: of the bootstrap.

    Raises:
        ValueError: other numbers of tasks, none, or one without runs.
    """
    _check_same_tasks(first, second)
    n_tasks = len(first)

    def statistic(*scores: Scores) -> Scores:
        better = []
        for ours, theirs in zip(scores[:n_tasks], scores[n_tasks:], strict=True):
            above = np.sign(ours[..., :, None] - theirs[..., None, :])
            better.append((above.mean((-2, -1)) + 1) / 2)
        return np.asarray(np.mean(better, axis=0))

    return _bootstrapped([*first, *second], statistic, seed)


def compare(
    first: Sequence[Sequence[Evaluation]],
    second: Sequence[Sequence[Evaluation]],
    seed: int = 0,
    n_comparisons: int = 1,
) -> Comparison:
    """Is one memory better than another? Runs are paired by task and seed; who has no partner is left out.

    A seed makes one pair, however many runs have it: what has the same seed is no new sample.

    Args:
        first: K times the runs of a memory.
        second: K times the runs of another, tasks in the same order.
        seed: of the bootstrap and the permutations.
        n_comparisons: made at once, this one among them; p-values are corrected for as many.

    Raises:
        ValueError: other numbers of tasks, or no pair.
    """
    _check_same_tasks(first, second)
    pairs = [_pairs(ours, theirs) for ours, theirs in zip(first, second, strict=True)]
    pairs = [of_task for of_task in pairs if of_task]
    if not pairs:
        raise ValueError("runs: the two have no task and seed in common")
    differences = np.concatenate([[score(a) - score(b) for a, b in of_task] for of_task in pairs])
    return Comparison(
        _paired_difference(pairs, seed),
        min(1.0, n_comparisons * _paired_p_value(differences, seed)),
        len(differences),
        n_comparisons,
        probability_of_improvement(
            [[a for a, _ in of_task] for of_task in pairs],
            [[b for _, b in of_task] for of_task in pairs],
            seed,
        ),
    )


def _paired_p_value(differences: Scores, seed: int) -> float:
    """Two-sided, of (pairs,) differences whose signs are drawn by a coin."""
    if len(differences) == 1:  # no sample to scipy
        return 1.0
    # Rounded, since which of several equal means is the largest must not depend on the last bit.
    test = stats.permutation_test(
        (differences.round(12),),
        lambda values, axis=-1: values.mean(axis=axis).round(12),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def _pairs(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> list[tuple[Evaluation, Evaluation]]:
    ours, theirs = ({run.seed: run for run in reversed(runs)} for runs in (first, second))
    return [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]


def _paired_difference(pairs: Sequence[Sequence[tuple[Evaluation, Evaluation]]], seed: int) -> Estimate:
    rng = np.random.default_rng(seed)
    strata = [
        (_Drawn([a for a, _ in of_task], rng), _Drawn([b for _, b in of_task], rng)) for of_task in pairs
    ]

    def statistic(*indices: Scores) -> Scores:
        gains = [a(i) - b(i) for (a, b), i in zip(strata, indices, strict=True)]
        return np.asarray(np.mean(_joined(gains), axis=-1))

    value = np.mean(np.concatenate([[score(a) - score(b) for a, b in of_task] for of_task in pairs]))
    return _estimate(value, [len(of_task) for of_task in pairs], statistic, rng)


def _bootstrapped(tasks: Sequence[Sequence[Evaluation]], statistic: Statistic, seed: int) -> Estimate:
    if not tasks or not all(tasks):
        raise ValueError("runs=[]: must be at least 1 of every task")
    rng = np.random.default_rng(seed)
    drawn = [_Drawn(of_task, rng) for of_task in tasks]
    value = statistic(*(np.array([score(run) for run in of_task]) for of_task in tasks))

    def of_indices(*indices: Scores) -> Scores:
        return statistic(*(draw(i) for draw, i in zip(drawn, indices, strict=True)))

    return _estimate(value, [len(of_task) for of_task in tasks], of_indices, rng)


def _estimate(
    value: np.floating | Scores, sizes: Sequence[int], statistic: Statistic, rng: np.random.Generator
) -> Estimate:
    """A value, and the interval of a statistic of indices of runs, each stratum drawn on its own."""

    def along_last(*indices: Scores, axis: int = -1) -> Scores:
        last = [np.moveaxis(one, axis, -1) for one in indices]
        return statistic(*(one[..., :size] for one, size in zip(last, sizes, strict=True)))

    # A stratum of one run is no sample to scipy: it gets two, of which the first is taken.
    data = tuple(np.arange(max(size, 2)) % size for size in sizes)
    found = stats.bootstrap(
        data, along_last, n_resamples=RESAMPLES, vectorized=True, method="percentile", rng=rng
    )
    low, high = found.confidence_interval
    # At 0 and at 1 all that is drawn lies to one side.
    return Estimate(float(value), (float(min(low, value)), float(max(high, value))))


class _Drawn:
    """Scores of runs by index, each with the luck of its episodes drawn anew."""

    def __init__(self, runs: Sequence[Evaluation], rng: np.random.Generator) -> None:
        self._rng = rng
        self._scores = np.array([score(run) for run in runs])
        self._episodes = np.array([run.episodes for run in runs])
        self._are_rates = all(run.success_rate is not None for run in runs)
        ends = np.array([run.return_ci for run in runs])
        self._errors = (ends[:, 1] - ends[:, 0]) / (2 * Z_95)

    def __call__(self, indices: Scores) -> Scores:
        i = indices.astype(np.int64)
        if self._are_rates:
            successes = self._scores[i] * self._episodes[i]
            failures = self._episodes[i] - successes
            return np.asarray(self._rng.beta(successes + 0.5, failures + 0.5))
        # Of returns only the mean is stored, and how sure it is.
        return np.asarray(self._rng.normal(self._scores[i], self._errors[i]))


def _joined(scores: Sequence[Scores]) -> Scores:
    """(..., R) of several tasks -> (..., all runs)."""
    leading = np.broadcast_shapes(*(one.shape[:-1] for one in scores))
    return np.concatenate([np.broadcast_to(one, (*leading, one.shape[-1])) for one in scores], axis=-1)


def _check_same_tasks(first: Sequence[Sequence[Evaluation]], second: Sequence[Sequence[Evaluation]]) -> None:
    if len(first) != len(second):
        raise ValueError(f"tasks: must be as many of both, got {len(first)} and {len(second)}")
