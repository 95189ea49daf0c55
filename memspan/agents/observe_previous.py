"""Observations that tell what was done last, and what it brought."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

ACTION, REWARD, REST = "previous_action", "previous_reward", "observation"


class ObservePrevious(VecEnvWrapper):
    """Adds the previous step's action and reward to the observations; both are 0 at an episode's start.

    Tasks where the *consequence* of an action has to be remembered need this: a memory of observations alone
    would have to infer what was done from how the observations changed.

    Observations become a Dict: the parts of the environment's own (or `observation`, where it is no Dict),
    `previous_action`, one-hot where actions are discrete, and `previous_reward` (1,).

    Args:
        venv: the environments.

    Raises:
        ValueError: the environment's own Dict has one of these keys already.
    """

    def __init__(self, venv: VecEnv) -> None:
        own = venv.observation_space
        parts = dict(own.spaces) if isinstance(own, spaces.Dict) else {REST: own}
        for key in (ACTION, REWARD):
            if key in parts:
                raise ValueError(f"observation_space: has a part named {key!r} already")
        self._n_values = _n_values(venv.action_space)
        n_floats = sum(self._n_values) or spaces.flatdim(venv.action_space)
        parts[ACTION] = spaces.Box(-np.inf, np.inf, (n_floats,), np.float32)
        parts[REWARD] = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self._actions = np.zeros((venv.num_envs, n_floats), dtype=np.float32)
        super().__init__(venv, spaces.Dict(parts))

    def reset(self) -> VecEnvObs:
        observations = self.venv.reset()
        zeros = np.zeros_like(self._actions)
        return self._join(observations, zeros, zeros[:, :1])

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = self._as_floats(np.asarray(actions))
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        actions, told = self._actions, np.asarray(rewards, dtype=np.float32)[:, None]
        for row in np.flatnonzero(dones):
            last = self._join(infos[row]["terminal_observation"], actions[row], told[row])
            infos[row]["terminal_observation"] = last
        going = ~np.asarray(dones, dtype=bool)[:, None]
        return self._join(observations, actions * going, told * going), rewards, dones, infos

    def _join(self, observations: Any, actions: np.ndarray, rewards: np.ndarray) -> dict[str, np.ndarray]:
        parts = observations if isinstance(observations, dict) else {REST: observations}
        return {**parts, ACTION: actions, REWARD: rewards}

    def _as_floats(self, actions: np.ndarray) -> np.ndarray:
        """(B, floats) of actions (B, ...), in an array of its own."""
        columns = actions.reshape(len(actions), -1)
        if not self._n_values:
            return columns.astype(np.float32)
        lowest = np.ravel(self.action_space.start)  # type: ignore[attr-defined]
        first = np.cumsum([0, *self._n_values[:-1]])
        one_hot = np.zeros_like(self._actions)
        one_hot[np.arange(len(actions))[:, None], columns - lowest + first] = 1
        return one_hot


def _n_values(space: spaces.Space) -> list[int]:
    """How many values each of a discrete space's numbers can take; none for other spaces."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.ravel()]
    return []
