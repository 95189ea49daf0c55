"""LSTM: a state of constant size, unrolled step by step.

Source: Hochreiter and Schmidhuber, Long Short-Term Memory, 1997; forget gates from Gers et al., 2000;
chrono initialisation from Tallec and Ollivier, Can recurrent neural networks warp time?, 2018,
arXiv 1804.11188.

    i, f, o = sigmoid(W x + U h + b)    input, forget and output gate, each with weights of its own
    g       = tanh(W x + U h + b)
    c      <- f c + i g
    h      <- o tanh(c)

What is remembered: hidden and cell vectors of each layer. State:

    hidden  (B, N, units)
    cell    (B, N, units)

Where we differ: the layer around the cells is that of `memspan.memory.recurrent`. Chrono initialisation
also sets the input gates to minus what it sets the forget gates to, which makes what is written as weak as
what is kept is lasting. Left at 0, a bit is learnt to be kept over 200 steps sooner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from memspan.memory.packed_lstm import packed_lstm
from memspan.memory.recurrent import Recurrent, RecurrentConfig
from memspan.memory.registry import register


@dataclass(frozen=True)
class LSTMConfig(RecurrentConfig):
    """Settings of `lstm`."""


@register("lstm")
class LSTM(Recurrent):
    """Residual LSTM followed by a feed-forward layer."""

    Config = LSTMConfig
    cells_name = "lstm"
    cells_class = nn.LSTM
    vectors = ("hidden", "cell")
    keep_gate = 1  # input, forget, cell, output
    lstm: nn.LSTM

    def __init__(self, width: int, config: LSTMConfig | None = None) -> None:
        super().__init__(width, config or LSTMConfig())

    @staticmethod
    def step_kernel(*arrays: Any) -> None:
        from memspan.memory.few_rows_kernel import lstm

        lstm(*arrays)

    def run_packed(
        self, from_input: Tensor, weight: Tensor, before: list[Tensor], batch_sizes: list[int]
    ) -> tuple[Tensor, ...]:
        return packed_lstm(from_input, weight, before[0], before[1], batch_sizes)
