"""GRU: an LSTM with two gates and one vector.

Source: Cho et al., Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation, 2014, arXiv 1406.1078; chrono initialisation from Tallec and Ollivier, Can recurrent neural
networks warp time?, 2018, arXiv 1804.11188.

    r, z = sigmoid(W x + U h + b)       reset and update gate, each with weights of its own
    n    = tanh(W x + b + r (U h))
    h   <- z h + (1 - z) n

What is remembered: the hidden vector of each layer. State:

    hidden  (B, N, units)

Where we differ from the paper: the reset gate acts on U h instead of h, as in torch's `nn.GRU`, so that one
product gives a step all that it needs of h. The layer around the cells is that of `memspan.memory.recurrent`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from memspan.memory.packed_gru import packed_gru
from memspan.memory.recurrent import Recurrent, RecurrentConfig
from memspan.memory.registry import register


@dataclass(frozen=True)
class GRUConfig(RecurrentConfig):
    """Settings of `gru`."""


@register("gru")
class GRU(Recurrent):
    """Residual GRU followed by a feed-forward layer."""

    Config = GRUConfig
    cells_name = "gru"
    cells_class = nn.GRU
    vectors = ("hidden",)
    keep_gate = 1  # reset, update, new
    gru: nn.GRU

    def __init__(self, width: int, config: GRUConfig | None = None) -> None:
        super().__init__(width, config or GRUConfig())

    @staticmethod
    def step_kernel(*arrays: Any) -> None:
        from memspan.memory.few_rows_kernel import gru

        gru(*arrays)

    def run_packed(
        self, from_input: Tensor, weight: Tensor, before: list[Tensor], batch_sizes: list[int]
    ) -> tuple[Tensor, ...]:
        return (packed_gru(from_input, weight, before[0], batch_sizes),)
