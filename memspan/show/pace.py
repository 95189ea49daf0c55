"""How fast a show runs, and what those who watch it can do about that."""

from __future__ import annotations

import time

from memspan.show.screen import Screen

MOST_FPS, LEAST_FPS = 50.0, 0.2
FASTER = 1.5


class Pace:
    """Steps per second; paused, sped up and ended by keys.

    Args:
        fps: to begin with.
    """

    def __init__(self, fps: float) -> None:
        self.fps = fps
        self.paused = False

    def wait(self, screen: Screen, hold: float = 0.0) -> bool:
        """Waits for the next step; False if there is to be none.

        Args:
            screen: where it is shown; one that is not live is not waited for.
            hold: seconds to wait longer than usual.
        """
        if not screen.has_keys:
            if screen.shows_live:
                time.sleep(1 / self.fps + hold)
            return True
        end = time.monotonic() + 1 / self.fps + hold
        while True:
            left = None if self.paused else end - time.monotonic()
            if left is not None and left <= 0:
                return True
            match screen.key(left):
                case "q" | "escape" | "end":
                    return False
                case "space":
                    self.paused = not self.paused
                case "right":
                    self.paused = True
                    return True
                case "+" | "=":
                    self.fps = min(self.fps * FASTER, MOST_FPS)
                case "-":
                    self.fps = max(self.fps / FASTER, LEAST_FPS)
                case _:
                    pass
