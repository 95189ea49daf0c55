"""Measurements in turns: what is compared runs alternately in one process, on one core.

What else the machine does then hits both sides of a ratio alike, and every pair of turns gives a ratio of
its own: their median and range are what is told.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

Rates = dict[str, list[float]]
"""What was measured -> a number for every turn."""
Turn = Callable[[], dict[str, float]]
"""Runs one turn; what was measured -> its number."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    turns: int
    quick: bool
    """Small sizes, to see that everything runs: the numbers say nothing."""

    def of(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True)
class Target:
    """What a row is meant to reach."""

    of: str
    """"ours" or "ratio"."""
    at_least: float = -math.inf
    at_most: float = math.inf

    def met(self, row: Row) -> bool:
        value = median(row.ours if self.of == "ours" else row.ratios)
        return self.at_least <= value <= self.at_most


@dataclass(frozen=True)
class Row:
    """One thing measured, beside a peer where it has one."""

    what: str
    ours: Sequence[float]
    """A number for every turn."""
    peer: str = ""
    theirs: Sequence[float] = ()
    target: Target | None = None

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, turn by turn."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]


@dataclass(frozen=True)
class Table:
    """Rows of one unit."""

    title: str
    unit: str
    rows: list[Row]
    ratio: str = "ratio"
    """What ours over theirs is called."""
    notes: list[str] = field(default_factory=list)


def in_turns(contestants: Mapping[str, Turn], turns: int, tell: Callable[[str], None]) -> dict[str, Rates]:
    """Lets everyone take a turn, `turns` times; who begins changes."""
    found: dict[str, Rates] = {name: {} for name in contestants}
    names = list(contestants)
    for turn in range(turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            for measure, number in contestants[name]().items():
                found[name].setdefault(measure, []).append(number)
        told = (f"{name} " + written(next(iter(found[name].values()))[-1]) for name in names)
        tell(f"turn {turn + 1} of {turns}: {', '.join(told)}")
    return found


class RolloutClock(BaseCallback):
    """Seconds spent in rollouts; the rest of `learn` is the update."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.begun = 0.0

    def _on_rollout_start(self) -> None:
        self.begun = time.perf_counter()

    def _on_rollout_end(self) -> None:
        self.seconds += time.perf_counter() - self.begun

    def _on_step(self) -> bool:
        return True


def learning(model: BaseAlgorithm, rollouts: int) -> Turn:
    """Turns of an SB3 agent that goes on training: steps/s of the whole loop, and of its rollouts alone."""

    def turn() -> dict[str, float]:
        clock, begun, before = RolloutClock(), time.perf_counter(), model.num_timesteps
        # A rollout more is begun as long as there are steps to go.
        steps = rollouts * model.n_steps * model.n_envs  # type: ignore[attr-defined]
        model.learn(steps, callback=clock, reset_num_timesteps=False)
        made = model.num_timesteps - before
        return {"training": made / (time.perf_counter() - begun), "acting": made / clock.seconds}

    return turn


def written(number: float) -> str:
    """To three digits."""
    if number >= 1e6:
        return f"{number / 1e6:.3g} M"
    if number >= 100:
        digits = 3 - len(str(int(number)))
        return f"{round(number, digits):,.0f}"
    return f"{number:.3g}"


def with_range(numbers: Sequence[float]) -> str:
    """Median [lowest .. highest]."""
    if len(numbers) == 1:
        return written(numbers[0])
    return f"{written(median(numbers))} [{written(min(numbers))} .. {written(max(numbers))}]"


def markdown(table: Table) -> str:
    """The table, its title before it and its notes after it."""
    with_peers = any(row.theirs for row in table.rows)
    with_targets = any(row.target for row in table.rows)
    head = ["what", f"ours, {table.unit}"]
    head += ["beside", f"theirs, {table.unit}", table.ratio] if with_peers else []
    head += ["target", "met"] if with_targets else []
    marks = ["---" if column in ("what", "beside", "met") else "--:" for column in head]
    lines = [" | ".join(head), "|".join(marks)]
    for row in table.rows:
        cells = [row.what, with_range(row.ours)]
        if with_peers:
            cells += [row.peer, with_range(row.theirs), with_range(row.ratios)] if row.theirs else 3 * [""]
        if with_targets:
            cells += _target_cells(row)
        lines.append(" | ".join(cells))
    text = "\n".join(f"| {line} |" if i != 1 else f"|{line}|" for i, line in enumerate(lines))
    notes = "".join(f"\n- {note}" for note in table.notes)
    return f"**{table.title}**\n\n{text}\n" + (f"{notes}\n" if notes else "")


def _target_cells(row: Row) -> list[str]:
    if row.target is None:
        return ["", ""]
    least, most = row.target.at_least, row.target.at_most
    limit = f">= {written(least)}" if math.isfinite(least) else f"<= {written(most)}"
    what = f"ratio {limit}" if row.target.of == "ratio" else limit
    return [what, "yes" if row.target.met(row) else "**no**"]
