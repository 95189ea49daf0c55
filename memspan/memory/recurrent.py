"""What memories of constant size share that are unrolled step by step: all but the cell itself.

A residual layer of stacked cells over normalised inputs, followed by a feed-forward layer. State: the
vectors that a cell carries, `(B, N, units)` each. A block runs as packed sequences
(`memspan.memory.packing`), so that an episode's start costs nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.memory.attention import FeedForward
from memspan.memory.base import Memory, MemoryConfig, MemoryOutput, Remembered, State
from memspan.memory.few_rows import Weights, are_few
from memspan.memory.packing import Packing


@dataclass(frozen=True)
class RecurrentConfig(MemoryConfig):
    """Settings that all stepwise memories share."""

    n_layers: int = 1
    """Stacked layers of cells."""
    units: int | None = None
    """Hidden units of a layer; None: as many as the width."""
    ff_factor: int = 2
    """Hidden units of the feed-forward layer that follows, in multiples of the width."""
    longest_dependency: int = 0
    """Gates start to keep with time constants of up to this many steps (chrono); 0: with a bias of 1."""

    def validate(self) -> None:
        self._require("n_layers", self.n_layers >= 1, "at least 1")
        self._require("units", self.units is None or self.units >= 1, "at least 1")
        self._require("ff_factor", self.ff_factor >= 1, "at least 1")
        self._require(
            "longest_dependency",
            self.longest_dependency == 0 or self.longest_dependency >= 3,
            "0 or at least 3",
        )


class Recurrent(Memory):
    """Residual layer of cells, followed by a feed-forward layer."""

    # What a subclass chooses

    cells_name: ClassVar[str]
    """Attribute of the cells; parameters are saved under it."""
    cells_class: ClassVar[type[nn.LSTM] | type[nn.GRU]]
    vectors: ClassVar[tuple[str, ...]]
    """Names of what a cell carries; the first is also its output."""
    keep_gate: ClassVar[int]
    """Place, in torch's order of the gates, of the one that says how much is kept."""

    @abstractmethod
    def run_packed(
        self, from_input: Tensor, weight: Tensor, before: list[Tensor], batch_sizes: list[int]
    ) -> tuple[Tensor, ...]:
        """A layer over packed sequences: each vector after each step, the first with a gradient.

        Args:
            from_input: (packed steps, gates * units) what the gates get from the input, biases included.
            weight: (gates * units, units) what they get from the first vector.
            before: (sequences, units) each, before the first step.
            batch_sizes: sequences still running at each step.
        """

    @staticmethod
    @abstractmethod
    def step_kernel(*arrays: Any) -> None:
        """A layer's step of few rows: input, weights and biases, vectors before, vectors after (written)."""

    def __init__(self, width: int, config: RecurrentConfig) -> None:
        super().__init__(width)
        units = config.units or width
        self.input_norm = nn.LayerNorm(width)
        self.add_module(self.cells_name, self.cells_class(width, units, config.n_layers))
        self.out = nn.Linear(units, width)
        self.feed_forward = FeedForward(width, config.ff_factor)
        self.norm = nn.LayerNorm(width)
        self._initialise_gates(config.longest_dependency)
        names = "weight_ih", "weight_hh", "bias_ih"
        self._weights = [
            Weights(self, *(f"{self.cells_name}.{name}_l{n}" for name in names))
            for n in range(config.n_layers)
        ]

    @property
    def cells(self) -> nn.RNNBase:
        """The cells of all layers, whatever their name."""
        cells: nn.RNNBase = getattr(self, self.cells_name)
        return cells

    @torch.no_grad()
    def _initialise_gates(self, longest_dependency: int) -> None:
        """Sets the biases: those of the gate that keeps, and 0 for the others."""
        units = self.cells.hidden_size
        keep = slice(self.keep_gate * units, (self.keep_gate + 1) * units)
        for n in range(self.cells.num_layers):
            # torch has two biases where one is enough.
            getattr(self.cells, f"bias_hh_l{n}").zero_().requires_grad_(False)
            bias = getattr(self.cells, f"bias_ih_l{n}").zero_()
            if longest_dependency:
                bias[keep] = torch.empty(units).uniform_(1, longest_dependency - 1).log()
            else:
                bias[keep] = 1.0

    def initial_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        shape = (batch_size, self.cells.num_layers, self.cells.hidden_size)
        return {name: torch.zeros(shape, device=device) for name in self.vectors}

    def forward(
        self, x: Tensor, state: State, episode_starts: Tensor, keep_state: bool = True
    ) -> MemoryOutput:
        packing = Packing.of(episode_starts)
        before = {name: packing.first(state[name]) for name in self.vectors}
        out, after = self._run(packing.packed(self.input_norm(x)), before, packing.batch_sizes)
        h = self.feed_forward(x + self.out(packing.unpacked(out)))
        return self._answer(h, {name: packing.last(vector) for name, vector in after.items()})

    def step(self, x: Tensor, state: State, episode_start: Tensor) -> MemoryOutput:
        before = {name: state[name] for name in self.vectors}
        # A GPU would have to be waited for, and does not ask.
        if x.device.type != "cpu" or episode_start.any():
            start = episode_start[:, None, None]
            before = {name: torch.where(start, 0.0, vector) for name, vector in before.items()}
        if are_few(x) and (few := self._step_few_rows(self.input_norm(x), before)):
            out, after = few
            return self._answer(self.feed_forward(x + self.out(out)), after)
        out, after = self._run(self.input_norm(x), before, [len(x)])
        return self._answer(self.feed_forward(x + self.out(out)), after)

    def _run(self, x: Tensor, before: State, batch_sizes: list[int]) -> tuple[Tensor, State]:
        """All layers over packed sequences: the output, and every vector after each step.

        Args:
            x: (packed steps, D).
            before: (sequences, N, units) each, before the first step.
            batch_sizes: sequences still running at each step.

        Returns:
            (packed steps, units), and (packed steps, N, units) each, without gradient.
        """
        after: list[tuple[Tensor, ...]] = []
        for n in range(self.cells.num_layers):
            from_input, from_hidden, bias = (
                getattr(self.cells, f"{name}_l{n}") for name in ("weight_ih", "weight_hh", "bias_ih")
            )
            first = [before[name][:, n].contiguous() for name in self.vectors]
            after.append(self.run_packed(F.linear(x, from_input, bias), from_hidden, first, batch_sizes))
            x = after[-1][0]
        vectors = (
            torch.stack([each.detach() for each in of_layers], 1) for of_layers in zip(*after, strict=True)
        )
        return x, dict(zip(self.vectors, vectors, strict=True))

    def _step_few_rows(self, x: Tensor, before: State) -> tuple[Tensor, State] | None:
        """As `_run`, of one step; None where torch has to be called."""
        after = {name: torch.empty_like(vector) for name, vector in before.items()}
        for n, weights in enumerate(self._weights):
            if (arrays := weights.arrays()) is None:
                return None
            vectors = (each[:, n].numpy() for each in (*before.values(), *after.values()))
            self.step_kernel(x.contiguous().numpy(), *arrays, *vectors)
            x = after[self.vectors[0]][:, n]
        return x, after

    def _answer(self, h: Tensor, state: State) -> MemoryOutput:
        effective = h.new_full(h.shape[:-1], self.capacity)
        return MemoryOutput(self.norm(h), state, stats={"effective_memory": effective})

    def remembered(self, state: State) -> list[Remembered]:
        return [
            Remembered.of_vectors(**{name: state[name][:, n] for name in self.vectors})
            for n in range(self.cells.num_layers)
        ]

    @property
    def capacity(self) -> float:
        return len(self.vectors) * self.cells.hidden_size / self.width
