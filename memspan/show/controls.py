"""From keys to actions: single keys, or a line of text with completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from memspan.show.actions import Commands, keys_in_words, keys_of_actions

Asked = int | Literal["quit", "restart"] | None
"""The number of an action, or what else was asked for."""


class Controls(Protocol):
    """What stands between a keyboard and an environment."""

    def press(self, key: str) -> Asked:
        """What a key asks for, if anything yet."""

    def lines(self) -> list[str]:
        """What to show below the picture."""


class KeyControls:
    """One key, one action.

    Args:
        names: of the actions.
        first: number of the first.
    """

    def __init__(self, names: Sequence[str], first: int = 0) -> None:
        self.keys = keys_of_actions(names)
        self.first = first
        self.help = keys_in_words(names, self.keys)

    def press(self, key: str) -> Asked:
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

    def press(self, key: str) -> Asked:
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

    def _send(self) -> Asked:
        typed, self.typed = self.typed, ""
        if typed.strip() in ("q", "quit"):
            return "quit"
        if typed.strip() in ("r", "restart"):
            return "restart"
        try:
            return self.first + self.commands.find(typed)
        except ValueError as error:
            self.message = str(error)
            return None

    def lines(self) -> list[str]:
        hint = self.message
        if self.typed.strip() and not hint:
            hint = self.commands.hint(self.typed) or "there is no such action"
        waits = "" if self.commands.wait is None else "Enter alone waits   "
        return [f"> {self.typed}_", hint, f"Tab completes   {waits}r, Enter restart   q, Enter quit"]
