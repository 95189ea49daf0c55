"""Environments in the form that can be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec
from minigrid.minigrid_env import MiniGridEnv

Render = Literal["window", "ansi"]
View = Literal["all", "agent"]


@runtime_checkable
class TextEnvironment(Protocol):
    """An environment whose observations are words and whose actions are said in words, like Instruction."""

    vocabulary: Sequence[str]

    def decode(self, observations: npt.NDArray[np.int64]) -> str | list[str]:
        """The sentence of one observation (W,)."""

    def action_meaning(self, action: int) -> str:
        """What an action does, in words."""


def make_rendered_env(
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
        elif not isinstance(env.unwrapped, TextEnvironment):
            raise ValueError(f"view='agent': {spec.id} has no drawing of what the agent sees; must be 'all'")
    return env


def render_env(env: gym.Env[Any, Any], observation: Any, view: View) -> Any:
    """What `make_rendered_env`'s environment shows now: a picture (height, width, 3) or text."""
    if view == "agent" and isinstance(env.unwrapped, TextEnvironment):
        return str(env.unwrapped.decode(observation))
    return env.render()


def short(reward: float) -> str:
    """A reward or a return with two decimals at most."""
    return f"{round(reward, 2):g}"


def episode_outcome(success: bool | None, out_of_time: bool) -> str:
    """How an episode ended, in words.

    Args:
        success: None where the environment does not tell.
        out_of_time: whether it was cut.
    """
    if success is None:
        return "out of time" if out_of_time else "ended"
    return "success" if success else "failed: out of time" if out_of_time else "failed"
