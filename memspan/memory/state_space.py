"""State space model: a matrix that fades, written by the gated delta rule.

Source: Yang et al., Gated Delta Networks: Improving Mamba2 with Delta Rule, 2024, arXiv 2412.06464, which
joins the decay of Mamba-2 (Dao and Gu, Transformers are SSMs, 2024, arXiv 2405.21060) with the delta rule of
`linear-attention`.

In each layer and head, with u = norm(x) and all weights linear maps of u:

    q, k    = silu(W_q u) / |..|, silu(W_k u) / |..|     of length 1
    v       = silu(W_v u)
    a       = exp(-softplus(-(w_a.u + c)))               decay, in (0, 1)
    b       = sigmoid(w_b.u)                             share that is overwritten, in (0, 1)
    S      <- S a (I - b k k') + b v k'
    x      <- x + W_o (rms_norm(S q) silu(W_g u));   then a feed-forward layer

What is remembered: the matrices S. State: see `memspan.memory.matrix_memory`, with P = E = D / H.

The first decays are constants, 1 - 1 / tau, with the heads' time constants tau evenly spaced on a logarithmic
scale up to `longest_dependency`.

Where we differ from the paper: no short convolution before q, k and v, which would need a state of its own;
softplus has no factor of its own beside c; keys and values have the same width; layers are those of the other
memories here, with a norm before and a feed-forward layer of two matrices after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.memory.attention import FeedForward
from memspan.memory.chunked_scan import ScanInputs
from memspan.memory.few_rows import Array, Arrays
from memspan.memory.matrix_memory import COMMON_WEIGHTS, MatrixLayer, MatrixMemory, MatrixMemoryConfig
from memspan.memory.registry import register


@dataclass(frozen=True)
class StateSpaceConfig(MatrixMemoryConfig):
    """Settings of `state-space`."""

    longest_dependency: int = 256
    """Decays start with time constants of up to this many steps, one per head."""

    def validate(self) -> None:
        super().validate()
        self._require("longest_dependency", self.longest_dependency >= 2, "at least 2")


class GatedDeltaLayer(MatrixLayer):
    """Reads and writes matrices that decay."""

    def __init__(self, width: int, config: StateSpaceConfig) -> None:
        super().__init__(width, config.n_heads)
        self.project = nn.Linear(width, 3 * width)
        self.gate = nn.Linear(width, width)
        self.rate = nn.Linear(width, config.n_heads)
        self.decay = nn.Linear(width, config.n_heads)
        self.read_norm = nn.RMSNorm(self.head_width, eps=1e-5)
        self.out = nn.Linear(width, width)
        self.feed_forward = FeedForward(width, config.ff_factor)
        # One time constant for each head: drawn at random, all could be short.
        nn.init.zeros_(self.decay.weight)
        with torch.no_grad():
            part = torch.arange(1, config.n_heads + 1) / config.n_heads
            self.decay.bias.copy_((config.longest_dependency**part - 1).log())

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        return self.n_heads, self.head_width, self.head_width

    def inputs(self, u: Tensor) -> ScanInputs:
        projected = F.silu(self.project(u))
        query, key, value = projected.view(*u.shape[:-1], 3, self.n_heads, self.head_width).unbind(-3)
        return ScanInputs(
            F.normalize(query, dim=-1),
            F.normalize(key, dim=-1),
            value,
            self.rate(u).sigmoid(),
            F.logsigmoid(self.decay(u)),  # -softplus(-x)
        )

    def outputs(self, x: Tensor, u: Tensor, read: Tensor) -> Tensor:
        read = self.read_norm(read).flatten(-2) * F.silu(self.gate(u))
        out: Tensor = self.feed_forward(x + self.out(read))
        return out

    def kernel_weights(self) -> tuple[str, ...]:
        own = (f"{layer}.{name}" for layer in ("gate", "rate", "decay") for name in ("weight", "bias"))
        return *COMMON_WEIGHTS, *own, "read_norm.weight"

    def step_kernel(
        self, x: Array, starts: Array, matrix: Array, weights: Arrays, eps: float, out: Array
    ) -> None:
        from memspan.memory.state_space_kernel import gated_delta

        arguments: list[Any] = [x, starts, matrix, *weights, eps]
        arguments += [self.read_norm.eps, self.feed_forward.norm.eps, out]
        gated_delta(*arguments)

    def show(self, matrix: Tensor) -> dict[str, Tensor]:
        return {"matrix": matrix.flatten(1)}


@register("state-space")
class StateSpace(MatrixMemory):
    """A Transformer whose attention is replaced by the gated delta rule."""

    Config = StateSpaceConfig

    def __init__(self, width: int, config: StateSpaceConfig | None = None) -> None:
        config = config or StateSpaceConfig()
        super().__init__(width, config.n_layers, lambda: GatedDeltaLayer(width, config))
