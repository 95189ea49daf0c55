"""A device that is none: tensors that say they are elsewhere, and whose crossings are counted.

What computes on a GPU must not mix its tensors with the CPU's, and every copy between the two costs time.
`Elsewhere` holds a tensor that says its device is "meta"; every operation on it is done on the CPU, inside.
As on a GPU, an operation that mixes it with a tensor of the CPU fails, and to read a value the CPU waits.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

ELSEWHERE = torch.device("meta")
aten = torch.ops.aten
# Their results, or the shape of these, depend on values: the CPU waits for them.
WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "equal",
    "is_nonzero",
    "masked_select",
    "_unique2",
    "repeat_interleave",
}
TAKES_CPU_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Elsewhere(Tensor):
    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Elsewhere":
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=ELSEWHERE,
            requires_grad=inner.requires_grad,
        )
        made.inner = inner.detach()
        return made

    def __repr__(self, **kwargs: Any) -> str:
        return f"Elsewhere({self.inner!r})"

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype).to(ELSEWHERE)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(Counter(), func, args, kwargs or {})


def dispatch(crossings: Counter[str], func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    far = [one for one in leaves if isinstance(one, Elsewhere)]
    near = [one for one in leaves if not isinstance(one, Elsewhere) and one.ndim]
    asked = kwargs.get("device")
    name = func.overloadpacket.__name__
    leaves_far = bool(far) if asked is None else torch.device(asked) == ELSEWHERE
    if name == "_to_copy":
        if leaves_far and not far:
            crossings["up"] += 1
        elif far and not leaves_far:
            crossings["down"] += 1
    elif name == "copy_":
        into, source = leaves[:2]
        crossings["up"] += isinstance(into, Elsewhere) and not isinstance(source, Elsewhere)
        crossings["down"] += isinstance(source, Elsewhere) and not isinstance(into, Elsewhere)
        leaves_far = isinstance(into, Elsewhere)
    elif far and near:
        if name not in TAKES_CPU_INDEX:
            raise RuntimeError(f"{func}: tensors of two devices")
        crossings["up"] += 1
    if far and name in WAITS:
        crossings["waits"] += 1
        crossings[f"waits: {name}"] += 1
    index_of_bools = name in TAKES_CPU_INDEX and any(one.dtype == torch.bool for one in far[1:])
    if index_of_bools:
        crossings["waits"] += 1
        crossings["waits: index by bools"] += 1
    inside = tree_map(lambda one: one.inner if isinstance(one, Elsewhere) else one, (args, kwargs))
    if asked is not None:
        inside[1]["device"] = torch.device("cpu")
    out = func(*inside[0], **inside[1])
    if not leaves_far:
        return out
    out = tree_map(lambda one: Elsewhere(one) if isinstance(one, Tensor) else one, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if far else out


class Crossings(TorchDispatchMode):
    """Counts `up`, `down` and `waits`."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(self.counts, func, args, kwargs or {})

    def take(self) -> dict[str, int]:
        counts, self.counts = dict(self.counts), Counter()
        return {name: count for name, count in counts.items() if count}


@contextmanager
def crossings() -> Iterator[Crossings]:
    """Counts what crosses; within, `torch.as_tensor` and `torch.tensor` can make tensors elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("as_tensor", "tensor"):
            make = getattr(torch, name)

            def made(data: Any, *args: Any, make: Any = make, device: Any = None, **kwargs: Any) -> Tensor:
                one: Tensor = make(data, *args, **kwargs)
                return one if device is None else one.to(device)

            patch.setattr(torch, name, made)
        with Crossings() as counted:
            yield counted


def move(module: nn.Module) -> None:
    """Has a module's parameters and buffers be elsewhere."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None and not isinstance(value, Elsewhere):
                part._parameters[name] = nn.Parameter(Elsewhere(value.data))
        for name, held in part._buffers.items():
            if held is not None and not isinstance(held, Elsewhere):
                part._buffers[name] = Elsewhere(held)
