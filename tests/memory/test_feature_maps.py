"""Feature maps against their papers' formulas, and which settings they refuse."""

import math
import re

import pytest
import torch
from torch import Tensor

from memspan.memory.feature_maps import Dpfp, Elu, Favor, FeatureMap

D = 4
MAPS = {"elu": Elu(D), "favor": Favor(D, 5), "dpfp": Dpfp(D, 3)}


def dpfp(x: Tensor, nu: int) -> list[float]:
    """phi_(i nu)(x) = y_i y_(i+nu), y = (relu(x), relu(-x))."""
    y = [max(v, 0.0) for v in x.tolist()] + [max(-v, 0.0) for v in x.tolist()]
    return [y[i] * y[(i + r) % len(y)] for r in range(1, nu + 1) for i in range(len(y))]


@pytest.mark.parametrize("nu", [1, 2, 3])
def test_dpfp_is_the_products_of_neighbours(nu: int) -> None:
    phi = Dpfp(D, nu)
    x = torch.randn(6, D)
    assert phi.n_features == 2 * D * nu
    torch.testing.assert_close(phi(x), torch.tensor([dpfp(row, nu) for row in x]))


@pytest.mark.parametrize("head_width", [2, 3, 4, 5])
def test_dpfp_takes_every_nu_that_adds_features(head_width: int) -> None:
    """All features differ and none is always 0 up to d - 1; at d they are 0, from d + 1 on they repeat."""
    x = torch.randn(500, head_width)
    phi = Dpfp(head_width, head_width - 1)(x)
    assert (phi > 0).any(0).all()
    assert len({tuple(feature) for feature in phi.T.tolist()}) == phi.shape[1]
    y = torch.cat([x.relu(), (-x).relu()], dim=-1)
    assert (y * y.roll(-head_width, -1) == 0).all()
    seen = {tuple(feature) for feature in phi.T.tolist()}
    for r in range(head_width + 1, 2 * head_width):
        assert {tuple(feature) for feature in (y * y.roll(-r, -1)).T.tolist()} <= seen
    for nu in 0, head_width, 2 * head_width:
        message = f"nu={nu}: must be at least 1 and less than the head width {head_width}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            Dpfp(head_width, nu)


def test_elu_is_exp_below_and_linear_above_0() -> None:
    torch.testing.assert_close(
        Elu(D)(torch.tensor([-2.0, -0.5, 0.0, 3.0])), torch.tensor([math.exp(-2), math.exp(-0.5), 1.0, 4.0])
    )


def test_favor_estimates_the_exponential_of_scaled_products() -> None:
    """Up to a constant, the number of features."""
    torch.manual_seed(0)
    phi = Favor(D, 20000)
    q, k = 0.5 * torch.randn(2, 8, D)
    estimate = phi(q) @ phi(k).T / phi.n_features
    torch.testing.assert_close(estimate, (q @ k.T / math.sqrt(D)).exp(), rtol=0.1, atol=0)


def test_directions_of_favor() -> None:
    """Orthogonal in groups of d, as long as Gaussian vectors are, and not to be learnt."""
    phi = Favor(D, 10)
    assert phi.directions.shape == (10, D)
    for group in phi.directions.split(D):
        products = group @ group.T
        torch.testing.assert_close(products, products.diagonal().diag(), atol=1e-5, rtol=0)
    assert not list(phi.parameters())
    assert "directions" in phi.state_dict()
    torch.manual_seed(0)
    assert Favor(D, 4000).directions.square().sum(-1).mean().item() == pytest.approx(D, rel=0.1)


@pytest.mark.parametrize("name", MAPS)
def test_features_are_not_negative_and_sum_up(name: str) -> None:
    phi: FeatureMap = MAPS[name]
    x = torch.randn(7, 3, D)
    assert phi(x).shape == (7, 3, phi.n_features)
    assert (phi(x) >= 0).all()
    shares = phi.normalised(x)
    torch.testing.assert_close(shares, phi(x) / phi(x).sum(-1, keepdim=True), atol=0.02, rtol=0.02)
    assert (shares.sum(-1) <= 1 + 1e-5).all()


@pytest.mark.parametrize("scale", [0.0, 1e-6, 60.0])
@pytest.mark.parametrize("name", MAPS)
def test_normalised_features_of_extreme_inputs(name: str, scale: float) -> None:
    """Finite, with their gradients; random features of a long x do not vanish."""
    x = (scale * torch.randn(50, D)).requires_grad_()
    shares = MAPS[name].normalised(x)
    (grad,) = torch.autograd.grad(shares.square().sum(), x)
    assert shares.isfinite().all()
    assert grad.isfinite().all()
    assert grad.abs().max() < 1e3
    if name == "favor":
        torch.testing.assert_close(shares.sum(-1), torch.ones(50))
