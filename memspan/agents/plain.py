"""Settings as JSON and back, without running anything that a file names.

What JSON does not know is an object with one of these keys:

    float      "inf", "-inf", "nan"
    tuple      list                       deque     list, with maxlen
    dict       object                     space     kind, with its arguments
    schedule   kind, with its arguments   class     "module:name"; its module must have been imported already
    left_out   the type of what cannot be written
"""

from __future__ import annotations

import math
import sys
from collections import deque
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from torch import nn

MOST_NUMBERS = 2**24
"""Numbers that an observation or an action may have."""
_CLASSES = (nn.Module, torch.optim.Optimizer)
_SCHEDULES = {
    "constant": (ConstantSchedule, ("val",)),
    "linear": (LinearSchedule, ("start", "end", "end_fraction")),
}


class LeftOut:
    """What could not be written.

    Args:
        what: its type.
    """

    def __init__(self, what: str) -> None:
        self.what = what


def encode(value: Any) -> Any:  # noqa: PLR0911  # one return for each kind
    """A value as JSON; what cannot be written is left out, and the file says so."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, list):
        return [encode(one) for one in value]
    if isinstance(value, tuple):
        return {"tuple": [encode(one) for one in value]}
    if isinstance(value, deque):
        return {"deque": [encode(one) for one in value], "maxlen": value.maxlen}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: encode(one) for key, one in value.items()}}
    if isinstance(value, FloatSchedule):
        value = value.value_schedule
    for kind, (schedule, names) in _SCHEDULES.items():
        if type(value) is schedule:
            return {"schedule": kind, **{name: float(getattr(value, name)) for name in names}}
    if isinstance(value, type) and issubclass(value, _CLASSES):
        return {"class": f"{value.__module__}:{value.__qualname__}"}
    if isinstance(value, spaces.Space):
        return _encode_space(value)
    return {"left_out": type(value).__name__}


def decode(value: Any) -> Any:  # noqa: PLR0911  # one return for each kind
    """What `encode` was given; `LeftOut` for what it left out.

    Raises:
        ValueError: it is nothing that `encode` writes.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [decode(one) for one in value]
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{_short(value)}: not a value")
    kind, content = next(iter(value.items()))
    match kind, content:
        case "float", "inf" | "-inf" | "nan":
            return float(content)
        case "tuple", list():
            return tuple(decode(one) for one in content)
        case "deque", list() if value.get("maxlen") is None or isinstance(value["maxlen"], int):
            return deque((decode(one) for one in content), maxlen=value["maxlen"])
        case "dict", dict():
            return {key: decode(one) for key, one in content.items()}
        case "schedule", str() if content in _SCHEDULES:
            schedule, names = _SCHEDULES[content]
            return schedule(*(_number(value.get(name)) for name in names))
        case "class", str():
            return find_class(content)
        case "space", str():
            return _decode_space(content, value)
        case "left_out", str():
            return LeftOut(content)
    raise ValueError(f"{_short(value)}: not a value")


def find_class(name: str) -> type:
    """A network or optimizer by `module:name`, of a module that has been imported.

    Raises:
        ValueError: there is none.
    """
    module, _, path = name.partition(":")
    if module not in sys.modules:
        raise ValueError(f"{name}: {module} has not been imported; import it first, if you trust it")
    found: Any = sys.modules[module]
    for part in path.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    if not isinstance(found, type) or not issubclass(found, _CLASSES):
        raise ValueError(f"{name}: no network and no optimizer")
    return found


def parts_left_out(value: Any) -> list[str]:
    """Types of what was left out of a decoded value."""
    if isinstance(value, LeftOut):
        return [value.what]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [what for one in inner for what in parts_left_out(one)]


def _encode_space(space: spaces.Space) -> dict[str, Any]:
    if isinstance(space, spaces.Box):
        bounds = {name: _encode_bound(getattr(space, name)) for name in ("low", "high")}
        return {"space": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if isinstance(space, spaces.Discrete):
        return {"space": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"space": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"space": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, spaces.Dict):
        return {"space": "Dict", "parts": {name: _encode_space(part) for name, part in space.spaces.items()}}
    raise ValueError(f"{space}: spaces of this kind cannot be saved")


def _encode_bound(bound: np.ndarray) -> Any:
    """One number where all are the same."""
    first = bound.flat[0] if bound.size else 0
    return encode(first) if (bound == first).all() else [encode(one) for one in bound.flatten()]


def _decode_space(kind: str, value: dict[str, Any]) -> spaces.Space:
    try:
        match kind:
            case "Box":
                shape = _shape(value["shape"])
                low, high = (_decode_bound(value[name], shape, value["dtype"]) for name in ("low", "high"))
                return spaces.Box(low, high, shape, np.dtype(value["dtype"]))
            case "Discrete":
                return spaces.Discrete(value["n"], start=value["start"])
            case "MultiDiscrete":
                return spaces.MultiDiscrete(value["nvec"], start=value["start"])
            case "MultiBinary":
                return spaces.MultiBinary(_shape(value["shape"]))
            case "Dict":
                parts = value["parts"].items()
                return spaces.Dict({name: _decode_space(part["space"], part) for name, part in parts})
    except (KeyError, TypeError, AssertionError, AttributeError, OverflowError) as error:
        raise ValueError(f"space {kind}: {type(error).__name__}: {error}") from None
    raise ValueError(f"space {kind!r}: unknown")


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(size, int) and size >= 0 for size in value):
        raise ValueError(f"shape={_short(value)}: must be whole numbers of at least 0")
    if len(value) > 32 or math.prod(value) > MOST_NUMBERS:
        raise ValueError(f"shape={_short(value)}: must have at most {MOST_NUMBERS} numbers")
    return tuple(value)


def _decode_bound(value: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if np.dtype(dtype).kind not in "fiub":
        raise ValueError(f"dtype={dtype!r}: must be one of numbers")
    numbers = decode(value)
    return (
        np.full(shape, numbers, dtype)
        if not isinstance(numbers, list)
        else np.array(numbers, dtype).reshape(shape)
    )


def _number(value: Any) -> float:
    number = decode(value)
    if not isinstance(number, int | float):
        raise ValueError(f"{_short(value)}: must be a number")
    try:
        return float(number)
    except OverflowError:
        raise ValueError(f"{_short(value)}: too large a number") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
