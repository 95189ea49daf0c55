"""infinity-former: the last steps, and the past as a continuous signal.

Source: Martins, Marinho and Martins, infinity-former: Infinite Memory Transformer, 2021, arXiv 2109.00301.

In each layer, beside the attention of Transformer-XL and added to what that reads:

    append   C steps at a time, before the first of them leaves the window: `memspan.memory.continuous_signal`
    density  of a head and query q over the signal with coefficients B (J, D), keys B W_k:
             mean     = sigmoid(a.(B W_k q) / sqrt(D/H) + b)
             variance = softplus(a'.(B W_k q) / sqrt(D/H) + b') + 1e-4
    read     E X(s) W_v for s from N(mean, variance), at a cost that does not depend on how long the past is
    sticky   parts of the signal that were attended since the last update keep more of its resolution

The signal changes after steps M, M + C, M + 2 C, ... of an episode, wherever blocks begin and end. What is
remembered, besides the slots of `memspan.memory.slots`:

    signal.n     (B, J, D) float  coefficients of layer n, without gradient
    attention.n  (B, J)    float  sticky: attention that each part of the signal got since the last update
    steps        (B,)      long   steps of the episode so far

Where we differ from the paper: when a signal is contracted it is sampled at evenly spaced quantiles of the
attention instead of at random places, and a tenth of them stays evenly spread, so that the same steps
always leave the same memory; gradients flow through the signal's updates inside a block; weights a and b are
each head's own and start spread over the past; all basis functions have one width; the input is not
smoothed, and the variance has no penalty.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.memory.base import FREE, Remembered, State
from memspan.memory.continuous_signal import SPREAD, ContinuousSignal
from memspan.memory.few_rows import Weights, are_few
from memspan.memory.registry import register
from memspan.memory.segments import Segments
from memspan.memory.transformer_xl import TransformerXL, TransformerXLConfig


@dataclass(frozen=True)
class InfinityFormerConfig(TransformerXLConfig):
    """Settings of `infinity-former`."""

    memory_size: int = 64
    """M: how many past steps a layer can read one by one."""
    n_basis: int = 64
    """J: basis functions of the long-term signal."""
    chunk: int = 16
    """C: steps that are appended to the signal at a time; at most memory_size."""
    tau: float = 0.75
    """Share of the signal that the past keeps when a chunk is appended."""
    ridge: float = 0.01
    """Penalty on the coefficients when a signal is fitted."""
    sticky: bool = True
    """Parts of the signal that were attended keep more of its resolution."""

    def validate(self) -> None:
        super().validate()
        self._require("n_basis", self.n_basis >= 2, "at least 2")
        self._require(
            "chunk", 1 <= self.chunk <= self.memory_size, f"from 1 to memory_size={self.memory_size}"
        )
        self._require("tau", 0 < self.tau < 1, "between 0 and 1, both excluded")
        self._require("ridge", self.ridge > 0, "above 0")


class SignalAttention(nn.Module):
    """Gaussian densities over a signal, one per head and query.

    Args:
        width: D.
        n_heads: H.
        n_basis: J.
        copy_at_first: what is read is added as it was stored, until something else is learnt.
    """

    smallest_variance = 1e-4

    def __init__(self, width: int, n_heads: int, n_basis: int, copy_at_first: bool) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.query.bias)
        if copy_at_first:
            nn.init.orthogonal_(self.value.weight)
            with torch.no_grad():
                self.out.weight.copy_(self.value.weight.T)
        # At first the mean follows the slope of the scores over the signal (by least squares), and the heads
        # share [0, 1] among them.
        slope = (torch.linspace(0, 1, n_basis) - 0.5) * 12 / n_basis
        middles = (torch.arange(n_heads) + 0.5) / n_heads
        self.mean_weight = nn.Parameter(slope.repeat(n_heads, 1))
        self.mean_bias = nn.Parameter(middles.logit())
        self.variance_weight = nn.Parameter(torch.zeros(n_heads, n_basis))
        self.variance_bias = nn.Parameter(torch.full((n_heads,), math.log(math.expm1(0.25 / n_heads**2))))

    def queries(self, u: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, H, D/H)."""
        q: Tensor = self.query(u).unflatten(-1, (self.n_heads, -1))
        return q / math.sqrt(q.shape[-1])

    def density(self, q: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, (B, T, H) each, of queries (B, T, H, D/H) for signals (B, J, D)."""
        # a.(B W q) = (a.B) W q: keys are summed before they are projected.
        weights = torch.cat([self.mean_weight, self.variance_weight])
        summed = (weights @ signal).view(len(signal), 2, self.n_heads, -1)
        key_weight = self.key.weight.view(self.n_heads, -1, signal.shape[-1])  # (H, D/H, D)
        keys = torch.einsum("bahd,hed->bahe", summed, key_weight)
        mean, variance = torch.einsum("bthe,bahe->abth", q, keys)
        mean = (mean + self.mean_bias).sigmoid()
        return mean, F.softplus(variance + self.variance_bias) + self.smallest_variance

    def read(self, expected: Tensor, signal: Tensor) -> Tensor:
        """(B, T, D) of signals (B, J, D) and expectations (B, T, H, J) of the basis functions."""
        value_weight = self.value.weight.view(self.n_heads, -1, signal.shape[-1])
        what = (expected.flatten(1, 2) @ signal).view(*expected.shape[:3], -1)  # (B, T, H, D)
        out: Tensor = self.out(torch.einsum("bthd,hed->bthe", what, value_weight).flatten(2))
        return out


@register("infinity-former")
class InfinityFormer(TransformerXL):
    """A window, and a continuous signal of what has left it."""

    Config = InfinityFormerConfig

    def __init__(self, width: int, config: InfinityFormerConfig | None = None) -> None:
        config = config or InfinityFormerConfig()
        super().__init__(width, config)
        self.chunk = config.chunk
        self.sticky = config.sticky
        self.signal = ContinuousSignal(config.n_basis, config.chunk, config.tau, config.ridge)
        self.signal_attention = nn.ModuleList(
            SignalAttention(width, config.n_heads, config.n_basis, config.copy_at_first)
            for _ in range(config.n_layers)
        )
        self.constant_vectors = config.n_basis + (config.n_basis / width if config.sticky else 0.0)

        names = [f"{name}.weight" for name in ("query", "key", "value", "out")]
        names[1:1] = ["query.bias"]
        names += ["mean_weight", "mean_bias", "variance_weight", "variance_bias"]
        self._signal_weights = [
            Weights(self, *(f"signal_attention.{n}.{name}" for name in names)) for n in range(config.n_layers)
        ]
        self._bins = Weights(self, "signal.centres", "signal.edges")
        fits = "centres", "places", "fit_first", "fit_old", "fit_new", "contract"
        self._fits = Weights(self, *(f"signal.{name}" for name in fits))

    def initial_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        state = super().initial_state(batch_size, device)
        n_basis = self.signal.n_basis
        for n in range(self.n_layers):
            state[f"signal.{n}"] = torch.zeros(batch_size, n_basis, self.width, device=device)
            if self.sticky:
                state[f"attention.{n}"] = torch.zeros(batch_size, n_basis, device=device)
        state["steps"] = torch.zeros(batch_size, dtype=torch.long, device=device)
        return state

    def read_besides(
        self, layer: int, x: Tensor, u: Tensor, hidden: Tensor, age: Tensor, state: State, starts: Tensor
    ) -> tuple[Tensor, State]:
        attention = self.signal_attention[layer]
        assert isinstance(attention, SignalAttention)
        cut = Segments(state["steps"], starts, self.memory_size, self.chunk)
        signal = torch.where(cut.carried[:, None, None], state[f"signal.{layer}"], 0.0)
        mass: Tensor | None = None
        if self.sticky:
            mass = torch.where(cut.carried[:, None], state[f"attention.{layer}"], 0.0)
        rows = torch.arange(len(u), device=u.device)[:, None]
        queries = attention.queries(u) if cut.n_read else u
        chunks = self._chunks(u, hidden, age, cut.update_time) if cut.n_updates else u
        answers: list[Tensor] = []
        for k in range(cut.n_updates + 1):
            if k < cut.n_read:
                mean, variance = attention.density(queries[rows, cut.query[:, k]], signal)
                answers.append(attention.read(self.signal.expectation(mean, variance), signal))
                if mass is not None:
                    each = self.signal.mass(mean, variance).sum(2)  # (B, longest, J)
                    mass = mass + torch.where(cut.valid[:, k, :, None], each, 0.0).sum(1)
            if k < cut.n_updates:
                # The rows that append now.
                those = (cut.update_time[:, k] < u.shape[1]).nonzero().squeeze(-1)
                begun = cut.first_update[those, k, None]
                chunk, attended = chunks[those, k], None
                if mass is not None:
                    # Before the first update there is no mass to divide by.
                    attended = torch.where(begun, 1.0, mass[those])
                    mass = mass.index_fill(0, those, 0.0)
                later = self.signal.append(signal[those], chunk, attended)
                later = torch.where(begun[..., None], self.signal.first(chunk), later)
                signal = signal.index_copy(0, those, later)
        more = {"steps": cut.steps}
        more[f"signal.{layer}"] = torch.where(cut.left[:, None, None], signal, 0.0).detach()
        if mass is not None:
            more[f"attention.{layer}"] = torch.where(cut.left[:, None], mass, 0.0).detach()
        if answers:
            read = torch.cat(answers, dim=1)[rows, cut.place]
            x = x + torch.where(cut.readable[..., None], read, 0.0)
        return x, more

    def read_besides_at_step(
        self, layer: int, x: Tensor, u: Tensor, hidden: Tensor, age: Tensor, state: State, start: Tensor
    ) -> tuple[Tensor, State]:
        weights = self._signal_weights[layer].arrays() if are_few(x) else None
        bins, fits = self._bins.arrays(), self._fits.arrays()
        if weights is None or bins is None or fits is None:
            return super().read_besides_at_step(layer, x, u, hidden, age, state, start)
        from memspan.memory.infinity_former_kernel import append_chunks, read_signals

        names = [f"signal.{layer}", f"attention.{layer}"][: 1 + self.sticky]
        more = {name: state[name] for name in names}
        more["steps"] = torch.empty_like(state["steps"])
        mass = state[names[1]] if self.sticky else x.new_empty(x.shape[0], 0)
        out = torch.empty_like(x)
        signals = [state[names[0]].numpy(), mass.numpy()]
        now: list[Any] = [each.contiguous().numpy() for each in (state["steps"], start)]
        after = more["steps"].numpy()
        arguments: list[Any] = [x.contiguous().numpy(), u.contiguous().numpy(), *signals, *now]
        arguments += [self.memory_size, self.chunk, *weights, *bins]
        arguments += [self.signal.width, SignalAttention.smallest_variance, out.numpy(), after]
        if read_signals(*arguments):
            arguments = [hidden.numpy(), age.numpy(), *signals, after, self.memory_size, *fits]
            arguments += [self.signal.width, SPREAD]
            append_chunks(*arguments)
        return out, more

    def _chunks(self, u: Tensor, hidden: Tensor, age: Tensor, update_time: Tensor) -> Tensor:
        """What each update appends, (B, updates, C, D): of the window the oldest steps."""
        n_slots, n_steps = hidden.shape[1], u.shape[1]
        # Slots in order of time, free ones before all others: the last step's is the last, ...
        ordered = age.masked_fill(age == FREE, self.memory_size + 2).argsort(1, descending=True)
        block = torch.arange(n_slots, n_slots + n_steps, device=u.device)
        column = torch.cat([ordered, block.expand(len(u), -1)], dim=1)
        time = update_time[..., None] - self.memory_size + torch.arange(self.chunk, device=u.device)
        time = (n_slots + time).clamp(0, n_slots + n_steps - 1)
        rows = torch.arange(len(u), device=u.device)[:, None]
        chosen = column[rows, time.flatten(1)]
        return torch.cat([hidden, u], dim=1)[rows, chosen].view(*time.shape, u.shape[-1])

    def compact(self, state: State) -> State:
        return {**state, **super().compact(state)}

    def remembered(self, state: State) -> list[Remembered]:
        layers = []
        for n, layer in enumerate(super().remembered(state)):
            vectors = {"signal": state[f"signal.{n}"].flatten(1)}
            if self.sticky:
                vectors["attention"] = state[f"attention.{n}"]
            layers.append(dataclasses.replace(layer, vectors=vectors))
        return layers

    @property
    def capacity(self) -> float:
        return self.memory_size + self.constant_vectors
