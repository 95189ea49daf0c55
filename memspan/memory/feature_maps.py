"""Feature maps phi of linear attention: what makes of phi(q).phi(k) a similarity that is never negative.

    elu    elu(x) + 1                                      d features    arXiv 2006.16236
    favor  exp(R x - |x|^2 / 2), exp(-R x - |x|^2 / 2)     2 m features  arXiv 2009.14794
    dpfp   y_i y_(i+r) for r = 1 .. nu                     2 d nu features  arXiv 2102.11174

favor: m random directions R, orthogonal in groups of d, with the lengths of Gaussian vectors; x is divided by
d^(1/4), so that phi(q).phi(k) is, but for a constant factor, an estimate of exp(q.k / sqrt(d)).

dpfp: y = (relu(x), relu(-x)), its 2 d entries in a ring. Products over r and over 2 d - r steps of the ring
are the same ones; over d steps they are 0, for an entry and its negative are never both positive. So nu < d.

Letters: d width of a head, P features.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-3
"""Added to sums of features before they divide: they can be 0 (dpfp), and gradients go with their inverse."""

FeatureMapName = Literal["elu", "favor", "dpfp"]


class FeatureMap(nn.Module, ABC):
    """(.., d) -> (.., P), nowhere negative."""

    n_features: int

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """phi(x)."""

    def normalised(self, x: Tensor) -> Tensor:
        """phi(x) divided by the sum of its entries."""
        phi: Tensor = self(x)
        return phi / (phi.sum(-1, keepdim=True) + EPS)


class Elu(FeatureMap):
    """elu(x) + 1."""

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.n_features = head_width

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x) + 1


class Favor(FeatureMap):
    """Positive random features; the directions are drawn once, and saved with the parameters."""

    directions: Tensor

    def __init__(self, head_width: int, n_random: int) -> None:
        super().__init__()
        self.n_features = 2 * n_random
        groups = [
            torch.linalg.qr(torch.randn(head_width, head_width)).Q
            for _ in range(math.ceil(n_random / head_width))
        ]
        lengths = torch.randn(n_random, head_width).norm(dim=-1, keepdim=True)
        self.register_buffer("directions", lengths * torch.cat(groups)[:n_random])

    def _logs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two parts of log phi: (.., P), and (.., 1) that all features of x share."""
        x = x / x.shape[-1] ** 0.25
        along = x @ self.directions.T
        return torch.cat([along, -along], dim=-1), -x.square().sum(-1, keepdim=True) / 2

    def forward(self, x: Tensor) -> Tensor:
        own, shared = self._logs(x)
        return (own + shared).exp()

    def normalised(self, x: Tensor) -> Tensor:
        """The shared part cancels, and with it the danger that all features of a long x vanish."""
        return torch.softmax(self._logs(x)[0], dim=-1)


class Dpfp(FeatureMap):
    """Deterministic parameter-free projection: products of neighbours up to `nu` apart.

    Raises:
        ValueError: with such a `nu` features would repeat.
    """

    def __init__(self, head_width: int, nu: int) -> None:
        super().__init__()
        if not 1 <= nu < head_width:
            raise ValueError(f"nu={nu}: must be at least 1 and less than the head width {head_width}")
        self.nu = nu
        self.n_features = 2 * head_width * nu

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([F.relu(x), F.relu(-x)], dim=-1)
        return torch.cat([y * y.roll(-r, dims=-1) for r in range(1, self.nu + 1)], dim=-1)


def make_feature_map(name: FeatureMapName, head_width: int, nu: int, n_random: int) -> FeatureMap:
    """The feature map called `name`; `nu` is of dpfp only, `n_random` of favor only."""
    if name == "elu":
        return Elu(head_width)
    if name == "favor":
        return Favor(head_width, n_random)
    return Dpfp(head_width, nu)
