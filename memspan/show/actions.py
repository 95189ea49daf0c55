"""What actions are called, and which keys or words ask for them."""

from __future__ import annotations

import string
from collections.abc import Sequence
from enum import EnumMeta
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from memspan.show.environments import TextEnvironment

KEYS: dict[str, tuple[str, ...]] = {
    "left": ("left", "h", "a"),
    "right": ("right", "l", "d"),
    "up": ("up", "k", "w"),
    "down": ("down", "j", "s"),
    "forward": ("up", "k", "w"),
    "pickup": ("p",),
    "drop": ("o",),
    "toggle": ("space", "t"),
    "noop": (".",),
    "wait": (".",),
}
"""Name of an action, in small letters -> keys that ask for it. Others get a free letter of their name."""

TAKEN = ("q", "r")
"""Keys with a meaning in every task: quit and restart."""

ARTICLES = ("a", "an", "the")


def action_names(env: gym.Env[Any, Any]) -> list[str]:
    """The names of all actions; numbers where the environment has none.

    Raises:
        ValueError: actions are not discrete.
    """
    space = env.action_space
    if not isinstance(space, spaces.Discrete):
        raise ValueError(f"env={env.spec.id if env.spec else env!s}: has no discrete actions, but {space}")
    numbers = range(int(space.start), int(space.start + space.n))
    inside: Any = env.unwrapped
    if isinstance(inside, TextEnvironment):
        return [str(inside.action_meaning(number)) for number in numbers]
    if isinstance(names := getattr(inside, "actions", None), EnumMeta):
        known = {int(one.value): str(one.name) for one in names}  # type: ignore[var-annotated]
        return [known.get(number, str(number)) for number in numbers]
    if hasattr(inside, "get_action_meanings"):  # Atari
        return [str(name).lower() for name in inside.get_action_meanings()]
    return [str(number) for number in numbers]


def keys_of_actions(names: Sequence[str]) -> dict[str, int] | None:
    """Key -> position in `names`; None if there are more actions than keys.

    Names in `KEYS` have those keys, names of one character that character, other words a letter of their own
    or else any letter or digit that is free.
    """
    lower = [name.lower() for name in names]
    if any(name.isdigit() and len(name) > 1 for name in lower):
        return None  # some numbers as they are and others as letters would confuse
    keys: dict[str, int] = {}
    for place, name in enumerate(lower):
        itself = (name,) if len(name) == 1 and name.isalnum() and name not in TAKEN else ()
        for own in KEYS.get(name, itself):
            keys.setdefault(own, place)
    for place, name in enumerate(lower):
        if place not in keys.values():
            letters = [*name, *string.digits, *string.ascii_lowercase]
            free = (one for one in letters if one.isalnum() and one not in keys and one not in TAKEN)
            if (key := next(free, None)) is None:
                return None
            keys[key] = place
    return keys


def keys_in_words(names: Sequence[str], keys: dict[str, int]) -> str:
    """Which keys do what, on one line."""
    arrows = {"left", "right", "up", "down"}
    parts = []
    for place, name in enumerate(names):
        mine = ["arrow" if key in arrows else key for key, other in keys.items() if other == place]
        parts.append(f"{name}: {', '.join(mine)}")
    return "   ".join(parts)


class Commands:
    """Actions by what a person types: every word may be cut short.

    Args:
        meanings: what each action does, in words.
    """

    def __init__(self, meanings: Sequence[str]) -> None:
        self.meanings = list(meanings)
        self.wait = next((i for i, meaning in enumerate(self.meanings) if meaning.lower() == "wait"), None)

    def matches(self, typed: str) -> list[int]:
        """Places of the actions whose words begin with those typed; an exact match rules out others."""
        words = _words(typed)
        found = []
        for place, meaning in enumerate(self.meanings):
            parts = _words(meaning)
            if parts == words:
                return [place]
            if len(words) <= len(parts) and all(map(str.startswith, parts, words)):
                found.append(place)
        return found

    def find(self, typed: str) -> int:
        """The action that is meant.

        Raises:
            ValueError: none or several; says which.
        """
        if not typed.strip() and self.wait is not None:
            return self.wait
        found = self.matches(typed)
        if len(found) == 1:
            return found[0]
        raise ValueError(
            f"{typed.strip()!r}: {f'which of {self.hint(typed)}' if found else 'there is no such action'}"
        )

    def hint(self, typed: str, most: int = 6) -> str:
        """What could be meant: the next words if there are too many actions."""
        found = [" ".join(_words(self.meanings[place])) for place in self.matches(typed)]
        if len(found) <= most:
            return ", ".join(found)
        n_words = len(_words(typed)) + (typed.endswith(" ") or not typed)
        options = list(dict.fromkeys(" ".join(one.split()[:n_words]) for one in found))
        more = ", ..." if len(options) > 3 * most else ""
        return ", ".join(options[: 3 * most]) + more

    def complete(self, typed: str) -> str:
        """What was typed, with every word written out as far as only one is possible."""
        words = _words(typed)
        found = [_words(self.meanings[place]) for place in self.matches(typed)]
        if not words or not found:
            return typed
        done = []
        for i in range(max(map(len, found))):
            options = {one[i] for one in found if i < len(one)}
            if len(options) == 1 and (i < len(words) or len(found) == 1):
                done.append(options.pop())
            elif i < len(words):
                done.append(_common_start(sorted(options)))
                return " ".join([*done, *words[i + 1 :]])
            else:
                return " ".join(done) + " "
        return " ".join(done)


def _words(text: str) -> list[str]:
    """In small letters, without articles, which nobody wants to type."""
    return [word for word in text.lower().split() if word not in ARTICLES]


def _common_start(words: Sequence[str]) -> str:
    length = 0
    for letters in zip(*words, strict=False):
        if len(set(letters)) > 1:
            break
        length += 1
    return words[0][:length]
