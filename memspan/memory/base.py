"""What every memory is: a torso between features and heads that carries a state through time.

Dimension letters of this package:
    T  time steps of a block          K  keys a query may read (cached slots and block)
    B  batch rows (environments)      S  slots of a cache
    D  width of the features          H  attention heads
    L  longest span                   R  ramp length
    M  memory size of a window        N  layers
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, ClassVar, get_args, get_type_hints

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
"""What a memory remembers: named tensors, each with the batch as its first dimension."""

FREE = -1
"""Age of a slot that holds nothing."""


@dataclass(frozen=True)
class MemoryOutput:
    """What a memory answers for a block (leading dimensions `(T, B)`) or a step (`(B,)`)."""

    features: Tensor
    """(T, B, D) or (B, D)."""
    state: State
    """The state after the last step; never part of the graph."""
    losses: dict[str, Tensor] = field(default_factory=dict)
    """Auxiliary losses by name, per element and unscaled: (T, B) or (B,)."""
    stats: dict[str, Tensor] = field(default_factory=dict)
    """Measurements by name, per element and detached; always has `effective_memory`."""


@dataclass(frozen=True)
class Remembered:
    """What one layer holds after a step of B rows: S slots, or vectors of constant size, or both."""

    age: Tensor
    """(B, S) long: steps since what the slot holds, the newest of it, was seen; -1 where it is free."""
    strength: Tensor
    """(B, S) from 0, the step could not read the slot, to 1, in full."""
    steps_left: Tensor
    """(B, S) further steps that can read the slot, if nothing renews it; 0 where this was the last."""
    vectors: dict[str, Tensor] = field(default_factory=dict)
    """Name -> (B, U)."""
    made: Tensor | None = None
    """(B, S) long: steps for which there has been the slot, if it is made of older ones; None: none is."""
    attention: Tensor | None = None
    """(B, S) share of its attention that the step gave to each slot, mean over heads; None: it gave none."""

    @classmethod
    def of_vectors(cls, **vectors: Tensor) -> Remembered:
        """A layer without slots."""
        none = next(iter(vectors.values())).new_zeros(len(next(iter(vectors.values()))), 0)
        return cls(none.long(), none, none, vectors)

    @property
    def readable(self) -> Tensor:
        """(B, S) bool: the memories that the step could read; the step itself is none."""
        return (self.age > 0) & (self.strength > 0)


@dataclass(frozen=True)
class MemoryConfig:
    """Settings of a memory. Subclasses add fields, each with its help as a docstring below it."""

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():
            self._require(name, _is_of(getattr(self, name), kind), _in_words(kind))
        self.validate()

    def validate(self) -> None:
        """Raises ValueError that names the field, its value and what is allowed."""

    def _require(self, name: str, allowed: bool, what: str) -> None:
        if not allowed:
            raise ValueError(f"{name}={getattr(self, name)!r}: must be {what}")


_KINDS: dict[Any, tuple[Any, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "a whole number"),
    float: (Real, "a finite number"),
    str: (str, "text"),
    NoneType: (NoneType, "None"),
}


def _kinds(config: type[MemoryConfig]) -> dict[str, Any]:
    """Field -> its annotation, of those fields that are numbers, text, yes or no, or None."""
    hints = get_type_hints(config)
    kinds = {one.name: hints[one.name] for one in fields(config)}
    return {name: kind for name, kind in kinds.items() if all(part in _KINDS for part in _parts(kind))}


def _parts(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if isinstance(kind, UnionType) else (kind,)


def _is_of(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):
        return bool in _parts(kind)
    fits = any(isinstance(value, _KINDS[part][0]) for part in _parts(kind))
    # An integer may have more digits than a float.
    return fits and not (isinstance(value, int | float) and not abs(value) <= sys.float_info.max)


def _in_words(kind: Any) -> str:
    return " or ".join(_KINDS[part][1] for part in _parts(kind))


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that learn at a pace of their own."""

    parameters: list[nn.Parameter]
    learning_rate: float
    """Learning rate of these parameters at the start; it falls as that of the others does."""
    optimizer_settings: dict[str, Any] = field(default_factory=dict)
    """Arguments of Adam that are theirs; other optimizers do without."""


class Memory(nn.Module, ABC):
    """Features in, features out, and a state that is carried from step to step.

    The rules that every memory keeps (`tests/memory/test_contract.py` checks each):

    - `episode_starts[t]` clears the state before `x[t]` is read, by selection;
    - T calls of `step` equal one call of `forward`, and cutting T anywhere changes nothing;
    - rows never affect each other, and no gradient crosses an episode's start.
    """

    Config: ClassVar[type[MemoryConfig]] = MemoryConfig
    width: int

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width={width}: must be at least 1")
        self.width = width

    @abstractmethod
    def initial_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        """The state of `batch_size` rows that remember nothing."""

    @abstractmethod
    def forward(
        self, x: Tensor, state: State, episode_starts: Tensor, keep_state: bool = True
    ) -> MemoryOutput:
        """A block of T steps at once; `state` is left as it is.

        Args:
            x: (T, B, D) features.
            state: what was remembered before the block.
            episode_starts: (T, B) bool, True where `x[t]` is the first of an episode.
            keep_state: False: the state after the block is not needed and may be left out.
        """

    def step(self, x: Tensor, state: State, episode_start: Tensor) -> MemoryOutput:
        """One step, for acting. Takes `state` over: its tensors may be written in place.

        Args:
            x: (B, D) features.
            state: what was remembered before the step.
            episode_start: (B,) bool.
        """
        out = self.forward(x[None], state, episode_start[None])
        return MemoryOutput(
            out.features[0],
            out.state,
            {name: value[0] for name, value in out.losses.items()},
            {name: value[0] for name, value in out.stats.items()},
        )

    def compact(self, state: State) -> State:
        """The same state in as little space as it needs; acting may have left it with more."""
        return state

    def remembered(self, state: State) -> list[Remembered]:
        """What each layer holds, for people to look at; empty where nothing is kept, or nothing told.

        Args:
            state: as the last `step` left it, before `compact` or another step.
        """
        return []

    @property
    @abstractmethod
    def capacity(self) -> float:
        """Memory vectors (D floats each) that a row can hold, mean over layers."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """Parameters with a learning rate of their own; the rest follow the agent's schedule."""
        return []


def select_rows(state: State, rows: Any) -> State:
    """The state of some rows (copied, when `rows` is an index tensor or a mask)."""
    return {name: value[rows] for name, value in state.items()}


def clone_state(state: State) -> State:
    """A copy that `Memory.step` may write into."""
    return {name: value.clone() for name, value in state.items()}


def state_bytes(state: State) -> int:
    """Bytes of one row."""
    return sum(value[0].numel() * value.element_size() for value in state.values())


def optimizer_groups(
    memory: Memory, parameters: Iterable[nn.Parameter], adam: bool = True
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer: everything that has no pace of its own, then what the memory asks for.

    Args:
        memory: see `Memory.parameter_groups`.
        parameters: all that learn, the memory's among them.
        adam: whether the optimizer is an Adam, and takes its arguments.
    """
    paced = memory.parameter_groups()
    own = {id(parameter) for group in paced for parameter in group.parameters}
    groups: list[dict[str, Any]] = [{"params": [one for one in parameters if id(one) not in own]}]
    for group in paced:
        settings = group.optimizer_settings if adam else {}
        groups.append({"params": group.parameters, "lr": group.learning_rate, **settings})
    return groups
