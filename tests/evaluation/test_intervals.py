import numpy as np
import pytest

from memspan.evaluation import mean_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [
        (0, 10, 0.0, 0.27753),  # Newcombe 1998, table I, and by hand: z^2 / (n + z^2)
        (10, 10, 0.72247, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published(successes, episodes, low, high):
    assert wilson_interval(successes, episodes) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("episodes", [1, 7, 1000])
def test_wilson_is_scipys(episodes):
    stats = pytest.importorskip("scipy.stats")
    for successes in {0, 1, episodes // 3, episodes - 1, episodes}:
        theirs = stats.binomtest(successes, episodes).proportion_ci(method="wilson")
        ours = wilson_interval(successes, episodes)
        assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)
        assert 0 <= ours[0] <= successes / episodes <= ours[1] <= 1


def test_wilson_refuses():
    with pytest.raises(ValueError, match=r"episodes=0: must be at least 1"):
        wilson_interval(0, 0)
    with pytest.raises(ValueError, match=r"successes=4: must be from 0 to episodes, 3"):
        wilson_interval(4, 3)


def test_mean_interval():
    assert mean_interval(np.array([2.0])) == (2.0, 2.0)
    low, high = mean_interval(np.array([0.0, 1.0] * 50))
    assert (low + high) / 2 == pytest.approx(0.5)
    assert high - low == pytest.approx(2 * 1.95996 * np.sqrt(0.25 * 100 / 99) / 10, rel=1e-4)
    with pytest.raises(ValueError, match="at least 1"):
        mean_interval(np.array([]))
