"""A past of any length as a continuous signal of constant size.

Source: Martins, Marinho and Martins, infinity-former: Infinite Memory Transformer, 2021, arXiv 2109.00301;
attention densities from Martins et al., Sparse and Continuous Attention Mechanisms, 2020, arXiv 2006.07214.

The signal lies over [0, 1], the far past at 0. With J radial basis functions psi and coefficients B (J, D):

    signal       X(s) = B' psi(s),   psi_j(s) = exp(-(s - c_j)^2 / 2 w^2)
    fit          B = (F F' + ridge I)^-1 F X,   columns of F: psi at the places of the points X
    append       the old signal, sampled at P places, is moved into [0, tau]; C new steps go into (tau, 1]:

                 0                    1       0              tau    1
                 |~~~~~ old ~~~~~~~~~~|  ->   |~~~~ old ~~~~~|~ new ~|

    expectation  of psi_j under N(mean, var):  w / sqrt(w^2 + var) exp(-(mean - c_j)^2 / 2 (w^2 + var))

A step is held for its share of the interval, at as many points as it takes to leave no hole where there
are more basis functions than steps. Where points are does not depend on what they are: the matrices of the
fit are computed once, in double precision. Dimension letters besides the package's: J basis functions,
C steps of a chunk, P points at which an old signal is sampled.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

POINTS = 2
"""Points of a fit for each basis function; P is that many times J."""
SPREAD = 0.1
"""Share of the points that stays evenly spread, whatever has been attended."""


class ContinuousSignal(nn.Module):
    """Fits, contracts and reads signals. Nothing here learns.

    Args:
        n_basis: J.
        chunk: C, steps that are appended at a time.
        tau: share of [0, 1] that the old signal gets.
        ridge: penalty on the coefficients.
    """

    centres: Tensor
    edges: Tensor
    places: Tensor
    fit_first: Tensor
    fit_old: Tensor
    fit_new: Tensor
    contract: Tensor

    def __init__(self, n_basis: int, chunk: int, tau: float, ridge: float) -> None:
        super().__init__()
        self.n_basis = n_basis
        # Half the distance of two centres: their sum is nearly flat, and they are still well told apart.
        self.width = 0.5 / (n_basis - 1)
        centres = torch.linspace(0, 1, n_basis, dtype=torch.float64)
        places = (torch.arange(POINTS * n_basis, dtype=torch.float64) + 0.5) / (POINTS * n_basis)

        def fit(old: Tensor, share: float) -> tuple[Tensor, Tensor]:
            """Coefficients (J, .) of points at places `old`, and of a chunk in the last `share` of [0, 1]."""
            held = math.ceil(POINTS * share * n_basis / chunk)  # points of a step
            new = (torch.arange(chunk * held, dtype=torch.float64) + 0.5) / (chunk * held)
            f = self._bumps(torch.cat([old, 1 - share + share * new]), centres).T
            both = torch.linalg.solve(f @ f.T + ridge * torch.eye(n_basis, dtype=f.dtype), f)
            return both[:, : len(old)], both[:, len(old) :].reshape(n_basis, chunk, held).sum(-1)

        _, fit_first = fit(places[:0], 1.0)
        fit_old, fit_new = fit(tau * places, 1 - tau)
        matrices = {
            "centres": centres,
            "edges": torch.linspace(0, 1, n_basis + 1),  # of as many bins as there are basis functions
            "places": places,
            "fit_first": fit_first,
            "fit_old": fit_old,
            "fit_new": fit_new,
            "contract": fit_old @ self._bumps(places, centres),
        }
        for name, value in matrices.items():
            self.register_buffer(name, value.to(torch.get_default_dtype()), persistent=False)

    def _bumps(self, at: Tensor, centres: Tensor) -> Tensor:
        return torch.exp(-0.5 * ((at.unsqueeze(-1) - centres) / self.width).square())

    def basis(self, at: Tensor) -> Tensor:
        """The basis functions at places (...): (..., J)."""
        return self._bumps(at, self.centres)

    def expectation(self, mean: Tensor, variance: Tensor) -> Tensor:
        """E psi(s) for s from N(mean, variance), (...) each: (..., J)."""
        both = (variance + self.width**2).unsqueeze(-1)
        distance = mean.unsqueeze(-1) - self.centres
        return self.width / both.sqrt() * torch.exp(-0.5 * distance.square() / both)

    def mass(self, mean: Tensor, variance: Tensor) -> Tensor:
        """How much of N(mean, variance), (...) each, lies in each bin of [0, 1]: (..., J)."""
        z = (self.edges - mean.unsqueeze(-1)) / (2 * variance).sqrt().unsqueeze(-1)
        return 0.5 * torch.erf(z).diff(dim=-1)

    def quantiles(self, mass: Tensor) -> Tensor:
        """P places in [0, 1], closer together where there is more mass (B, J): (B, P).

        They divide the mass evenly: random draws from the histogram would come out so on average.
        """
        share = (1 - SPREAD) * mass / mass.sum(-1, keepdim=True) + SPREAD / self.n_basis
        below = share.cumsum(-1)
        wanted = self.places.to(share.dtype).expand(len(share), -1).contiguous()
        bin_of = torch.searchsorted(below.detach(), wanted).clamp(max=self.n_basis - 1)
        above = below.gather(-1, bin_of) - wanted  # mass between the place and the bin's upper edge
        return (bin_of + 1 - above / share.gather(-1, bin_of)) / self.n_basis

    def first(self, chunk: Tensor) -> Tensor:
        """The signal (B, J, D) of a first chunk (B, C, D), which gets all of [0, 1]."""
        return self.fit_first @ chunk

    def append(self, signal: Tensor, chunk: Tensor, mass: Tensor | None = None) -> Tensor:
        """The signal after one more chunk.

        Args:
            signal: (B, J, D).
            chunk: (B, C, D).
            mass: (B, J) attention that each part of the signal got; None: all are equal.
        """
        if mass is None:
            old = self.contract @ signal
        else:
            old = self.fit_old @ (self.basis(self.quantiles(mass)) @ signal)
        return old + self.fit_new @ chunk
