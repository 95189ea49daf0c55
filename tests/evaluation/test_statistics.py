import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memspan.evaluation import wilson_interval
from memspan.evaluation.statistics import (
    compare,
    interquartile_mean,
    probability_of_improvement,
    success_interval,
)


@pytest.fixture
def runs(make_evaluation):
    def make(*rates, episodes=1000, env="memspan/Corridor-v0", first_seed=0):
        return [
            make_evaluation(rate=rate, episodes=episodes, env=env, seed=first_seed + i)
            for i, rate in enumerate(rates)
        ]

    return make


def test_one_run_has_the_interval_of_its_episodes(runs):
    for rate in 0.0, 0.03, 0.5, 1.0:
        low, high = success_interval(runs(rate))
        wilson = wilson_interval(round(1000 * rate), 1000)
        assert low == pytest.approx(wilson[0], abs=0.004)
        assert high == pytest.approx(wilson[1], abs=0.004)
        assert low <= rate <= high


def test_seeds_that_differ_widen_it(runs):
    low, high = success_interval(runs(0.2, 0.5, 0.8))
    assert low < 0.25
    assert high > 0.75
    narrow = success_interval(runs(0.5, 0.5, 0.5))
    assert narrow[1] - narrow[0] < 0.05


def test_it_covers_what_is_true(runs):
    """Of intervals of many experiments, about nine in ten hold the truth; with ten runs, not quite 95 %."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(100):
        agents = rng.beta(8, 2, size=10)
        low, high = success_interval(runs(*rng.binomial(200, agents) / 200, episodes=200))
        covered.append(low <= 0.8 <= high)
    assert 0.85 <= np.mean(covered) <= 0.99


def test_interquartile_mean_leaves_the_ends_out(runs):
    easy, hard = runs(1.0, 0.9, 0.9, 0.8), runs(0.0, 0.1, 0.1, 0.5, env="memspan/Portal-v0")
    found = interquartile_mean([easy, hard])
    # Of eight, the middle four: 0.1, 0.5, 0.8 and 0.9.
    assert found.value == pytest.approx((0.1 + 0.5 + 0.8 + 0.9) / 4)
    assert found.ci[0] < found.value < found.ci[1]
    assert interquartile_mean([easy, hard], trim=0).value == pytest.approx(0.5375)


def test_tasks_are_strata(runs):
    """What differs between tasks is no luck: drawn without strata the interval would be as wide as that."""
    tasks = [runs(0.99, 1.0, 0.99), runs(0.01, 0.0, 0.01, env="memspan/Portal-v0")]
    low, high = interquartile_mean(tasks, trim=0).ci
    assert high - low < 0.02


def test_probability_of_improvement(runs):
    better = probability_of_improvement([runs(0.8, 0.9)], [runs(0.1, 0.2)])
    assert better.value == 1
    assert better.ci[0] > 0.99
    assert probability_of_improvement([runs(0.5, 0.7)], [runs(0.6, 0.6)]).value == 0.5
    same = probability_of_improvement([runs(1.0, 1.0)], [runs(1.0, 1.0)])
    assert same.value == 0.5
    assert same.ci[0] < 0.25
    assert same.ci[1] > 0.75
    other = probability_of_improvement([runs(0.1, 0.2)], [runs(0.8, 0.15)])
    assert other.value == 0.25
    # Each task counts as much as another, whatever its runs.
    ours, theirs = runs(0.8, 0.9, 0.9), runs(0.1, 0.2)
    two = probability_of_improvement([ours, theirs], [theirs, ours])
    assert two.value == 0.5
    assert two.ci == pytest.approx((0.5, 0.5), abs=0.02)


def test_six_pairs_can_be_told_apart(runs):
    found = compare([runs(*[0.9] * 6)], [runs(*[0.8] * 6)])
    assert found.verdict == "better"
    assert found.p_value == pytest.approx(2 / 64)
    assert found.difference.value == pytest.approx(0.1)
    assert found.difference.ci[0] > 0.07
    assert compare([runs(*[0.8] * 6)], [runs(*[0.9] * 6)]).verdict == "worse"
    # One seed of six makes the difference: its interval is that of a mean.
    one = compare([runs(*[0.5] * 5, 1.0)], [runs(*[0.5] * 6)])
    assert one.difference.ci[1] > 0.2
    assert one.verdict == "not distinguishable"


def test_what_cannot_be_told_apart(runs):
    mixed = compare([runs(0.9, 0.5, 0.7, 0.6, 0.8, 0.4)], [runs(0.5, 0.9, 0.6, 0.7, 0.4, 0.8)])
    assert mixed.verdict == "not distinguishable"
    three = compare([runs(1.0, 1.0, 1.0)], [runs(0.5, 0.5, 0.5)])
    assert three.verdict == "too few pairs"
    assert three.difference.ci[0] > 0.45
    equal = compare([runs(*[1.0] * 8)], [runs(*[1.0] * 8)])
    assert equal.verdict == "not distinguishable"
    assert equal.p_value == 1


def test_pairs_are_of_one_task_and_seed(runs):
    first = [runs(0.9, 0.9), runs(0.2, env="memspan/Portal-v0")]
    second = [runs(0.6, 0.5, 0.1, first_seed=1), runs(0.1, env="memspan/Portal-v0", first_seed=5)]
    found = compare(first, second)
    assert found.n_pairs == 1
    assert found.difference.value == pytest.approx(0.9 - 0.6)
    # A seed that was copied, or trained again, makes no second pair.
    twice = compare([runs(0.9, 0.8, 0.7) * 2], [runs(0.1, 0.2, 0.3) * 2])
    assert (twice.n_pairs, twice.verdict) == (3, "too few pairs")
    with pytest.raises(ValueError, match="no task and seed in common"):
        compare([runs(0.5)], [runs(0.5, first_seed=1)])
    with pytest.raises(ValueError, match="as many of both, got 1 and 2"):
        compare([runs(0.5)], second)


def test_tasks_that_tell_no_success(make_evaluation):
    ours = [
        make_evaluation(rate=None, mean_return=x, return_ci=(x - 1, x + 1), seed=i)
        for i, x in enumerate((5.0, 7.0))
    ]
    low, high = success_interval(ours)
    assert 4 < low < 5.9
    assert 6.1 < high < 8
    assert success_interval(ours[:1]) == pytest.approx((4, 6), abs=0.1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=4), min_size=1, max_size=3))
def test_intervals_hold_the_estimate(make_evaluation, tasks):
    made = [
        [make_evaluation(rate=k / 50, episodes=50, seed=i, env=f"E{j}-v0") for i, k in enumerate(of_task)]
        for j, of_task in enumerate(tasks)
    ]
    found = interquartile_mean(made)
    assert 0 <= found.ci[0] <= found.value <= found.ci[1] <= 1
    assert interquartile_mean(made) == found


def test_without_runs():
    for tasks in [], [[]]:
        with pytest.raises(ValueError, match="must be at least 1 of every task"):
            interquartile_mean(tasks)
