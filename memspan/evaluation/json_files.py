"""Results in files of JSON: written whole, and of the right types when they come back."""

from __future__ import annotations

import dataclasses
import json
import reprlib
import sys
import types
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from memspan.agents.files import write_atomically

Result = TypeVar("Result")
LARGEST = 2**63
"""Numbers beyond it are no result's."""
DEEPEST = 8
"""Levels of settings within settings."""


def write_json(path: Path, data: dict[str, Any]) -> Path:
    """Writes a file, whole or not at all.

    Raises:
        ValueError: a number is not finite; what was there is left.
    """
    text = json.dumps(data, indent=2, allow_nan=False)
    write_atomically(path, lambda name: Path(name).write_text(text + "\n", encoding="utf-8"))
    return path


@contextmanager
def read_json(path: Path, command: str) -> Iterator[dict[str, Any]]:
    """What the file holds; whatever is wrong with it, or with what is made of it, is one ValueError.

    Args:
        path: the file.
        command: what makes such files.
    """
    try:
        text = path.read_text(encoding="utf-8")
        yield json.loads(text, parse_constant=_no_number, parse_int=_integer)
    except FileNotFoundError:
        raise ValueError(f"{path.parent}: has no {path.name}; make it with `memspan {command}`") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"{path}: not of this version; make it again with `memspan {command}` ({said})"
        ) from None


def _no_number(name: str) -> None:
    raise ValueError(f"{name}: no number of JSON")


def _integer(digits: str) -> int:
    number = int(digits)
    if abs(number) > sys.float_info.max:  # what reads settings takes every number for a float
        raise ValueError(f"{reprlib.repr(digits)}: too large a number")
    return number


def checked(result: Result) -> Result:
    """A dataclass that came out of a file, once its fields have been compared with their types.

    Raises:
        TypeError: a field is of another type.
    """
    hints = typing.get_type_hints(type(result))
    for one in dataclasses.fields(result):  # type: ignore[arg-type]
        value = getattr(result, one.name)
        if not _is_of(value, hints[one.name]):
            raise TypeError(f"{one.name}={reprlib.repr(value)}: must be of type {one.type}")
    return result


def _is_of(value: Any, kind: Any) -> bool:  # noqa: PLR0911  # a return for each kind of type
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_is_of(value, one) for one in inner)
    if origin in (int, float):
        is_number = isinstance(value, int | origin) and not isinstance(value, bool)
        return is_number and abs(value) <= LARGEST
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(_is_of, value, inner))
    if origin is list:
        return isinstance(value, list) and all(_is_of(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and _depth(value) <= DEEPEST
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return isinstance(value, kind) and checked(value) is value
    return isinstance(value, kind)


def _depth(value: Any) -> int:
    """Levels of lists and dictionaries, counted up to one more than there may be."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST:
        parts = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for part in parts for one in part if isinstance(one, dict | list)]
        depth += 1
    return depth
