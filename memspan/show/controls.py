"""From keys to actions: single keys, or a line of text with completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import gymnasium as gym

from memspan.show.actions import Commands, action_names, keys_in_words, keys_of_actions
from memspan.show.environments import TextEnvironment

Request = int | Literal["quit", "restart"] | None
"""The number of an action, or what else was asked for."""


class Controls(Protocol):
    """What stands between a keyboard and an environment."""

    def press(self, key: str) -> Request:
        """What a key asks for, if anything yet."""

    def lines(self) -> list[str]:
        """What to show below the picture."""


class KeyControls:
    """One key, one action.

    Args:
        names: of the actions.
        keys: key -> position in `names`, from `keys_of_actions`.
        first: number of the first.
    """

    def __init__(self, names: Sequence[str], keys: dict[str, int], first: int = 0) -> None:
        self.keys = keys
        self.first = first
        self.help = keys_in_words(names, self.keys)

    def press(self, key: str) -> Request:
        if key in ("q", "escape", "end"):
            return "quit"
        if key == "r":
            return "restart"
        place = self.keys.get(key)
        return None if place is None else self.first + place

    def lines(self) -> list[str]:
        return [self.help, "r restart   q quit"]


class TextControls:
    """A line that is typed; Tab completes it, Enter sends it, and an empty one waits.

    Args:
        meanings: of the actions, in words.
        first: number of the first.
    """

    def __init__(self, meanings: Sequence[str], first: int = 0) -> None:
        self.commands = Commands(meanings)
        self.first = first
        self.typed = ""
        self.message = ""

    def press(self, key: str) -> Request:
        if key in ("escape", "end"):
            return "quit"
        if key == "enter":
            return self._send()
        self.message = ""
        if key == "backspace":
            self.typed = self.typed[:-1]
        elif key == "tab":
            self.typed = self.commands.complete(self.typed)
        elif key == "space":
            self.typed += " "
        elif len(key) == 1 and key.isprintable():
            self.typed += key
        return None

    def _send(self) -> Request:
        typed, self.typed = self.typed, ""
        match typed.strip():
            case "q" | "quit":
                return "quit"
            case "r" | "restart":
                return "restart"
        try:
            return self.first + self.commands.find(typed)
        except ValueError as error:
            self.message = str(error)
            return None

    def lines(self) -> list[str]:
        hint = self.message
        if not hint:
            hint = self.commands.hint(self.typed)
            if not hint and not any(word.startswith(self.typed.strip()) for word in ("quit", "restart")):
                hint = "there is no such action"
        waits = "" if self.commands.wait is None else "Enter alone waits   "
        return [f"> {self.typed}_", hint, f"Tab completes   {waits}r, Enter restart   q, Enter quit"]


def controls_for(env: gym.Env[Any, Any]) -> Controls:
    """Single keys for an environment's actions; typed text where they are sentences or more than keys.

    Raises:
        ValueError: actions are not discrete.
    """
    names = action_names(env)
    first = int(env.action_space.start)  # type: ignore[attr-defined]
    keys = None if isinstance(env.unwrapped, TextEnvironment) else keys_of_actions(names)
    return TextControls(names, first) if keys is None else KeyControls(names, keys, first)
