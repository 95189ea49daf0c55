"""Steps of few rows, as when an agent acts in one environment: one kernel does a layer's work.

A layer asks whether rows are few and its weights are to be had as arrays, and calls torch otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from memspan.memory.step_attention import on_cpu_without_graph

ACTIVATIONS = {nn.ReLU: 1, nn.Tanh: 2}
FEW = 32
"""Rows up to which a kernel's loops are faster than calls of torch, with most memories."""

Array = npt.NDArray[Any]
Arrays = tuple[npt.NDArray[np.floating[Any]], ...]


def are_few(x: Tensor) -> bool:
    """Whether `x` is a step's rows (B, D), few, on a CPU, and no gradient is asked for."""
    # The length of a tensor's shape, because Python's len of a tensor takes ten times as long.
    return x.ndim == 2 and x.shape[0] <= FEW and on_cpu_without_graph(x)


class Weights:
    """Weights of a module and those in it as arrays that share their memory.

    They are made once, for making them takes longer than what is done with them, and anew where a parameter
    was replaced or moved. What an optimizer writes is seen.

    Args:
        owner: the module.
        names: of parameters and buffers, like "up.weight", and of modules without any that must not change.
    """

    def __init__(self, owner: nn.Module, *names: str) -> None:
        self._modules: dict[tuple[int, str], tuple[dict[str, Any], str, nn.Module, type]] = {}
        self._found: list[tuple[dict[str, Any], str]] = []
        for name in names:
            module = owner
            *path, last = name.split(".")
            for part in path:
                inner = module.get_submodule(part)
                self._modules[id(module), part] = module._modules, part, inner, inner.__class__
                module = inner
            if last in module._modules:
                inner = module.get_submodule(last)
                self._modules[id(module), last] = module._modules, last, inner, inner.__class__
                continue
            self._found.append((module._parameters if last in module._parameters else module._buffers, last))
        self._known: list[tuple[dict[str, Any], str, Tensor, int]] = []
        self._arrays: Arrays = ()

    def arrays(self) -> Arrays | None:
        """All of them; None where torch has to be called: a module was replaced, or is listened to."""
        for modules, part, module, kind in self._modules.values():
            if modules.get(part) is not module or module.__class__ is not kind:
                return None
            if module._forward_hooks or module._forward_pre_hooks:
                return None
        for tensors, name, known, pointer in self._known:
            if tensors.get(name) is not known or known.data_ptr() != pointer:
                break
        else:
            if self._known:
                return self._arrays
        now = [(tensors, name, tensors.get(name)) for tensors, name in self._found]
        self._known = [(*found, one, one.data_ptr()) for *found, one in now if one is not None]
        self._arrays = tuple(one.detach().view(one.shape or (1,)).numpy() for *_, one, _ in self._known)
        if len(self._known) < len(now):
            self._known = []
            return None
        return self._arrays


def weights_of(owner: nn.Module, *layers: str) -> Weights:
    """Weight and bias of each of an owner's layers."""
    return Weights(owner, *(f"{layer}.{name}" for layer in layers for name in ("weight", "bias")))


class FewRows:
    """Linear layers one after the other, with the activations behind them, for few rows.

    Args:
        owner: module that has them.
        names: of linear layers, rectifiers and tanh, or sequences of them; with others, or none, there is no
            kernel.
    """

    def __init__(self, owner: nn.Module, *names: str) -> None:
        self._layers: list[tuple[Weights, int]] = []
        self._known = bool(names)
        for name in names:
            module = owner.get_submodule(name)
            inner = (
                [f"{name}.{n}" for n in range(len(module))] if isinstance(module, nn.Sequential) else [name]
            )
            for path in inner:
                kind = type(owner.get_submodule(path))
                if kind is nn.Linear:
                    self._layers.append((weights_of(owner, path), 0))
                elif kind in ACTIVATIONS and self._layers and not self._layers[-1][1]:
                    self._layers[-1] = self._layers[-1][0], ACTIVATIONS[kind]
                else:
                    self._known = False

    def __call__(self, x: Tensor) -> Tensor | None:
        """(B, in) to (B, out); None where torch has to be called."""
        if not (self._known and are_few(x)):
            return None
        from memspan.memory.few_rows_kernel import dense

        now = x.contiguous().numpy()
        for weights, activation in self._layers:
            if (arrays := weights.arrays()) is None:
                return None
            out = np.empty((now.shape[0], arrays[0].shape[0]), now.dtype)
            arguments: list[Any] = [now, *arrays, activation, out]
            dense(*arguments)
            now = out
        return torch.from_numpy(now)
