"""Environments in the form that can be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from minigrid.minigrid_env import MiniGridEnv

Render = Literal["window", "ansi"]
View = Literal["all", "agent"]


def make_world(
    spec: EnvSpec, env_kwargs: Mapping[str, Any], render: Render, view: View = "all"
) -> gym.Env[Any, Any]:
    """A single environment that draws itself: pictures for a window, text or else pictures for a terminal.

    Args:
        spec: its registration.
        env_kwargs: its settings.
        render: where it is shown.
        view: all that there is, or what the agent sees.

    Raises:
        ValueError: it refuses its settings, or cannot be shown that way.
    """
    try:
        with gym.make(spec, disable_env_checker=True, **env_kwargs) as silent:
            modes = silent.metadata.get("render_modes", [])
        wanted = ("ansi", "rgb_array") if render == "ansi" else ("rgb_array",)
        mode = next((one for one in wanted if one in modes), None)
        if mode is None:
            known = f"it draws {', '.join(map(str, modes)) or 'nothing'}"
            hint = "; use --render ansi" if "ansi" in modes else ""
            raise ValueError(
                f"render={render!r}: {spec.id} does not draw {' or '.join(wanted)}, {known}{hint}"
            )
        env: gym.Env[Any, Any] = gym.make(spec, render_mode=mode, disable_env_checker=True, **env_kwargs)
    except (TypeError, AssertionError, gym.error.Error) as error:
        raise ValueError(f"env={spec.id!r} with {dict(env_kwargs)}: {error}") from error
    if view == "agent":
        if isinstance(env.unwrapped, MiniGridEnv):
            env.unwrapped.agent_pov = True
        elif not hasattr(env.unwrapped, "decode"):
            raise ValueError(f"view='agent': {spec.id} has no drawing of what the agent sees; must be 'all'")
    return env


def draw_world(env: gym.Env[Any, Any], observation: Any, view: View) -> Any:
    """What `make_world`'s environment shows now: a picture (height, width, 3) or text."""
    inside: Any = env.unwrapped
    if view == "agent" and not isinstance(inside, MiniGridEnv):
        return str(inside.decode(observation))
    return env.render()
