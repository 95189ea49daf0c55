"""Records an episode of each task, played by the policy that remembers all that is needed.

    python docs/animations.py       # writes docs/images/NAME.gif

Layouts come from fixed seeds, so that the same pictures come out again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

import memspan  # noqa: F401  (registers the ids)
from memspan.envs import ScriptedCorridorPolicy, ScriptedInstructionPolicy, ScriptedPortalPolicy

IMAGES = Path(__file__).parent / "images"
HOLD = 2.0
"""Seconds for which the end of an episode is shown."""
COLOURS = 32
"""Enough for flat colours and text; a page of text would take a megabyte with more."""
Act = Callable[[Any, Any], Any]
EPISODES: dict[str, tuple[str, dict[str, Any], Callable[[], Act], list[dict[str, Any]], float]] = {
    "corridor": (
        "Corridor-v0",
        {"max_length": 20},
        lambda: ScriptedCorridorPolicy().act,
        [{"length": 20, "cue": "blue"}, {"length": 12, "cue": "red"}],
        6.0,
    ),
    "portal": (
        "Portal-v0",
        {"num_rooms": 4},
        lambda: ScriptedPortalPolicy(num_rooms=4).act,
        [{"right_door": ["west", "east", "east"]}],
        4.0,
    ),
    "instruction": (
        "InstructionSmall-v0",
        {"max_gap": 8, "min_delay": 4, "max_delay": 10},
        lambda: ScriptedInstructionPolicy(num_objects=2).act,
        [{"instructions": [("clean", "lamp"), ("carry", "chest")]}],
        1.0,
    ),
}
"""File -> environment, its settings, the policy, what each episode begins with, steps per second."""


def record(name: str, path: Path) -> list[bool]:
    """Writes the animation of a task; returns for each episode whether it was a success."""
    task, settings, make_policy, begins, fps = EPISODES[name]
    env = gym.make(f"memspan/{task}", render_mode="rgb_array", **settings)
    outcomes, pictures, seconds = [], [], []
    for seed, options in enumerate(begins):
        act, over, start = make_policy(), False, True
        observation, info = env.reset(seed=seed, options=options)
        pictures.append(env.render())
        seconds.append(1 / fps)
        while not over:
            action = act(np.asarray([observation]), np.array([start]))[0]
            observation, _, terminated, truncated, info = env.step(action)
            over, start = terminated or truncated, False
            pictures.append(env.render())
            seconds.append(HOLD if over else 1 / fps)
        outcomes.append(bool(info["success"]))
    save(pictures, seconds, path)
    env.close()
    return outcomes


def save(pictures: list[Any], seconds: list[float], path: Path) -> None:
    """Writes a GIF whose pictures share their colours."""
    palette = Image.fromarray(np.concatenate(pictures)).quantize(COLOURS)
    first, *rest = [
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures
    ]
    milliseconds = [round(1000 * one) for one in seconds]
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0, optimize=True)


def main() -> int:
    """Records all tasks anew."""
    for name in EPISODES:
        path = IMAGES / f"{name}.gif"
        path.unlink(missing_ok=True)
        outcomes = record(name, path)
        print(f"{path}: {path.stat().st_size / 1024:.0f} KiB, success {outcomes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
