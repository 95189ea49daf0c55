"""NumPy's arrays as tensors that every file can hold, and checks of tensors that come out of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SIGNED = {np.dtype(f"u{size}"): np.dtype(f"i{size}") for size in (2, 4, 8)}


def to_tensor(array: Any) -> Tensor:
    """A copy; unsigned integers that few tensors have become signed ones, bit by bit."""
    array = np.array(array, order="C")
    return torch.from_numpy(array.view(_SIGNED.get(array.dtype, array.dtype)))


def to_array(tensor: Tensor, dtype: Any) -> np.ndarray:
    """The array that `to_tensor` was given, of which the type is `dtype`."""
    array = tensor.numpy()
    return array.view(dtype) if _SIGNED.get(np.dtype(dtype)) == array.dtype else array


def get_tensor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor by its name.

    Raises:
        ValueError: there is none.
    """
    if name not in tensors:
        raise ValueError(f"tensor {name} is missing")
    return tensors[name]


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raises ValueError if a tensor has another shape."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"tensor {name} has shape {tuple(tensor.shape)}: must be {shape}")


def check_like(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> None:
    """Raises ValueError if a tensor is missing or has another type or shape than `like`."""
    tensor = get_tensor(tensors, name)
    if tensor.dtype != like.dtype:
        raise ValueError(f"tensor {name} is {tensor.dtype}: must be {like.dtype}")
    check_shape(name, tensor, tuple(like.shape))


def check_finite(name: str, tensor: Tensor) -> None:
    """Raises ValueError if a tensor holds NaN or infinity."""
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"tensor {name} holds NaN or infinity")
