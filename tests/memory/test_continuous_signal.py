"""The continuous signal against plain loops, numerical integration and signals that are known."""

import math

import pytest
import torch
from torch import Tensor

from memspan.memory.continuous_signal import SPREAD, ContinuousSignal


def signal_of(n_basis: int, chunk: int, tau: float = 0.7, ridge: float = 0.01) -> ContinuousSignal:
    return ContinuousSignal(n_basis, chunk, tau, ridge).double()


def bumps(n_basis: int, at: float) -> Tensor:
    """psi(s), one basis function after the other."""
    width = 0.5 / (n_basis - 1)
    return torch.tensor(
        [math.exp(-((at - j / (n_basis - 1)) ** 2) / (2 * width**2)) for j in range(n_basis)],
        dtype=torch.float64,
    )


def fit(n_basis: int, ridge: float, places: list[float], points: list[Tensor]) -> Tensor:
    """(J, D): ridge regression, the sums of the normal equations written out."""
    gram = ridge * torch.eye(n_basis, dtype=torch.float64)
    right = torch.zeros(n_basis, len(points[0]), dtype=torch.float64)
    for at, point in zip(places, points, strict=True):
        psi = bumps(n_basis, at)
        gram = gram + psi[:, None] * psi[None, :]
        right = right + psi[:, None] * point[None, :]
    return torch.linalg.inv(gram) @ right


def evenly(n: int) -> list[float]:
    """The middles of n parts of [0, 1]."""
    return [(i + 0.5) / n for i in range(n)]


def held(n_basis: int, share: float, chunk: list[Tensor]) -> list[Tensor]:
    """Each step at as many points as it takes to have two for each basis function."""
    times = math.ceil(2 * share * n_basis / len(chunk))
    return [step for step in chunk for _ in range(times)]


def begun(n_basis: int, ridge: float, chunk: list[Tensor]) -> Tensor:
    """The signal of a first chunk."""
    points = held(n_basis, 1.0, chunk)
    return fit(n_basis, ridge, evenly(len(points)), points)


def quantile_places(histogram: Tensor, n: int) -> list[Tensor]:
    """Where n parts of equal mass have their middles, a tenth of the mass being spread evenly."""
    n_bins = len(histogram)
    share = [0.9 * mass / histogram.sum() + 0.1 / n_bins for mass in histogram]
    places = []
    for wanted in evenly(n):
        below, j = torch.zeros((), dtype=torch.float64), 0
        while below + share[j] < wanted:
            below = below + share[j]
            j += 1
        places.append((j + (wanted - below) / share[j]) / n_bins)
    return places


def appended(
    n_basis: int, tau: float, ridge: float, old: Tensor, chunk: list[Tensor], at: list[float] | list[Tensor]
) -> Tensor:
    """The old signal sampled at some places, moved into [0, tau], and a chunk behind it."""
    width = 0.5 / (n_basis - 1)
    centres = torch.tensor([j / (n_basis - 1) for j in range(n_basis)], dtype=torch.float64)
    samples = [torch.exp(-((place - centres) ** 2) / (2 * width**2)) @ old for place in at]
    new = held(n_basis, 1 - tau, chunk)
    places = [tau * s for s in evenly(len(at))] + [tau + (1 - tau) * s for s in evenly(len(new))]
    return fit(n_basis, ridge, places, samples + new)


def close(fast: Tensor, slow: Tensor) -> None:
    """Equal, but for matrices, which are kept in single precision."""
    torch.testing.assert_close(fast, slow, atol=2e-5, rtol=1e-5)


# Fitting


def test_a_known_signal_is_fitted() -> None:
    signal = signal_of(n_basis=32, chunk=64, ridge=1e-3)
    at = torch.tensor(evenly(64), dtype=torch.float64)
    known = torch.stack([(2 * math.pi * at).sin(), at.square(), torch.ones_like(at)], dim=-1)
    coefficients = signal.first(known[None])[0]
    assert coefficients.shape == (32, 3)
    between = torch.linspace(0.02, 0.98, 501, dtype=torch.float64)
    expected = torch.stack(
        [(2 * math.pi * between).sin(), between.square(), torch.ones_like(between)], dim=-1
    )
    torch.testing.assert_close(signal.basis(between) @ coefficients, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("n_basis", "chunk", "tau", "ridge"), [(5, 2, 0.7, 0.01), (12, 7, 0.5, 0.3), (2, 1, 0.9, 1)]
)
def test_fits_equal_the_loops(n_basis: int, chunk: int, tau: float, ridge: float) -> None:
    torch.manual_seed(0)
    signal = signal_of(n_basis, chunk, tau, ridge)
    new = torch.randn(chunk, 3, dtype=torch.float64)
    first = begun(n_basis, ridge, list(new))
    close(signal.first(new[None])[0], first)
    evenly_sampled = appended(n_basis, tau, ridge, first, list(new), evenly(2 * n_basis))
    close(signal.append(first[None], new[None])[0], evenly_sampled)
    histogram = torch.rand(n_basis, dtype=torch.float64)
    sampled = appended(n_basis, tau, ridge, first, list(new), quantile_places(histogram, 2 * n_basis))
    close(signal.append(first[None], new[None], histogram[None])[0], sampled)
    if n_basis > 2:
        assert not torch.allclose(sampled, evenly_sampled, atol=1e-3)


def test_appending_moves_the_old_into_tau() -> None:
    """X_after(tau s) = X_before(s), and what is new lies beyond tau."""
    signal = signal_of(n_basis=48, chunk=48, tau=0.7, ridge=1e-4)
    at = torch.tensor(evenly(48), dtype=torch.float64)
    before = signal.first((2 * math.pi * at).sin()[None, :, None])
    after = signal.append(before, (3 * at).cos()[None, :, None])[0]
    inside = torch.linspace(0.05, 0.95, 100, dtype=torch.float64)
    old, new = (signal.basis(place) @ after for place in (0.7 * inside, 0.7 + 0.3 * inside))
    torch.testing.assert_close(old[:, 0], (2 * math.pi * inside).sin(), atol=0.1, rtol=0)
    torch.testing.assert_close(new[:, 0], (3 * inside).cos(), atol=0.1, rtol=0)


@pytest.mark.parametrize("sticky", [False, True])
def test_a_thousand_chunks_stay_bounded_in_single_precision(sticky: bool) -> None:
    torch.manual_seed(0)
    single, double = ContinuousSignal(64, 16, 0.75, 0.01), signal_of(64, 16, 0.75)
    chunks, masses = torch.randn(1000, 1, 16, 4), torch.rand(1000, 1, 64) ** 8
    a, b = single.first(chunks[0]), double.first(chunks[0].double())
    for chunk, mass in zip(chunks[1:], masses[1:], strict=True):
        a = single.append(a, chunk, mass if sticky else None)
        b = double.append(b, chunk.double(), mass.double() if sticky else None)
    assert a.abs().max() < 50
    torch.testing.assert_close(a.double(), b, atol=1e-3, rtol=1e-3)


# Reading


@pytest.mark.parametrize(("mean", "variance"), [(0.5, 0.3), (0.01, 0.0001), (0.93, 0.02), (0.3, 5.0)])
def test_expectations_equal_numerical_integration(mean: float, variance: float) -> None:
    signal = signal_of(n_basis=9, chunk=4)
    deviation = math.sqrt(variance)
    s = torch.linspace(mean - 9 * deviation, mean + 9 * deviation, 200_001, dtype=torch.float64)
    density = torch.exp(-((s - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    psi = torch.exp(-0.5 * ((s[:, None] - torch.arange(9) / 8) * 16).square())
    expected = torch.trapezoid(density[:, None] * psi, s, dim=0)
    got = signal.expectation(*(torch.tensor(each, dtype=torch.float64) for each in (mean, variance)))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    for j in range(9):  # the mass of each bin
        inside = torch.linspace(j / 9, (j + 1) / 9, 20_001, dtype=torch.float64)
        density = torch.exp(-((inside - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
        got = signal.mass(torch.tensor([mean]).double(), torch.tensor([variance]).double())[0, j]
        torch.testing.assert_close(got, torch.trapezoid(density, inside), atol=1e-6, rtol=1e-5)


# Sticky


def test_equal_attention_is_none() -> None:
    signal = signal_of(n_basis=7, chunk=3)
    even = torch.full((2, 7), 0.4, dtype=torch.float64)
    close(signal.quantiles(even), torch.tensor(evenly(14), dtype=torch.float64).expand(2, -1))
    old, new = torch.randn(2, 7, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    close(signal.append(old, new, even), signal.append(old, new))


def test_places_are_where_the_attention_is() -> None:
    """In order, inside [0, 1], and in each part as many as its share; some also where none is."""
    signal = signal_of(n_basis=50, chunk=3)
    mass = torch.zeros(3, 50, dtype=torch.float64)
    mass[0, 10] = 3.0
    mass[1, 10:20] = mass[1, 40] = 0.1
    mass[2, 0] = mass[2, 49] = 1e-9
    places = signal.quantiles(mass)
    assert places.shape == (3, 100)
    assert (places.diff(dim=1) > 0).all()
    assert ((places > 0) & (places < 1)).all()
    for row in range(3):
        count = torch.histc(places[row], 50, 0, 1)
        share = (1 - SPREAD) * mass[row] / mass[row].sum() + SPREAD / 50
        assert (count - 100 * share).abs().max() <= 1
    assert places[0, 0] < 0.1
    assert places[0, -1] > 0.9


def test_what_is_attended_keeps_its_resolution() -> None:
    """One sharp feature among noise, after ten more chunks: it takes more room where it is attended."""
    torch.manual_seed(0)
    signal = signal_of(n_basis=32, chunk=8, tau=0.75)
    chunk = torch.zeros(1, 8, 1, dtype=torch.float64)
    chunk[:, 3:5] = 1.0
    plain = sticky = signal.first(chunk)
    at = torch.linspace(0, 1, 1001, dtype=torch.float64)
    for _ in range(10):
        height = (signal.basis(torch.tensor(evenly(32), dtype=torch.float64)) @ sticky)[..., 0].clamp(min=0)
        nothing = torch.zeros_like(chunk)
        plain, sticky = signal.append(plain, nothing), signal.append(sticky, nothing, height)
    size_plain, size_sticky = ((signal.basis(at) @ each).abs().mean() for each in (plain, sticky))
    assert size_sticky > 5 * size_plain


def test_gradient_of_the_places() -> None:
    signal = signal_of(n_basis=6, chunk=3)
    torch.manual_seed(0)
    mass = torch.rand(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(signal.quantiles, (mass,))
