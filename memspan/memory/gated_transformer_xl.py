"""Gated Transformer-XL (GTrXL): a Transformer-XL whose layers begin as the identity.

Source: Parisotto et al., Stabilizing Transformers for Reinforcement Learning, 2019, arXiv 1910.06764.

Where a Transformer adds the answer y of a sub-layer (attention, feed-forward) to its input x, a gate like a
GRU's joins the two, element by element:

    y   <- relu(y)
    r    = sigmoid(W_r y + U_r x)
    z    = sigmoid(W_z y + U_z x - b)       b starts at `gate_bias`, so that z starts near 0
    h    = tanh(W_h y + U_h (r x))
    out  = (1 - z) x + z h

What is remembered, and the state: as in `memspan.memory.transformer_xl`. The norms stand before the
sub-layers, so that x goes from layer to layer untouched ("identity map reordering"); here they always do.

Where we differ from the paper: in what our Transformer-XL differs from its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.memory.attention import Residual
from memspan.memory.few_rows import Weights, are_few
from memspan.memory.registry import register
from memspan.memory.transformer_xl import TransformerXL, TransformerXLConfig


@dataclass(frozen=True)
class GatedTransformerXLConfig(TransformerXLConfig):
    """Settings of `gated-transformer-xl`."""

    gate_bias: float = 2.0
    """How far shut gates are at first: the share of new in a layer's output is about sigmoid(-gate_bias)."""

    def validate(self) -> None:
        super().validate()
        self._require("gate_bias", self.gate_bias >= 0, "at least 0")
        self._require(
            "copy_at_first",
            not self.copy_at_first,
            "False: a gate does not add what is read as it was stored",
        )


class GRUGate(Residual):
    """Joins input and answer of a sub-layer as a GRU would its state and its input."""

    def __init__(self, width: int, bias: float) -> None:
        super().__init__()
        self.of_answer = nn.Linear(width, 3 * width, bias=False)  # W: reset, update, new
        self.of_input = nn.Linear(width, 2 * width, bias=False)  # U: reset, update
        self.of_reset_input = nn.Linear(width, width, bias=False)  # U of new
        self.bias = nn.Parameter(torch.full((width,), float(bias)))
        self._weights = Weights(self, "of_answer.weight", "of_input.weight", "of_reset_input.weight", "bias")

    def forward(self, x: Tensor, *answers: Tensor) -> Tensor:
        if are_few(x) and len(answers) == 1 and (weights := self._weights.arrays()):
            from memspan.memory.gate_kernel import gru_gate

            given, answer = x.contiguous().numpy(), answers[0].contiguous().numpy()
            out = np.empty_like(given)
            arguments: list[Any] = [given, answer, *weights, out]
            gru_gate(*arguments)
            return torch.from_numpy(out)
        w_r, w_z, w_h = self.of_answer(F.relu(torch.stack(answers).sum(0))).chunk(3, dim=-1)
        u_r, u_z = self.of_input(x).chunk(2, dim=-1)
        r = torch.sigmoid(w_r + u_r)
        z = torch.sigmoid(w_z + u_z - self.bias)
        h = torch.tanh(w_h + self.of_reset_input(r * x))
        return torch.lerp(x, h, z)


@register("gated-transformer-xl")
class GatedTransformerXL(TransformerXL):
    """A sliding window over the last `memory_size` steps, read through gates."""

    Config = GatedTransformerXLConfig

    def __init__(self, width: int, config: GatedTransformerXLConfig | None = None) -> None:
        config = config or GatedTransformerXLConfig()
        super().__init__(width, config, residual=lambda: GRUGate(width, config.gate_bias))
