"""Refresh-Span: Expire-Span whose memories can be renewed in time.

Not from a paper: what extends Expire-Span (Sukhbaatar et al. 2021, arXiv 2105.06548; see
`memspan.memory.expire_span`) is ours. There a memory's span is fixed when it is made, by what it looks like.
Here each later step may decide that the memory matters after all, and give it a longer life.

For a memory i and a step t of the same episode at distance d = t - i, with z the standardised memory:

    span        e_i    = L sigmoid(w.z_i + sqrt(D) b')            when it is made, as in Expire-Span
    score       g_ti   = q_t.k_i / sqrt(r) + c                    q, k: linear in z, to r dimensions
    offer       o_ti   = d + (L - d) tanh(g_ti)  where g_ti > 0   a span from birth: a share of what is left
                         d + L tanh(g_ti)        elsewhere        less than up to now
    span at t   e_i(t) = max(e_i(t-1), o_ti)     where 0 < d < min(L, e_i(t-1) + R)
                                                 where d >= e_i(t-1) + R, i has expired, for good
    mask        m_ti   = clip(1 + (e_i(t) - d) / R, 0, 1)         a step renews first, then reads
    penalty     e_t + sum over i of e_i(t) - e_i(t-1)             the life that is given at t

Offers of the living only grow, and what has expired stays so: all steps of a block are one cumulative maximum
over t, whose gradient goes to the best offer. The gate starts by resemblance, q = k, with c below 0.

What is remembered: as in Expire-Span, and with each memory its best offer so far, without gradient: the query
that made it, and when. Its worth is computed anew, with today's keys and c, so that the gate learns from
however old a renewal. State: see `memspan.memory.slots`; with the notes, per layer n:

    hidden.n  (B, S, D + r + 1) float   u_i (D), q_t of the best offer (r), its d (1); d = 0: e_i still counts
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.memory.base import ParameterGroup
from memspan.memory.expire_span import ExpireSpan, ExpireSpanConfig, SpanPredictor
from memspan.memory.few_rows import Weights, are_few
from memspan.memory.masked_block import NEVER, Readable
from memspan.memory.ramp import log_ramp_mask
from memspan.memory.registry import register
from memspan.memory.slots import Remembering


@dataclass(frozen=True)
class RefreshSpanConfig(ExpireSpanConfig):
    """Settings of `refresh-span`."""

    initial_span: float = 0.1
    """First spans as a fraction of max_span: short, so that renewals matter from the start."""
    renewal_width: int = 16
    """r: dimensions in which a step and a memory are compared."""
    initial_renewal: float = -0.95
    """Tanh of the first score of a step and a memory that have nothing in common; below 0: no renewal."""

    def validate(self) -> None:
        super().validate()
        self._require("renewal_width", self.renewal_width >= 1, "at least 1")
        self._require("initial_renewal", -1 < self.initial_renewal < 1, "between -1 and 1, both excluded")
        self._require("penalty", self.penalty == "new", "'new': life is charged when it is given")


class RenewalGate(nn.Module):
    """Scores (q.k) / sqrt(r) + c: how much a step wants a memory to stay.

    Args:
        width: D.
        renewal_width: r.
        score: c at first.
    """

    def __init__(self, width: int, renewal_width: int, score: float) -> None:
        super().__init__()
        self.query = nn.Linear(width, renewal_width)
        self.key = nn.Linear(width, renewal_width)
        self.bias = nn.Parameter(torch.tensor(score))
        # At first a step renews what resembles it: where no offer ever wins, nothing would be learnt.
        nn.init.orthogonal_(self.key.weight)
        with torch.no_grad():
            self.query.weight.copy_(self.key.weight)
        nn.init.zeros_(self.query.bias)
        nn.init.zeros_(self.key.bias)
        self.scale = renewal_width**-0.5


def of_standardised(linear: nn.Linear, predictor: SpanPredictor, content: Tensor) -> Tensor:
    """The linear function of the memories (..., D) standardised, in one product."""
    weight = linear.weight / (predictor.variance + predictor.eps).sqrt()
    return F.linear(content, weight, linear.bias - weight @ predictor.mean)


@register("refresh-span")
class RefreshSpan(ExpireSpan):
    """Slots that expire unless they are renewed."""

    fades = False  # spans change while a block goes on

    Config = RefreshSpanConfig

    def __init__(self, width: int, config: RefreshSpanConfig | None = None) -> None:
        config = config or RefreshSpanConfig()
        super().__init__(width, config)
        self.renewal_width = config.renewal_width
        self.n_notes = config.renewal_width + 1
        self.gates = nn.ModuleList(
            RenewalGate(width, config.renewal_width, math.atanh(config.initial_renewal))
            for _ in range(config.n_layers)
        )
        gate = "query.weight", "query.bias", "key.weight", "key.bias", "bias"
        predictor = "weight", "bias", "mean", "variance"
        self._renewal_weights = [
            Weights(
                self,
                *(f"gates.{n}.{name}" for name in gate),
                *(f"span_predictors.{n}.{name}" for name in predictor),
            )
            for n in range(config.n_layers)
        ]

    def _remembering(self, x: Tensor) -> Callable[[int, Tensor, Tensor, Tensor], Remembering]:
        return self._remember_few_rows if are_few(x) else super()._remembering(x)

    def _remember_few_rows(self, layer: int, hidden: Tensor, age: Tensor, u: Tensor) -> Remembering:
        """As `_remember_by_mask`."""
        weights = self._renewal_weights[layer].arrays()
        if weights is None:
            return self._remember_by_mask(layer, hidden, age, u)
        from memspan.memory.refresh_span_kernel import renew

        settings = (SpanPredictor.eps, self.renewal_width**-0.5, self.logit_scale, self.max_span, self.ramp)
        count, given = u.new_empty(2, u.shape[0]).unbind()
        new, counted, renewed = u.contiguous().numpy(), count.numpy(), given.numpy()
        bias = u.new_empty(age.shape[0], 1, age.shape[1])
        first = 0
        while True:
            arguments: list[Any] = [hidden.numpy(), age.numpy(), new, *weights, *settings]
            arguments += [first, bias.numpy(), counted, renewed]
            full: int = renew(*arguments)
            if full < 0:
                return hidden, age, bias, count, {"span": given}
            hidden, age, first = *self._grow(hidden, age), full
            bias = F.pad(bias, (0, age.shape[1] - bias.shape[2]), value=-NEVER)

    def _gate(self, layer: int) -> tuple[RenewalGate, SpanPredictor]:
        gate, predictor = self.gates[layer], self.span_predictors[layer]
        assert isinstance(gate, RenewalGate)
        assert isinstance(predictor, SpanPredictor)
        return gate, predictor

    def _offers(self, distance: Tensor, score: Tensor) -> Tensor:
        """Spans from birth, in steps, that scores are worth at these distances."""
        share = torch.tanh(score)
        return distance + self.max_span * share - distance * share.clamp(min=0)

    def spans(self, layer: int, slots: Tensor) -> Tensor:
        """Spans in steps as they stand, (B, K), of slots (B, K, D + r + 1)."""
        content, query, at = slots[..., : self.width], slots[..., self.width : -1], slots[..., -1]
        gate, predictor = self._gate(layer)
        score = (query * of_standardised(gate.key, predictor, content)).sum(-1) * gate.scale + gate.bias
        return torch.where(at > 0, self._offers(at, score), super().spans(layer, content))

    def readable(self, layer: int, slots: Tensor, distance: Tensor) -> Readable:
        slots = slots.detach()
        content = slots[..., : self.width]
        gate, predictor = self._gate(layer)
        now = distance == 0
        # The slot of each query: in a block the last T, in a step any.
        asking = content.gather(1, now.to(torch.uint8).argmax(-1, keepdim=True).expand(-1, -1, self.width))
        query = of_standardised(gate.query, predictor, asking)  # (B, T, r)
        key = of_standardised(gate.key, predictor, content)
        score = query @ key.transpose(1, 2) * gate.scale + gate.bias  # (B, T, K)
        # Not to itself, to what is yet to come or to another episode's; beyond L there is nothing to offer.
        no_offer = (distance <= 0) | (distance >= self.max_span)
        offers = self._offers(distance.masked_fill(no_offer, 0.0), score).masked_fill(no_offer, -NEVER)
        first = self.spans(layer, slots)
        with torch.no_grad():
            best = torch.cat([first.unsqueeze(1), offers[:, :-1]], dim=1).cummax(1).values
            expired = (best + self.ramp <= distance).to(torch.uint8).cummax(1).values.bool()
        offers = offers.masked_fill(expired, -NEVER)
        span, source = torch.cat([first.unsqueeze(1), offers], dim=1).cummax(1)  # (B, 1 + T, K)
        bias = log_ramp_mask(self._shorten(span[:, 1:]), distance, self.ramp)
        given = (span[:, 1:] - span[:, :-1]).sum(-1) + (now.to(first.dtype) @ first.unsqueeze(-1)).squeeze(-1)
        return Readable(bias, {"span": given}, self._noted(slots, query, distance, source[:, -1]))

    @torch.no_grad()
    def _noted(self, slots: Tensor, query: Tensor, distance: Tensor, source: Tensor) -> Tensor:
        """Slots with the best of their offers: that of query `source` - 1 (B, K), or 0, the one they had."""
        by = (source - 1).clamp(min=0)
        notes = torch.cat(
            [
                query.gather(1, by.unsqueeze(-1).expand(-1, -1, query.shape[-1])),
                distance.gather(1, by.unsqueeze(1)).transpose(1, 2),
            ],
            dim=-1,
        )
        notes = torch.where((source > 0).unsqueeze(-1), notes, slots[..., self.width :])
        return torch.cat([slots[..., : self.width], notes], dim=-1)

    def parameter_groups(self) -> list[ParameterGroup]:
        groups = super().parameter_groups()
        return [
            ParameterGroup(
                [*group.parameters, *self.gates.parameters()], group.learning_rate, group.optimizer_settings
            )
            for group in groups
        ]
