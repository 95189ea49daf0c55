"""How far back each task makes an agent remember: success of policies that know the last k steps only.

    python results/horizons.py docs/images

Plays the scripted policies of `memspan.envs` with horizons from 0 to more than is needed, prints a table and
draws one figure per task.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from rich.progress import track

from memspan.envs import (
    CorridorVectorEnv,
    InstructionVectorEnv,
    PortalVectorEnv,
    ScriptedCorridorPolicy,
    ScriptedInstructionPolicy,
    ScriptedPortalPolicy,
)
from memspan.envs.vector_engine import VectorEngine
from memspan.evaluation.looks import BLUE, GREY
from memspan.evaluation.panels import STYLE, save_figure

ENVS, EPISODES_EACH = 500, 8
Act = Callable[[npt.NDArray[Any], npt.NDArray[np.bool_]], npt.NDArray[Any]]


def corridor(horizon: int) -> tuple[VectorEngine, Act]:
    """Corridor-v0."""
    return CorridorVectorEnv(ENVS), ScriptedCorridorPolicy(horizon).act


def portal(horizon: int) -> tuple[VectorEngine, Act]:
    """Portal-v0."""
    return PortalVectorEnv(ENVS), ScriptedPortalPolicy(horizon=horizon).act


def instruction(horizon: int) -> tuple[VectorEngine, Act]:
    """Instruction-v0."""
    engine = InstructionVectorEnv(ENVS)
    return engine, ScriptedInstructionPolicy(engine.num_objects, horizon=horizon).act


TASKS: dict[str, tuple[Callable[[int], tuple[VectorEngine, Act]], list[int], float]] = {
    "Corridor-v0": (corridor, [0, *range(10, 211, 10)], 0.5),
    "Portal-v0": (portal, [0, 4, 7, 10, 13, 16, 19, 22, 25, 28, 40], 0.0065),
    "Instruction-v0": (instruction, [0, *range(5, 61, 5)], 1 / 16**3),
}
"""Task -> how to play it, horizons, best success without memory."""


def success(engine: VectorEngine, act: Act) -> float:
    """Over the same number of episodes of every environment."""
    observations, _ = engine.reset(seed=0)
    starts, left, wins = np.ones(ENVS, dtype=bool), np.full(ENVS, EPISODES_EACH), 0
    while left.any():
        observations, _, terminated, truncated, infos = engine.step(act(observations, starts))
        starts = terminated | truncated
        wins += int((infos["success"] & (left > 0)).sum())
        left -= starts & (left > 0)
    return wins / (ENVS * EPISODES_EACH)


def draw(task: str, horizons: list[int], found: list[float], memoryless: float) -> Figure:
    """Success over horizon."""
    with mpl.rc_context(STYLE):
        figure = Figure((6.0, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.axhline(memoryless, color=GREY, ls="--", lw=1.2)
        axes.annotate("best without memory", (max(horizons), memoryless), xytext=(0, 5),
                      textcoords="offset points", ha="right", color=GREY)  # fmt: skip
        axes.plot(horizons, found, "-o", color=BLUE, ms=4.5, lw=1.6)
        axes.set(title=f"memspan/{task}", ylim=(-0.02, 1.05), xlim=(0, None))
        axes.set(xlabel="steps that are remembered", ylabel="success rate")
        return figure


def main() -> None:
    """Plays, prints and draws."""
    if len(sys.argv) != 2:
        sys.exit("usage: python results/horizons.py FOLDER")
    folder = Path(sys.argv[1])
    for task, (make, horizons, memoryless) in TASKS.items():
        found = [success(*make(k)) for k in track(horizons, task)]
        print(task, ", ".join(f"{k}: {rate:.3f}" for k, rate in zip(horizons, found, strict=True)))
        save_figure(
            draw(task, horizons, found, memoryless), folder / f"horizon-{task.split('-')[0].lower()}.png"
        )


if __name__ == "__main__":
    main()
