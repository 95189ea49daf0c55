"""What the agents share: rollouts with a memory, on Stable-Baselines3's on-policy algorithm."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import (
    FloatSchedule,
)
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage

from memspan.agents.buffer import MemoryDictRolloutBuffer, MemoryRolloutBuffer
from memspan.agents.distributed import Processes
from memspan.agents.features import is_symbolic
from memspan.agents.masks import check_masked
from memspan.agents.policy import MemoryPolicy
from memspan.agents.shares import Ended
from memspan.agents.updates import Updates
from memspan.agents.vec_env import VecEnvAdapter
from memspan.memory import State, make_config

ACTION_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
ON_NAN = ("stop", "skip")
Self = TypeVar("Self", bound="MemoryAlgorithm")


class MemoryAlgorithm(Updates):
    """Collects rollouts with a memory; subclasses say how to learn from them."""

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = dict.fromkeys(
        ("MemoryPolicy", "MlpPolicy", "CnnPolicy", "MultiInputPolicy"), MemoryPolicy
    )

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | gym.vector.VectorEnv | str | None,
        memory: str,
        memory_kwargs: dict[str, Any] | None,
        memory_loss_coef: float | Schedule,
        memory_loss_gate: float | None,
        memory_target: float | None,
        auxiliary_coefs: dict[str, float],
        normalize_advantage: bool,
        min_advantage_std: float,
        on_nan: str = "stop",
        env_timeout: float | None = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        if isinstance(env, gym.vector.VectorEnv):
            env = VecEnvAdapter(env)
        if isinstance(policy, type) and not issubclass(policy, MemoryPolicy):
            raise ValueError(f"policy={policy.__name__}: must be a MemoryPolicy, or a subclass of it")
        self.memory = memory
        self.memory_kwargs = dict(memory_kwargs or {})
        make_config(memory, self.memory_kwargs)  # bad settings are refused before anything is built
        if memory_loss_gate is not None and not 0 <= memory_loss_gate < 1:
            raise ValueError(f"memory_loss_gate={memory_loss_gate!r}: must be at least 0 and below 1")
        if memory_target is not None and not memory_target > 0:
            raise ValueError(f"memory_target={memory_target!r}: must be above 0")
        for task, value in auxiliary_coefs.items():
            if not value >= 0:
                raise ValueError(f"{task}_coef={value!r}: must be at least 0")
        if on_nan not in ON_NAN:
            raise ValueError(f"on_nan={on_nan!r}: must be one of {', '.join(ON_NAN)}")
        if env_timeout is not None and not env_timeout > 0:
            raise ValueError(f"env_timeout={env_timeout!r}: must be None or a number above 0")
        self.on_nan = on_nan
        self.env_timeout = env_timeout
        self.skipped_updates = 0
        self._rollout_is_bad = False
        self._env_seeds: list[int | None] = []
        self._ended: list[Ended] = []
        self.auxiliary_coefs = auxiliary_coefs
        self.memory_loss_coef = memory_loss_coef
        self.memory_loss_gate = memory_loss_gate
        self.memory_target = memory_target
        self._effective_memory = float("inf")
        self.normalize_advantage = normalize_advantage
        self.min_advantage_std = min_advantage_std
        self._memory_state: State | None = None
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]
            use_sde=False,
            sde_sample_freq=-1,
            _init_setup_model=False,
            supported_action_spaces=ACTION_SPACES,
            **kwargs,
        )
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if self.action_masks:
            check_masked(self.env, self.action_space)
        is_dict = isinstance(self.observation_space, spaces.Dict)
        self.rollout_buffer_class = MemoryDictRolloutBuffer if is_dict else MemoryRolloutBuffer
        own_kwargs = self.policy_kwargs
        self.policy_kwargs = self._all_policy_kwargs()
        try:
            super()._setup_model()
        finally:
            self.policy_kwargs = own_kwargs
        self.memory_loss_schedule = FloatSchedule(self.memory_loss_coef)

    def _all_policy_kwargs(self) -> dict[str, Any]:
        """What the policy is made with."""
        return dict(
            self.policy_kwargs,
            memory=self.memory,
            memory_kwargs=self.memory_kwargs,
            auxiliary_tasks=[task for task, value in self.auxiliary_coefs.items() if value > 0],
        )

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        if isinstance(env, gym.vector.VectorEnv):
            env = VecEnvAdapter(env)
        wrapped = BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper)
        # SB3 takes MiniGrid's symbols for a picture and would turn its axes.
        if isinstance(wrapped, VecTransposeImage) and not isinstance(env, VecTransposeImage):
            space = wrapped.venv.observation_space
            parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
            if not any(is_image_space(part) and not is_symbolic(part) for part in parts):
                return wrapped.venv
        return wrapped

    def _excluded_save_params(self) -> list[str]:
        # Without the environment it was made in, what is remembered means nothing.
        return [*super()._excluded_save_params(), "_memory_state"]

    def _update_learning_rate(self, optimizers: Any) -> None:
        super()._update_learning_rate(optimizers)
        first = self.lr_schedule(1)
        share = self.lr_schedule(self._current_progress_remaining) / first if first else 1.0
        for group in self.policy.optimizer.param_groups:
            if "own_lr" in group:
                group["lr"] = group["own_lr"] * share

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Actions and the next state, see `MemoryPolicy.predict`."""
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    # Several processes

    def learn_with(self, processes: Processes) -> None:
        """Has this agent, whose environments are its process's share, learn as one with those of the others.

        See `memspan.agents.distributed`. To be called once, before `learn`.
        """
        self.processes = self.rollout_buffer.processes = processes
        self._seed_rows(self.seed)

    def set_random_seed(self, seed: int | None = None) -> None:
        super().set_random_seed(seed)
        self._seed_rows(seed)

    def _seed_rows(self, seed: int | None) -> None:
        if seed is not None and self.env is not None and self.processes.size > 1:
            self.env.seed(seed + self.processes.rows(self.env.num_envs).start)
