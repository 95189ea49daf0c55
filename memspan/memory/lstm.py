"""LSTM: a state of constant size, unrolled step by step.

Source: Hochreiter and Schmidhuber, Long Short-Term Memory, 1997; forget gates from Gers et al., 2000;
chrono initialisation from Tallec and Ollivier, Can recurrent neural networks warp time?, 2018,
arXiv 1804.11188.

What is remembered: hidden and cell vectors of each layer. State:

    hidden  (B, N, units)
    cell    (B, N, units)

An episode that starts inside a block must not see the one before. Instead of unrolling in Python, a block
is cut at every start and the pieces run as one packed sequence, longest first:

    row 0   a a a b b            a0 a1 a2          packed by step: a0 c0 b0 d0 | a1 c1 b1 | a2 c2 | c3
    row 1   c c c c d     ->     c0 c1 c2 c3
                                 b0 b1
                                 d0

so no step is padded and none is run twice. Only the pieces that begin a row get the carried state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.memory.attention import FeedForward
from memspan.memory.base import Memory, MemoryConfig, MemoryOutput, Remembered, State, register
from memspan.memory.packed_lstm import packed_lstm


@dataclass(frozen=True)
class LSTMConfig(MemoryConfig):
    """Settings of `lstm`."""

    n_layers: int = 1
    """Stacked LSTM layers."""
    units: int | None = None
    """Hidden units of a layer; None: as many as the width."""
    ff_factor: int = 2
    """Hidden units of the feed-forward layer that follows, in multiples of the width."""
    longest_dependency: int = 0
    """Forget gates start with time constants of up to this many steps (chrono); 0: with a bias of 1."""

    def validate(self) -> None:
        self._require("n_layers", self.n_layers >= 1, "at least 1")
        self._require("units", self.units is None or self.units >= 1, "at least 1")
        self._require("ff_factor", self.ff_factor >= 1, "at least 1")
        self._require(
            "longest_dependency",
            self.longest_dependency == 0 or self.longest_dependency >= 3,
            "0 or at least 3",
        )


@register("lstm")
class LSTM(Memory):
    """Residual LSTM followed by a feed-forward layer."""

    Config = LSTMConfig

    def __init__(self, width: int, config: LSTMConfig | None = None) -> None:
        super().__init__(width)
        config = config or LSTMConfig()
        units = config.units or width
        self.input_norm = nn.LayerNorm(width)
        self.lstm = nn.LSTM(width, units, config.n_layers)
        self.out = nn.Linear(units, width)
        self.feed_forward = FeedForward(width, config.ff_factor)
        self.norm = nn.LayerNorm(width)
        self._initialise_gates(config.longest_dependency)

    @torch.no_grad()
    def _initialise_gates(self, longest_dependency: int) -> None:
        """Sets the biases of input and forget gate (order in torch: input, forget, cell, output)."""
        units = self.lstm.hidden_size
        for n in range(self.lstm.num_layers):
            # torch has two biases where one is enough.
            getattr(self.lstm, f"bias_hh_l{n}").zero_().requires_grad_(False)
            bias = getattr(self.lstm, f"bias_ih_l{n}").zero_()
            if longest_dependency:
                # The paper also sets the input gates to minus that, which makes what is written as weak as
                # what is kept is lasting. Left at 0, a bit is learnt to be kept over 200 steps sooner.
                bias[units : 2 * units] = torch.empty(units).uniform_(1, longest_dependency - 1).log()
            else:
                bias[units : 2 * units] = 1.0

    def initial_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        shape = (batch_size, self.lstm.num_layers, self.lstm.hidden_size)
        return {name: torch.zeros(shape, device=device) for name in ("hidden", "cell")}

    def forward(
        self, x: Tensor, state: State, episode_starts: Tensor, keep_state: bool = True
    ) -> MemoryOutput:
        n_steps, n_rows, width = x.shape
        # Pieces, numbered along the rows: piece k starts at flat position `start[k]` (b * T + t).
        first = episode_starts.T.clone()
        first[:, 0] = True
        start = first.flatten().nonzero().squeeze(-1)
        length = torch.diff(start, append=start.new_tensor([n_rows * n_steps]))
        length, order = length.sort(descending=True, stable=True)
        start = start[order]
        step = torch.arange(int(length[0]), device=x.device)[:, None]
        running = step < length  # (longest, pieces)
        position = (start + step)[running]  # flat positions in packed order
        batch_sizes: list[int] = running.sum(1).tolist()
        row, begins_row = start // n_steps, start % n_steps == 0
        carried = (begins_row & ~episode_starts[0, row])[:, None]
        # Where each row's last step ended up in packed order.
        unpack = position.argsort()
        last = unpack.view(n_rows, n_steps)[:, -1]
        out = self.input_norm(x).transpose(0, 1).reshape(-1, width)[position]
        new_state: dict[str, list[Tensor]] = {"hidden": [], "cell": []}
        for n in range(self.lstm.num_layers):
            weights = [getattr(self.lstm, f"{name}_l{n}") for name in ("weight_ih", "weight_hh", "bias_ih")]
            hidden, cell = (torch.where(carried, state[name][row, n], 0.0) for name in new_state)
            out, cells = packed_lstm(
                F.linear(out, weights[0], weights[2]), weights[1], hidden, cell, batch_sizes
            )
            new_state["hidden"].append(out.detach()[last])
            new_state["cell"].append(cells[last])
        unpacked = out[unpack].view(n_rows, n_steps, -1).transpose(0, 1)
        h = self.feed_forward(x + self.out(unpacked))
        return MemoryOutput(
            self.norm(h),
            {name: torch.stack(values, dim=1) for name, values in new_state.items()},
            stats={"effective_memory": x.new_full(x.shape[:-1], self.capacity)},
        )

    def step(self, x: Tensor, state: State, episode_start: Tensor) -> MemoryOutput:
        hidden, cell = (
            torch.where(episode_start[:, None, None], 0.0, state[name]).transpose(0, 1).contiguous()
            for name in ("hidden", "cell")
        )
        out, (hidden, cell) = self.lstm(self.input_norm(x)[None], (hidden, cell))
        h = self.feed_forward(x + self.out(out[0]))
        return MemoryOutput(
            self.norm(h),
            {"hidden": hidden.transpose(0, 1).detach(), "cell": cell.transpose(0, 1).detach()},
            stats={"effective_memory": x.new_full(x.shape[:-1], self.capacity)},
        )

    def remembered(self, state: State) -> list[Remembered]:
        layers = range(self.lstm.num_layers)
        return [Remembered.of_vectors(hidden=state["hidden"][:, n], cell=state["cell"][:, n]) for n in layers]

    @property
    def capacity(self) -> float:
        return 2 * self.lstm.hidden_size / self.width
