"""Memories whose state is a matrix per head: what its subclasses choose is how steps write and read.

State, per layer n:

    matrix.n  (B, H, P, E) float   from P key features to E value features of each head

It has the same size whatever the episode's length. The recurrence is that of `memspan.memory.chunked_scan`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspan.memory.base import Memory, MemoryConfig, MemoryOutput, Remembered, State
from memspan.memory.chunked_scan import ScanInputs, chunked_scan, scan_step


@dataclass(frozen=True)
class MatrixMemoryConfig(MemoryConfig):
    """Settings that all matrix memories share."""

    n_layers: int = 2
    """Layers, each with matrices of its own."""
    n_heads: int = 4
    """Matrices of a layer; must divide the width."""
    ff_factor: int = 2
    """Hidden units of the feed-forward layers, in multiples of the width."""

    def validate(self) -> None:
        for name in ("n_layers", "n_heads", "ff_factor"):
            self._require(name, getattr(self, name) >= 1, "at least 1")


class MatrixLayer(nn.Module, ABC):
    """One layer, without its state; leading dimensions are `(B, T)` or `(B,)`.

    Raises:
        ValueError: `n_heads` does not divide the width.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        if width % n_heads:
            raise ValueError(f"n_heads={n_heads}: must divide the width {width}")
        self.n_heads = n_heads
        self.head_width = width // n_heads

    @property
    @abstractmethod
    def matrix_shape(self) -> tuple[int, int, int]:
        """(H, P, E)."""

    @abstractmethod
    def inputs(self, u: Tensor) -> ScanInputs:
        """What steps with normalised features u (.., D) write and look for."""

    @abstractmethod
    def outputs(self, x: Tensor, u: Tensor, read: Tensor) -> Tensor:
        """The layer's output (.., D) from its input (.., D), `u` and what was read (.., H, E)."""

    @abstractmethod
    def show(self, matrix: Tensor) -> dict[str, Tensor]:
        """The parts of the state (B, H, P, E) by name, (B, U) each."""


class MatrixMemory(Memory):
    """Layers with a matrix per head; see the module's docstring for the state."""

    def __init__(self, width: int, n_layers: int, make_layer: Callable[[], MatrixLayer]) -> None:
        super().__init__(width)
        self.input_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(n_layers))
        self.layers = nn.ModuleList(make_layer() for _ in range(n_layers))
        self.norm = nn.LayerNorm(width)

    def _layers(self) -> list[MatrixLayer]:
        return [layer for layer in self.layers if isinstance(layer, MatrixLayer)]

    def initial_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        return {
            f"matrix.{n}": torch.zeros(batch_size, *layer.matrix_shape, device=device)
            for n, layer in enumerate(self._layers())
        }

    def forward(
        self, x: Tensor, state: State, episode_starts: Tensor, keep_state: bool = True
    ) -> MemoryOutput:
        h, starts = x.transpose(0, 1), episode_starts.T
        new_state: State = {}
        for n, layer in enumerate(self._layers()):
            u = self.input_norms[n](h)
            read, matrix = chunked_scan(layer.inputs(u), starts, state[f"matrix.{n}"])
            h = layer.outputs(h, u, read)
            new_state[f"matrix.{n}"] = matrix.detach()
        return self._answer(h.transpose(0, 1), new_state)

    def step(self, x: Tensor, state: State, episode_start: Tensor) -> MemoryOutput:
        h = x
        new_state: State = {}
        for n, layer in enumerate(self._layers()):
            u = self.input_norms[n](h)
            read, matrix = scan_step(layer.inputs(u), episode_start, state[f"matrix.{n}"])
            h = layer.outputs(h, u, read)
            new_state[f"matrix.{n}"] = matrix.detach()
        return self._answer(h, new_state)

    def _answer(self, h: Tensor, state: State) -> MemoryOutput:
        stats = {"effective_memory": h.new_full(h.shape[:-1], self.capacity)}
        return MemoryOutput(self.norm(h), state, stats=stats)

    def remembered(self, state: State) -> list[Remembered]:
        return [
            Remembered.of_vectors(**layer.show(state[f"matrix.{n}"]))
            for n, layer in enumerate(self._layers())
        ]

    @property
    def capacity(self) -> float:
        n_heads, n_keys, n_values = self._layers()[0].matrix_shape
        return n_heads * n_keys * n_values / self.width
