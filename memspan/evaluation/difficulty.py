"""Success by what makes a task hard: the corridor's length, the room, the delay of an instruction.

A *trial* is what succeeds or fails at one difficulty. In Corridor it is the episode; in Portal each room that
was reached, which is passed or not; in Instruction each moment at which an instruction was to be carried out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from memspan.agents import VecEnvAdapter
from memspan.envs.instruction_grammar import Kind

Rows = npt.NDArray[np.bool_]
"""(B,) some of the environments side by side."""


@dataclass(frozen=True)
class Trials:
    """K trials of a task."""

    difficulty: str
    """What `values` are: "length", "room" or "delay"."""
    values: npt.NDArray[np.int64]
    """(K,)."""
    successes: npt.NDArray[np.bool_]
    """(K,)."""


class Watch(ABC):
    """Watches an engine while it is played, and writes down trials."""

    difficulty: str

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.told: list[tuple[int, bool]] = []

    @abstractmethod
    def before_step(self, starts: Rows, counted: Rows) -> None:
        """Called before every step.

        Args:
            starts: (B,) where an episode has just begun.
            counted: (B,) whose trials count.
        """

    @abstractmethod
    def episode_ended(self, row: int, info: dict[str, Any]) -> None:
        """Called for each counted episode that the step has ended, with what it was told at last."""

    def trials(self) -> Trials:
        """All so far."""
        values, successes = zip(*self.told, strict=True) if self.told else ((), ())
        return Trials(self.difficulty, np.array(values, np.int64), np.array(successes, np.bool_))


class LengthWatch(Watch):
    """One trial an episode, by the length that it had been given."""

    difficulty = "length"

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self._lengths = np.zeros(engine.num_envs, np.int64)

    def before_step(self, starts: Rows, counted: Rows) -> None:
        if starts.any():
            self._lengths = np.where(starts, self.engine.get_state()["length"], self._lengths)

    def episode_ended(self, row: int, info: dict[str, Any]) -> None:
        self.told.append((int(self._lengths[row]), bool(info["is_success"])))


class RoomWatch(Watch):
    """One trial for each room that was reached, the first of them room 1: is the next one reached, too?"""

    difficulty = "room"

    def before_step(self, starts: Rows, counted: Rows) -> None:
        pass

    def episode_ended(self, row: int, info: dict[str, Any]) -> None:
        reached = int(info["rooms_reached"])
        self.told += [(room, True) for room in range(1, reached)]
        if not info["is_success"]:
            self.told.append((reached, False))


class DelayWatch(Watch):
    """One trial for each moment at which an instruction was due, by the steps since it was received."""

    difficulty = "delay"

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        shape = engine.num_envs, engine.num_instructions
        self._received_at = np.zeros(shape, np.int64)
        self._moments: dict[int, tuple[int, int]] = {}
        """Row -> (delay, instructions carried out before), where the last step was a moment."""

    def before_step(self, starts: Rows, counted: Rows) -> None:
        state = self.engine.get_state()
        for row, (delay, executed) in self._moments.items():
            self.told.append((delay, bool(state["executed"][row] > executed)))
        self._moments = {}
        for row in np.flatnonzero(state["kind"] == Kind.INSTRUCTION).tolist():
            self._received_at[row, state["received"][row] - 1] = state["step_count"][row]
        for row in np.flatnonzero((state["kind"] == Kind.MOMENT) & counted).tolist():
            executed = int(state["executed"][row])
            delay = int(state["step_count"][row] - self._received_at[row, executed])
            self._moments[row] = delay, executed

    def episode_ended(self, row: int, info: dict[str, Any]) -> None:
        if row in self._moments:
            delay, executed = self._moments.pop(row)
            self.told.append((delay, bool(info["executed"] > executed)))


def watch_difficulty(env: VecEnv) -> Watch | None:
    """What watches the environments, if they are of a task whose difficulty is known."""
    while isinstance(env, VecEnvWrapper):
        env = env.venv
    engine = env.env.unwrapped if isinstance(env, VecEnvAdapter) else None
    if not isinstance(engine, gym.vector.VectorEnv) or not hasattr(engine, "get_state"):
        return None
    state, told = engine.get_state(), getattr(engine, "info_names", ())
    if "length" in state:
        return LengthWatch(engine)
    if "rooms_reached" in told:
        return RoomWatch(engine)
    return DelayWatch(engine) if "executed" in told and "due" in state else None
