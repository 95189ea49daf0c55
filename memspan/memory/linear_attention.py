"""Linear attention: fast weights, written by a sum or by the delta rule.

Sources: Katharopoulos et al., Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention,
2020, arXiv 2006.16236; Schlag et al., Linear Transformers are Secretly Fast Weight Programmers, 2021,
arXiv 2102.11174. Feature maps phi: `memspan.memory.feature_maps`.

In each layer and head, with q, k, v linear in u = norm(x):

    sum     W <- W + v phi(k)'                                z <- z + phi(k)
            y  = W phi(q) / (z.phi(q) + eps)
    delta   W <- W + b (v - W phi(k)) phi(k)'                 b = sigmoid(w.u)
            y  = W phi(q)                                     phi divided by the sum of its entries

    x <- x + W_o y;   then a feed-forward layer

What is remembered: the fast weights W and, for "sum", the normaliser z. State: see
`memspan.memory.matrix_memory`, with P the features of phi and E = D / H; for "sum" E = D / H + 1, the last
column being z.

Where we differ from the papers: layers are pre-norm, there are no position encodings, favor's directions are
drawn once, and eps is 0.001.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.memory.attention import FeedForward
from memspan.memory.chunked_scan import ScanInputs
from memspan.memory.feature_maps import EPS, Dpfp, Favor, FeatureMapName, make_feature_map
from memspan.memory.few_rows import Array, Arrays
from memspan.memory.matrix_memory import COMMON_WEIGHTS, MatrixLayer, MatrixMemory, MatrixMemoryConfig
from memspan.memory.registry import register


@dataclass(frozen=True)
class LinearAttentionConfig(MatrixMemoryConfig):
    """Settings of `linear-attention`."""

    update_rule: Literal["sum", "delta"] = "delta"
    """How a value is written: added to what is under its key, or in its place."""
    feature_map: FeatureMapName = "dpfp"
    """phi: 'elu', 'favor' or 'dpfp'."""
    nu: int = 1
    """dpfp: products of neighbours up to this far apart; less than the head width."""
    n_random: int = 32
    """favor: random directions, each of which makes two features."""

    def validate(self) -> None:
        super().validate()
        self._require("update_rule", self.update_rule in ("sum", "delta"), "'sum' or 'delta'")
        maps = get_args(FeatureMapName)
        self._require("feature_map", self.feature_map in maps, "'elu', 'favor' or 'dpfp'")
        self._require("nu", self.nu >= 1, "at least 1")
        self._require("n_random", self.n_random >= 1, "at least 1")


class LinearAttentionLayer(MatrixLayer):
    """Reads and writes fast weights."""

    def __init__(self, width: int, config: LinearAttentionConfig) -> None:
        super().__init__(width, config.n_heads)
        self.phi = make_feature_map(config.feature_map, self.head_width, config.nu, config.n_random)
        self.project = nn.Linear(width, 3 * width)
        self.rate = nn.Linear(width, config.n_heads) if config.update_rule == "delta" else None
        self.out = nn.Linear(width, width)
        self.feed_forward = FeedForward(width, config.ff_factor)

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        return self.n_heads, self.phi.n_features, self.head_width + (self.rate is None)

    def inputs(self, u: Tensor) -> ScanInputs:
        query, key, value = self.project(u).unflatten(-1, (3, self.n_heads, self.head_width)).unbind(-3)
        # Of a query any factor would do for "sum", which divides it out.
        query = self.phi.normalised(query)
        if self.rate is None:
            return ScanInputs(query, self.phi(key), F.pad(value, (0, 1), value=1.0))
        return ScanInputs(query, self.phi.normalised(key), value, self.rate(u).sigmoid())

    def outputs(self, x: Tensor, u: Tensor, read: Tensor) -> Tensor:
        if self.rate is None:
            read = read[..., :-1] / (read[..., -1:] + EPS)
        out: Tensor = self.feed_forward(x + self.out(read.flatten(-2)))
        return out

    def kernel_weights(self) -> tuple[str, ...]:
        return *COMMON_WEIGHTS, "phi", *(() if self.rate is None else ("rate.weight", "rate.bias"))

    def step_kernel(
        self, x: Array, starts: Array, matrix: Array, weights: Arrays, eps: float, out: Array
    ) -> None:
        from memspan.memory.linear_attention_kernel import DPFP, ELU, FAVOR, linear_attention

        arguments: list[Any] = [x, starts, matrix, *weights]
        if self.rate is None:
            arguments += [np.empty((0, 0), x.dtype), np.empty(0, x.dtype)]
        directions, kind, nu = np.empty((0, 0), x.dtype), ELU, 0
        if isinstance(self.phi, Favor):
            directions, kind = self.phi.directions.numpy(), FAVOR
        elif isinstance(self.phi, Dpfp):
            kind, nu = DPFP, self.phi.nu
        arguments += [directions, kind, nu, eps, EPS, self.feed_forward.norm.eps, out]
        linear_attention(*arguments)

    def show(self, matrix: Tensor) -> dict[str, Tensor]:
        shown = {"fast_weights": matrix[..., : self.head_width].flatten(1)}
        if self.rate is None:
            shown["normaliser"] = matrix[..., -1].flatten(1)
        return shown


@register("linear-attention")
class LinearAttention(MatrixMemory):
    """A Transformer whose softmax is replaced by fast weights."""

    Config = LinearAttentionConfig

    def __init__(self, width: int, config: LinearAttentionConfig | None = None) -> None:
        config = config or LinearAttentionConfig()
        super().__init__(width, config.n_layers, lambda: LinearAttentionLayer(width, config))
