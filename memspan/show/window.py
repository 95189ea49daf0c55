"""A window: the environment's picture, lines of text below it, and keys as they are pressed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pygame

from memspan.envs.drawing import write
from memspan.show.pictures import MARGIN, MIN_WIDTH, blank, centred, enlarge

LINE_HEIGHT = 22
TEXT_SIZE = 15
SECONDS_BETWEEN_LOOKS = 0.05
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
_KEYS = {
    pygame.K_LEFT: "left",
    pygame.K_RIGHT: "right",
    pygame.K_UP: "up",
    pygame.K_DOWN: "down",
    pygame.K_RETURN: "enter",
    pygame.K_KP_ENTER: "enter",
    pygame.K_TAB: "tab",
    pygame.K_SPACE: "space",
    pygame.K_BACKSPACE: "backspace",
    pygame.K_ESCAPE: "escape",
}


class WindowScreen:
    """A window of pygame; a context manager that closes it.

    Args:
        title: what stands above it.

    Raises:
        ValueError: there is no display.
    """

    def __init__(self, title: str) -> None:
        # SDL would go on without a window, with a driver that draws nowhere.
        if sys.platform == "linux" and not any(os.environ.get(name) for name in _DISPLAYS):
            raise _no_display("neither DISPLAY nor WAYLAND_DISPLAY is set")
        try:
            pygame.display.init()
            pygame.display.set_caption(title)
            pygame.key.set_repeat(350, 60)
        except pygame.error as error:
            raise _no_display(error) from None
        self._surface: pygame.Surface | None = None

    def __enter__(self) -> WindowScreen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pygame.display.quit()

    has_keys = True
    shows_live = True

    def show(self, drawing: npt.NDArray[np.uint8] | str, lines: Sequence[str]) -> None:
        """Shows a drawing and lines of text below it; the window takes the size that this needs."""
        if isinstance(drawing, str):
            lines = [*drawing.splitlines(), "", *lines]
            picture = blank(0, MIN_WIDTH)
        else:
            picture = centred(enlarge(drawing), MIN_WIDTH)
        band = blank(len(lines) * LINE_HEIGHT + MARGIN if lines else 0, picture.shape[1])
        for i, line in enumerate(lines):
            if line:
                write(band, line, MARGIN, MARGIN // 2 + i * LINE_HEIGHT, TEXT_SIZE)
        whole = np.concatenate([picture, band])
        size = whole.shape[1], whole.shape[0]
        if self._surface is None or self._surface.get_size() != size:
            try:
                self._surface = pygame.display.set_mode(size)
            except pygame.error as error:
                raise _no_display(error) from None
        self._surface.blit(pygame.surfarray.make_surface(whole.swapaxes(0, 1)), (0, 0))
        pygame.display.flip()

    def key(self, seconds: float | None = None) -> str | None:
        """The next key: a character, or a name like "left" and "enter".

        Args:
            seconds: how long to wait; None: until there is one.

        Returns:
            None if there was none in time, "end" if the window was closed.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            # One by one: those behind it wait for the next call.
            while (event := pygame.event.poll()).type != pygame.NOEVENT:
                if event.type == pygame.QUIT:
                    return "end"
                if event.type == pygame.KEYDOWN and (key := _KEYS.get(event.key) or event.unicode):
                    return str(key)
                if event.type in (pygame.WINDOWEXPOSED, pygame.WINDOWSIZECHANGED):
                    pygame.display.flip()
            left = SECONDS_BETWEEN_LOOKS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return None
            # Looking again and again, instead of waiting in C, lets Ctrl-C in the terminal through.
            time.sleep(min(left, SECONDS_BETWEEN_LOOKS))


def _no_display(error: object) -> ValueError:
    return ValueError(f"render='window': no display for a window ({error}); use --render ansi")
