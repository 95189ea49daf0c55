"""Environments by id: whether one exists, what can be set about it, and building it."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator

_SUPPORTED = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
_NOT_SETTINGS = {"self", "num_envs", "render_mode"}


def environment_spec(env: str) -> EnvSpec:
    """The registration of an id, after importing its module if it names one.

    Raises:
        ValueError: it is not registered; near matches are named.
    """
    module, colon, env_id = env.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(f"env={env!r}: {module!r} cannot be imported ({error})") from None
    if env_id in gym.registry:
        return gym.registry[env_id]
    near = difflib.get_close_matches(env_id, gym.registry, n=3, cutoff=0.6)
    own = [one for one in gym.registry if one.startswith("memspan/")]
    hint = f"did you mean {' or '.join(near)}?" if near else f"memspan has {', '.join(own)}"
    raise ValueError(f"env={env!r}: no Gymnasium environment has this id; {hint}")


def constructor(spec: EnvSpec) -> Callable[..., Any]:
    """What builds the environment: its vector form where there is one."""
    entry_point = spec.vector_entry_point or spec.entry_point
    assert entry_point is not None
    return load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point


def environment_settings(spec: EnvSpec) -> dict[str, inspect.Parameter]:
    """What can be set by name, with defaults as registered."""
    settings = {}
    for name, parameter in inspect.signature(constructor(spec), eval_str=False).parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and name not in _NOT_SETTINGS:
            settings[name] = parameter.replace(default=spec.kwargs.get(name, parameter.default))
    return settings


def check_settings(spec: EnvSpec, env_kwargs: Mapping[str, Any]) -> None:
    """Refuses names that the constructor does not know, unless it takes any.

    Raises:
        ValueError: names the setting and those there are.
    """
    known = environment_settings(spec)
    parameters = inspect.signature(constructor(spec)).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    for key, value in env_kwargs.items():
        if key not in known:
            raise ValueError(
                f"env.{key}={value!r}: {spec.id} has no such setting; it has {', '.join(known) or 'none'}"
            )


def build_vector_env(spec: EnvSpec, n_envs: int, env_kwargs: Mapping[str, Any]) -> gym.vector.VectorEnv:
    """The environment's own vector form, or copies of it stepped one after the other."""
    if spec.vector_entry_point is not None:
        return gym.make_vec(spec.id, n_envs, vectorization_mode="vector_entry_point", **env_kwargs)
    return gym.make_vec(
        spec.id,
        n_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP},
        wrappers=[without_text],  # type: ignore[list-item]  # returns the environment itself if it can
        **env_kwargs,
    )


def without_text(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Leaves out those parts of a Dict observation that are no numbers, like MiniGrid's mission."""
    space = env.observation_space
    if not isinstance(space, spaces.Dict):
        return env
    kept = [key for key, part in space.items() if isinstance(part, _SUPPORTED)]
    return env if len(kept) == len(space) else gym.wrappers.FilterObservation(env, kept)
