"""How a run is going, on the terminal: a live display, or a line now and then where there is no terminal."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from stable_baselines3.common.callbacks import BaseCallback

from memspan.runs.callbacks import recent_return, recent_success

if TYPE_CHECKING:
    from memspan.agents import MemoryPPO

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_FRAMES = 0.25
ROLLOUTS_OF_SPEED = 8
UNKNOWN = "-"


def short_count(count: float) -> str:
    """12, 3.45k, 1.20M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.2f}{letter}"
    return f"{count:.0f}"


def short_time(seconds: float | None) -> str:
    """1:05, 2:01:05."""
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _number(value: float | None, decimals: int) -> str:
    return UNKNOWN if value is None else f"{value:.{decimals}f}"


class ProgressCallback(BaseCallback):
    """Shows progress, speed, time left, success rate, effective memory and mean return.

    Args:
        title: first line of the display.
        console: where to; a live display if it is a terminal, else plain lines.
    """

    model: MemoryPPO

    def __init__(self, title: str, console: Console) -> None:
        super().__init__()
        self.title = title
        self.console = console
        self.effective_memory: float | None = None
        self._live: Live | None = None
        self._next = 0.0
        # (time, timesteps) when rollouts began: speed is measured over whole rounds of acting and learning.
        self._rounds: deque[tuple[float, int]] = deque(maxlen=ROLLOUTS_OF_SPEED + 1)

    def _on_training_start(self) -> None:
        self._start = time.monotonic(), self.model.num_timesteps
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(self._frame(), console=self.console, auto_refresh=False)
            self._live.start(refresh=True)
        else:
            self._print(self.title)
            self._next = self._start[0] + SECONDS_BETWEEN_LINES

    def _on_rollout_start(self) -> None:
        self._rounds.append((time.monotonic(), self.model.num_timesteps))

    def _on_step(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return True
        if self._live is not None:
            self._live.update(self._frame(), refresh=True)
            self._next = now + SECONDS_BETWEEN_FRAMES
        else:
            self._print(self._line())
            self._next = now + SECONDS_BETWEEN_LINES
        return True

    def _on_rollout_end(self) -> None:
        self.effective_memory = float(self.logger.name_to_value["memory/effective_memory"])

    def close(self) -> None:
        """Leaves the display standing as it is at last."""
        if self._live is not None:
            self._live.update(self._frame(), refresh=True)
            self._live.stop()
            self._live = None

    @property
    def overall_speed(self) -> float:
        """Timesteps per second since the start."""
        return (self.model.num_timesteps - self._start[1]) / max(time.monotonic() - self._start[0], 1e-9)

    def _speed(self) -> float:
        if len(self._rounds) < 2:
            return self.overall_speed
        (start, first), (end, last) = self._rounds[0], self._rounds[-1]
        return (last - first) / max(end - start, 1e-9)

    def _status(self) -> tuple[float, str, str, str]:
        """Share done, and in words: steps, speed, time left."""
        now, total, speed = self.model.num_timesteps, self.model._total_timesteps, self._speed()
        left = max(total - now, 0) / speed if speed else None
        return (
            min(now / total, 1.0),
            f"{short_count(now)} of {short_count(total)} steps",
            f"{short_count(speed)} steps/s" if speed else f"{UNKNOWN} steps/s",
            f"{short_time(left)} left",
        )

    def _numbers(self) -> list[tuple[str, str]]:
        capacity = self.model.policy.memory.capacity
        return [
            ("success", _number(recent_success(self.model), 3)),
            ("effective memory", f"{_number(self.effective_memory, 1)} of {capacity:.0f}"),
            ("mean return", _number(recent_return(self.model), 2)),
        ]

    def _line(self) -> str:
        done, *words = self._status()
        numbers = [f"{label} {value}" for label, value in self._numbers()]
        return ", ".join([f"{done:4.0%}", *words, *numbers])

    def _print(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)
        self.console.file.flush()

    def _frame(self) -> Group:
        done, steps, speed, left = self._status()
        bar = Table.grid(padding=(0, 2, 0, 0))
        bar.add_row(
            ProgressBar(total=1.0, completed=done, width=24),
            Text(f"{done:.0%}", "bold", no_wrap=True),
            Text(steps, no_wrap=True),
            Text(speed, "dim", no_wrap=True),
            Text(left, "dim", no_wrap=True),
        )
        numbers = Text("   ").join(
            Text.assemble((f"{label} ", "dim"), (value, "bold cyan")) for label, value in self._numbers()
        )
        return Group(Text(self.title, overflow="ellipsis", no_wrap=True), bar, numbers)
