"""`memspan play`: a person plays a task with the keyboard, in a window or in a terminal."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import tyro

from memspan.runs.environments import environment_spec
from memspan.runs.flags import chosen_settings, environment_flags
from memspan.show.controls import Controls, Request, controls_for
from memspan.show.environments import Render, View, episode_outcome, make_rendered_env, render_env, short
from memspan.show.screen import Screen, open_screen

INTERRUPTED = 130
DEFAULT_ENV = "memspan/Corridor-v0"


@dataclass(frozen=True)
class Options:
    """What to play, and how it is shown."""

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID")] = DEFAULT_ENV
    """Id of a Gymnasium environment with discrete actions, or module:id."""
    render: Render = "window"
    """In a window, or as text in this terminal, which also works over ssh."""
    view: View = "all"
    """Everything there is, or no more than the agent sees."""
    seed: int | None = None
    """Of the episodes; without one they are new every time."""

    def validate(self) -> None:
        """Raises ValueError that names the option, its value and what is allowed."""
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be at least 0")


@dataclass
class Tally:
    """Episodes that were played to their end."""

    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    successes: list[bool] = field(default_factory=list)
    """Of those episodes that told."""

    def __str__(self) -> str:
        n = len(self.returns)
        if n == 0:
            return "No episode was finished."
        parts = [f"{n} episode{'s' if n > 1 else ''}"]
        if self.successes:
            parts.append(f"{sum(self.successes)} of {len(self.successes)} solved")
        parts += [
            f"mean return {np.mean(self.returns):.2f}",
            f"mean length {np.mean(self.lengths):.1f} steps",
        ]
        return ", ".join(parts) + "."


def main(args: Sequence[str] | None = None) -> int:
    """Plays until the person has enough; returns the exit code.

    Raises:
        ValueError: an option is wrong, or there is no display.
    """
    options, env_kwargs = parse(list(sys.argv[1:] if args is None else args))
    options.validate()
    env = make_rendered_env(environment_spec(options.env), env_kwargs, options.render, options.view)
    tally, code = Tally(), 0
    try:
        controls = controls_for(env)
        with open_screen(options.render, f"memspan play {options.env}") as screen:
            play(env, screen, controls, tally, options)
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        env.close()
    print(tally)
    return code


def parse(args: list[str]) -> tuple[Options, dict[str, Any]]:
    """Options, and settings of the environment that differ from its defaults.

    Raises:
        ValueError: the environment is not known.
        SystemExit: help was asked for, or a flag is wrong.
    """
    env = next((arg for arg in args if not arg.startswith("-") and re.search(r"-v\d+$", arg)), None)
    if env is None:
        env = args[0] if args and not args[0].startswith("-") else DEFAULT_ENV
    spec = environment_spec(env)
    settings = environment_flags(spec, {})
    flags = dataclasses.make_dataclass(
        "Flags",
        [("options", Annotated[Options, tyro.conf.arg(name="")]), ("env", type(settings))],
    )
    parsed: Any = tyro.cli(
        flags,
        prog="memspan play",
        description=f"Play a task with the keyboard. What follows are the settings of {spec.id}.",
        default=flags(Options(), settings),
        args=args,
    )
    if parsed.options.env != env:  # without a version, and not first: its settings were not known in time
        raise ValueError(f"env={parsed.options.env!r}: must stand before all options")
    return parsed.options, chosen_settings(spec, parsed.env)


def play(env: gym.Env[Any, Any], screen: Screen, controls: Controls, tally: Tally, options: Options) -> None:
    """Plays episode after episode until the person quits.

    Args:
        env: from `make_rendered_env`.
        screen: shows it and has the keys.
        controls: what the keys mean.
        tally: gets what is finished.
        options: `seed` and `view` are read.
    """
    seed = options.seed
    request: Request = "restart"
    while request == "restart":
        observation, _ = env.reset(seed=seed)
        seed = None
        number, total, length, reward = len(tally.returns) + 1, 0.0, 0, 0.0
        outcome = ""
        while True:
            status = f"episode {number}   step {length}   reward {short(reward)}   return {short(total)}"
            below = [f"{outcome}   Enter: next episode   q: quit", ""] if outcome else controls.lines()
            screen.show(render_env(env, observation, options.view), [status, *below])
            request = _ask(screen, controls, ended=bool(outcome))
            if request is None:
                continue
            if isinstance(request, str):
                break
            observation, given, terminated, truncated, info = env.step(request)
            reward = float(given)
            total, length = total + reward, length + 1
            if terminated or truncated:
                success = info.get("success", info.get("is_success"))
                outcome = f"{episode_outcome(success, out_of_time=not terminated).capitalize()}."
                tally.returns.append(total)
                tally.lengths.append(length)
                if success is not None:
                    tally.successes.append(bool(success))


def _ask(screen: Screen, controls: Controls, ended: bool) -> Request:
    """What the next key asks for; when an episode has ended, to quit or to go on."""
    key = screen.key()
    assert key is not None
    if not ended:
        return controls.press(key)
    if key in ("q", "escape", "end"):
        return "quit"
    return "restart" if key in ("enter", "space", "r") else None
