"""From settings to environments and agents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.utils import LinearSchedule

from memspan.agents import MemoryPPO, ObservePrevious, VecEnvAdapter
from memspan.runs.environments import build_vector_env, check_settings, environment_spec

if TYPE_CHECKING:
    import gymnasium as gym
    from stable_baselines3.common.vec_env import VecEnv

    from memspan.runs.config import RunConfig


def make_env(config: RunConfig, n_envs: int | None = None, seed: int | None = None) -> VecEnv:
    """The environments of a run, side by side.

    Args:
        config: `env` and `env_kwargs` are read, and `n_envs` unless given.
        n_envs: how many.
        seed: environment i is seeded with `seed + i` at the first reset; None: not seeded here.

    Raises:
        ValueError: there is no such environment, or it refuses its settings.
    """
    spec = environment_spec(config.env)
    check_settings(spec, config.env_kwargs)
    env = adapt(config, build_vector_env(spec, n_envs or config.n_envs, config.env_kwargs))
    if seed is not None:
        env.seed(seed)
    return env


def adapt(config: RunConfig, env: gym.vector.VectorEnv) -> VecEnv:
    """A vector environment as the agent of a run sees it."""
    adapted: VecEnv = VecEnvAdapter(env)
    return ObservePrevious(adapted) if config.observe_previous else adapted


def spread_seed(seed: int, *more: int) -> int:
    """A seed far from those of other runs: environment i takes it plus i, and runs have seeds 0, 1, 2."""
    return int(np.random.SeedSequence([seed, *more]).generate_state(1)[0]) >> 1


def make_model(config: RunConfig, env: VecEnv | None = None, tensorboard: Path | None = None) -> MemoryPPO:
    """The agent of a run, untrained.

    Args:
        config: the run.
        env: where it acts; None: `make_env(config)`.
        tensorboard: folder for TensorBoard's events; None: none.
    """
    return MemoryPPO(
        "MemoryPolicy",
        env if env is not None else make_env(config),
        memory=config.memory,
        memory_kwargs=config.memory_kwargs,
        learning_rate=LinearSchedule(config.learning_rate, config.final_learning_rate, 1.0),
        n_steps=config.n_steps,
        n_minibatches=config.n_minibatches,
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        normalize_advantage=config.normalize_advantage,
        min_advantage_std=config.min_advantage_std,
        ent_coef=_ent_coef(config),
        vf_coef=config.vf_coef,
        max_grad_norm=config.max_grad_norm,
        memory_loss_coef=config.memory_loss_coef,
        memory_loss_gate=config.memory_loss_gate,
        memory_target=config.memory_target,
        prediction_coef=config.prediction_coef,
        outcome_coef=config.outcome_coef,
        reconstruction_coef=config.reconstruction_coef,
        on_nan=config.on_nan,
        stats_window_size=config.stats_window_size,
        tensorboard_log=None if tensorboard is None else str(tensorboard),
        policy_kwargs=policy_settings(config),
        seed=spread_seed(config.seed),
        device=config.device,
    )


def policy_settings(config: RunConfig) -> dict[str, Any]:
    """What a run's policy is made with, beside its memory."""
    return {name: getattr(config, name) for name in ("width", "first_preference", "precision")}


def _ent_coef(config: RunConfig) -> float | LinearSchedule:
    if config.final_ent_coef is None:
        return config.ent_coef
    return LinearSchedule(config.ent_coef, config.final_ent_coef, 1.0)
