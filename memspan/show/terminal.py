"""A terminal: pictures of text drawn in place, and keys as they are pressed."""

from __future__ import annotations

import codecs
import os
import re
import select
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from memspan.envs.ansi import AGENT_SIGNS

if sys.platform != "win32":
    import termios
    import tty

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ENTER_SCREEN, LEAVE_SCREEN = "\x1b[?1049h\x1b[?25l\x1b[2J", "\x1b[?25h\x1b[?1049l"
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}
_NAMED = {
    "\r": "enter",
    "\n": "enter",
    "\t": "tab",
    " ": "space",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x1b": "escape",
    "\x04": "end",
}
END = "end"
"""The key that is read when there will be no more: input has ended."""
PRESENT_LINE = "> "
"""What a page of Instruction has before the present sentence."""
LEAST_ROWS = 4
"""Rows of a drawing that lines of text below it leave room for: a title and the three around the agent."""
ESCAPE_SECONDS = 0.05
"""How long the rest of an escape sequence may take; else the key was Escape itself."""


def plain(text: str) -> str:
    """Text without codes for colours and the like."""
    return CODES.sub("", text)


def blocks(picture: npt.NDArray[np.uint8], columns: int, lines: int) -> list[str]:
    """A picture as lines of half blocks, two pixels a character; for what has no text of its own."""
    height, width = picture.shape[:2]
    scale = min(columns / width, 2 * lines / height, 1.0)
    size = max(round(width * scale), 1), max(2 * round(height * scale / 2), 2)
    small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    # The terminal's cube of 216 colours: truecolour is not known everywhere.
    cube = 16 + np.rint(small[..., :3] / 51).astype(int) @ np.array([36, 6, 1])
    rows = []
    for upper, lower in zip(cube[::2], cube[1::2], strict=True):
        cells = (f"\x1b[38;5;{a};48;5;{b}m▀" for a, b in zip(upper, lower, strict=True))
        rows.append("".join(cells) + "\x1b[0m")
    return rows


def fold(line: str, columns: int) -> list[str]:
    """A line in pieces that fit; plain text between words, what has colours anywhere."""
    if len(plain(line)) <= columns:
        return [line]
    if "\x1b" not in line:
        return textwrap.wrap(line, columns, subsequent_indent="        ") or [""]
    pieces, width = [""], 0
    for part in re.findall(rf"{CODES.pattern}|.", line):
        if not part.startswith("\x1b"):
            if width == columns:
                pieces, width = [*pieces, ""], 0
            width += 1
        pieces[-1] += part
    return pieces


def around_agent(rows: Sequence[str], room: int) -> list[str]:
    """As many rows as there is room for: the first, which may be a title, and those around the agent."""
    signs = [sign.strip() for sign in AGENT_SIGNS]

    def has_agent(row: str) -> bool:
        return plain(row).startswith(PRESENT_LINE) or any(sign in row for sign in signs)

    here = next((i for i, row in enumerate(rows) if has_agent(row)), 0)
    kept = room - 1
    start = max(min(here - kept // 2, len(rows) - kept), 1)
    return [rows[0], *rows[start : start + kept]]


class TerminalScreen:
    """Shows text in place of what was there, and reads keys; a context manager that leaves all as it was.

    Where output is no terminal, pictures follow each other as plain text; where input is none, its
    characters are the keys.

    Args:
        output: where to; None: standard output.
        input_: file descriptor of keys; None: standard input's.

    Raises:
        ValueError: Windows, whose terminals give their keys in a way of their own.
    """

    def __init__(self, output: TextIO | None = None, input_: int | None = None) -> None:
        if sys.platform == "win32":
            raise ValueError("render='ansi': keys cannot be read from terminals of Windows; must be 'window'")
        self.output = output or sys.stdout
        self.input = sys.stdin.fileno() if input_ is None else input_
        self.is_terminal = self.output.isatty()
        self.coloured = self.is_terminal and not os.environ.get("NO_COLOR")
        self.has_keys = os.isatty(self.input)
        self.shows_live = self.is_terminal
        self._settings: list[Any] | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting = ""
        self._ended = False

    def __enter__(self) -> TerminalScreen:
        if os.isatty(self.input):
            self._settings = termios.tcgetattr(self.input)
            tty.setcbreak(self.input)  # not raw: Ctrl-C still interrupts
        try:
            if self.is_terminal:
                self._write(ENTER_SCREEN)
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if self.is_terminal:
            self._write(LEAVE_SCREEN)

    def _restore(self) -> None:
        if self._settings is not None:
            termios.tcsetattr(self.input, termios.TCSADRAIN, self._settings)
            self._settings = None

    def show(self, drawing: npt.NDArray[np.uint8] | str, lines: Sequence[str]) -> None:
        """Shows a drawing, and lines of text below it.

        Where the screen is too low for both, a drawing of text loses the rows that are far from the agent,
        down to `LEAST_ROWS`; and then the lines go, from the last but one upwards: the last says what the
        keys do.

        Args:
            drawing: lines of text, or a picture (height, width, 3).
            lines: below it.
        """
        size = shutil.get_terminal_size() if self.is_terminal else os.terminal_size((80, 1000))
        lines = [piece for line in lines for piece in fold(line, size.columns)]
        if len(lines) > (most := max(size.lines - LEAST_ROWS - 1, 1)):
            lines = [*lines[: most - 1], lines[-1]]
        room = max(size.lines - len(lines) - 1, 1)
        if isinstance(drawing, str):
            rows = [piece for row in drawing.rstrip("\n").split("\n") for piece in fold(row, size.columns)]
        else:
            rows = blocks(drawing, size.columns, room)
        shown = [*(rows if len(rows) <= room else around_agent(rows, room)), "", *lines]
        if not self.coloured:
            shown = [plain(line) for line in shown]
        if self.is_terminal:
            self._write(HOME + "\n".join(line + CLEAR_LINE for line in shown[: size.lines]) + CLEAR_BELOW)
        else:
            self._write("\n".join(shown) + "\n\n")

    def _write(self, text: str) -> None:
        self.output.write(text)
        self.output.flush()

    def key(self, seconds: float | None = None) -> str | None:
        """The next key: a character, or a name like "left" and "enter".

        Args:
            seconds: how long to wait; None: until there is one.

        Returns:
            None if there was none in time, "end" if there will be none any more.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._waiting:
            if self._ended:
                return END
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not self._read(left):
                return None
        return self._take()

    def _read(self, seconds: float | None) -> bool:
        """Waits for more characters; False if none came."""
        if not select.select([self.input], [], [], seconds)[0]:
            return False
        data = os.read(self.input, 1024)
        self._ended = not data
        self._waiting += self._decoder.decode(data)
        return True

    def _take(self) -> str:
        """Takes one key off the characters that wait."""
        if self._waiting[0] == "\x1b":
            while len(self._waiting) < 3 and not self._ended and self._read(ESCAPE_SECONDS):
                pass
            match = re.match(r"\x1b[\[O][0-9;]*([A-Za-z~])", self._waiting)
            if match:
                self._waiting = self._waiting[match.end() :]
                return _ARROWS.get(match[1], "unknown")
        character, self._waiting = self._waiting[0], self._waiting[1:]
        return _NAMED.get(character, character)
