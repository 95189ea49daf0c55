"""Where an agent's episodes are, in tensors: to leave them in the middle and to go on. N environments.

agent.observation[.<part>]   (N, ...)  what was seen last
agent.episode_starts         (N,) bool
memory.<name>                (N, ...)  the memory's state, in as much space as it has taken
env.<name>                   see `VecEnvAdapter.get_snapshot`
random.<name>                see `memspan.agents.random_state`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecTransposeImage
from torch import Tensor

from memspan.agents.observe_previous import ObservePrevious
from memspan.agents.random_state import MAY_DIFFER, get_random_state, set_random_state
from memspan.agents.shares import own_rows
from memspan.agents.stored import check_like, check_shape, get_tensor, to_array, to_tensor
from memspan.agents.vec_env import VecEnvAdapter
from memspan.memory import State

if TYPE_CHECKING:
    from memspan.agents.base import MemoryAlgorithm

_HOLD_NOTHING = (ObservePrevious, VecTransposeImage)
"""Wrappers without anything of their own to save between steps."""


def take_episodes(model: MemoryAlgorithm) -> dict[str, Tensor]:
    """See the module's docstring; empty where the environments cannot save their state, or do not exist."""
    adapter = _adapter(model.env)
    env_state = None if adapter is None else adapter.get_snapshot()
    if env_state is None or model._last_obs is None:
        return {}
    seen = model._last_obs if isinstance(model._last_obs, dict) else {"": model._last_obs}
    tensors = {f"agent.observation{_dot(part)}": to_tensor(values) for part, values in seen.items()}
    tensors["agent.episode_starts"] = to_tensor(model._last_episode_starts)
    tensors |= {f"memory.{name}": value for name, value in (model._memory_state or {}).items()}
    tensors |= {f"env.{name}": to_tensor(values) for name, values in env_state.items()}
    return tensors | {f"random.{name}": value for name, value in get_random_state(model.device).items()}


def put_back_episodes(model: MemoryAlgorithm, tensors: Mapping[str, Tensor]) -> bool:
    """Has an agent that knows what was learnt go on in the middle of its episodes.

    Returns:
        False: nothing was changed, because there are no episodes in `tensors`, or because the environments
        cannot save their state.

    Raises:
        ValueError: a tensor is missing or does not fit.
    """
    adapter = _adapter(model.env)
    like = None if adapter is None else adapter.get_snapshot()
    if adapter is not None and model.processes.size > 1:
        tensors = own_rows(model.processes, tensors, adapter.num_envs)
    if adapter is None or like is None or not any(name.startswith("env.") for name in tensors):
        return False
    for name, values in like.items():
        check_like(tensors, f"env.{name}", to_tensor(values))
    env_state = {name: to_array(tensors[f"env.{name}"], values.dtype) for name, values in like.items()}
    seen = _observations(model, tensors)
    check_like(tensors, "agent.episode_starts", torch.ones(adapter.num_envs, dtype=torch.bool))
    memory_state = _memory_state(model, tensors)
    now = get_random_state(model.device)
    for name, value in now.items():
        if name not in MAY_DIFFER:
            check_like(tensors, f"random.{name}", value)
    stored = {name: tensors[f"random.{name}"] for name in now if f"random.{name}" in tensors}
    adapter.set_snapshot(env_state)
    set_random_state(stored, model.device)
    model._last_obs = seen.get("", seen)
    model._last_episode_starts = tensors["agent.episode_starts"].numpy()
    model._memory_state = memory_state
    return True


def _observations(model: MemoryAlgorithm, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Part -> (N, ...); "" is the part of what has none."""
    assert model.env is not None
    space = model.env.observation_space
    seen: dict[str, np.ndarray] = {}
    for part, subspace in space.items() if isinstance(space, spaces.Dict) else [("", space)]:
        name = f"agent.observation{_dot(part)}"
        assert subspace.shape is not None
        check_shape(name, get_tensor(tensors, name), (model.env.num_envs, *subspace.shape))
        seen[part] = to_array(tensors[name], subspace.dtype)
    return seen


def _memory_state(model: MemoryAlgorithm, tensors: Mapping[str, Tensor]) -> State:
    """Rows, type and number of dimensions are fixed; the space of each row grows and shrinks."""
    assert model.env is not None
    state = model.policy.memory.initial_state(model.env.num_envs, model.device)
    for name, first in state.items():
        value = get_tensor(tensors, f"memory.{name}")
        space = value.shape if value.ndim == first.ndim else first.shape
        check_like(tensors, f"memory.{name}", first.new_empty(len(first), *space[1:]))
        state[name] = value.to(model.device)
    return state


def _adapter(env: VecEnv | None) -> VecEnvAdapter | None:
    """Where the environments' state is, if all of it is there."""
    while isinstance(env, VecEnvWrapper) and isinstance(env, _HOLD_NOTHING):
        env = env.venv
    return env if isinstance(env, VecEnvAdapter) else None


def _dot(part: str) -> str:
    return f".{part}" if part else ""
