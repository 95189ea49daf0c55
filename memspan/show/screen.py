"""Where things are shown and keys come from: a window, or the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from memspan.show.environments import Render
from memspan.show.terminal import TerminalScreen
from memspan.show.window import WindowScreen


class Screen(Protocol):
    """Shows drawings and has keys; a context manager that leaves all as it was."""

    has_keys: bool
    """Whether somebody can press keys."""
    shows_live: bool
    """Whether somebody looks on, so that a pace makes sense."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, drawing: npt.NDArray[np.uint8] | str, lines: Sequence[str]) -> None:
        """Draws in place of what was there.

        Args:
            drawing: a picture (height, width, 3), or lines of text.
            lines: of text, below it; the last one says what the keys do.
        """

    def key(self, seconds: float | None = None) -> str | None:
        """The next key: a character, or a name like "left" and "enter".

        Args:
            seconds: how long to wait; None: until there is one.

        Returns:
            None if there was none in time, "end" if there will be none any more.
        """


def open_screen(render: Render, title: str) -> Screen:
    """A screen to be used in a `with` statement.

    Args:
        render: which.
        title: of the window.

    Raises:
        ValueError: there is no display, or no such terminal.
    """
    if render == "window":
        return WindowScreen(title)
    return TerminalScreen()
