"""A window on the screen for `render_mode="human"`."""

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
