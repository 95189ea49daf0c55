"""A window on the screen for `render_mode="human"`."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pygame


class Window:
    """A window that shows pictures.

    Args:
        size: width and height of the pictures, in pixels.
        caption: what is written above.
        fps: pictures per second at the most; `show` waits as long as that takes.
    """

    def __init__(self, size: tuple[int, int], caption: str, fps: int) -> None:
        pygame.display.init()
        self._surface = pygame.display.set_mode(size)
        pygame.display.set_caption(caption)
        self._clock = pygame.time.Clock()
        self._fps = fps

    def get_size(self) -> tuple[int, int]:
        """Width and height."""
        return self._surface.get_size()

    def show(self, picture: npt.NDArray[np.uint8]) -> None:
        """Shows a picture (height, width, 3)."""
        self._surface.blit(pygame.surfarray.make_surface(picture.swapaxes(0, 1)), (0, 0))
        pygame.event.pump()
        self._clock.tick(self._fps)
        pygame.display.flip()

    def close(self) -> None:
        """Closes the window."""
        pygame.quit()


class HasWindow:
    """An environment that can show its pictures in a window."""

    metadata: dict[str, Any]
    window: Any = None
    """None, or the `Window` that is open."""

    def show(self, picture: npt.NDArray[np.uint8]) -> None:
        """Shows a picture (height, width, 3), in a new window if none is open."""
        if self.window is None:
            self.window = Window(picture.shape[1::-1], type(self).__name__, self.metadata["render_fps"])
        self.window.show(picture)

    def close(self) -> None:
        """Closes the window, if there is one; rendering again opens a new one."""
        if self.window is not None:
            self.window.close()
        self.window = None
