"""Memories whose state is a matrix per head: what its subclasses choose is how steps write and read.

State, per layer n:

    matrix.n  (B, H, P, E) float   from P key features to E value features of each head

It has the same size whatever the episode's length. The recurrence is that of `memspan.memory.chunked_scan`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from memspan.memory.base import Memory, MemoryConfig, MemoryOutput, Remembered, State
from memspan.memory.chunked_scan import ScanInputs, chunked_scan, scan_step
from memspan.memory.few_rows import Array, Arrays, Weights, are_few, weights_of

COMMON_WEIGHTS = (
    *(
        f"{layer}.{name}"
        for layer in ("project", "out", "feed_forward.norm", "feed_forward.up", "feed_forward.down")
        for name in ("weight", "bias")
    ),
    "feed_forward.residual",
)
"""What the kernels of all layers need first, in this order."""


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

    def kernel_weights(self) -> tuple[str, ...]:
        """What `step_kernel` needs, names for `memspan.memory.few_rows.Weights`; empty: there is no kernel.

        A subclass that computes something else has to say so here.
        """
        return ()

    def step_kernel(
        self, x: Array, starts: Array, matrix: Array, weights: Arrays, eps: float, out: Array
    ) -> None:
        """A step of few rows, in arrays.

        Args:
            x: (B, D) input of the layer.
            starts: (B,) bool, where an episode starts.
            matrix: (B, H, P, E), read and written.
            weights: gain and offset of the norm before the layer, then those of `kernel_weights`.
            eps: of that norm.
            out: (B, D) written.
        """
        raise NotImplementedError(f"{type(self).__name__} has no kernel")

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
        self._weights: list[Weights] = []
        for n, layer in enumerate(self._layers()):
            names = [f"layers.{n}.{name}" for name in layer.kernel_weights()]
            if names:
                norm = [f"input_norms.{n}.{name}" for name in ("weight", "bias")]
                self._weights.append(Weights(self, *norm, *names))
        self._norm_weights = weights_of(self, "norm")

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
        return self._answer(self.norm(h.transpose(0, 1)), new_state)

    def step(self, x: Tensor, state: State, episode_start: Tensor) -> MemoryOutput:
        if are_few(x) and (few := self._step_few_rows(x, state, episode_start)):
            return few
        h = x
        new_state: State = {}
        for n, layer in enumerate(self._layers()):
            u = self.input_norms[n](h)
            read, matrix = scan_step(layer.inputs(u), episode_start, state[f"matrix.{n}"])
            h = layer.outputs(h, u, read)
            new_state[f"matrix.{n}"] = matrix.detach()
        return self._answer(self.norm(h), new_state)

    def _step_few_rows(self, x: Tensor, state: State, episode_start: Tensor) -> MemoryOutput | None:
        """As `step`, with a kernel for each layer; None where torch has to be called."""
        weights = [arrays for each in self._weights if (arrays := each.arrays())]
        if len(weights) < len(self.layers) or not (last := self._norm_weights.arrays()):
            return None
        from memspan.memory.few_rows_kernel import norm

        h, starts = x.contiguous().numpy(), episode_start.contiguous().numpy()
        new_state: State = {}
        for n, (layer, input_norm) in enumerate(zip(self._layers(), self.input_norms, strict=True)):
            assert isinstance(input_norm, nn.LayerNorm)
            matrix, out = state[f"matrix.{n}"].contiguous(), np.empty_like(h)
            layer.step_kernel(h, starts, matrix.numpy(), weights[n], input_norm.eps, out)
            h, new_state[f"matrix.{n}"] = out, matrix
        features = np.empty_like(h)
        arguments: list[Any] = [h, *last, self.norm.eps, features]
        norm(*arguments)
        return self._answer(torch.from_numpy(features), new_state)

    def _answer(self, features: Tensor, state: State) -> MemoryOutput:
        stats = {"effective_memory": features.new_full(features.shape[:-1], self.capacity)}
        return MemoryOutput(features, state, stats=stats)

    def remembered(self, state: State) -> list[Remembered]:
        return [
            Remembered.of_vectors(**layer.show(state[f"matrix.{n}"]))
            for n, layer in enumerate(self._layers())
        ]

    @property
    def capacity(self) -> float:
        n_heads, n_keys, n_values = self._layers()[0].matrix_shape
        return n_heads * n_keys * n_values / self.width
