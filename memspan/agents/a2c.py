"""Advantage actor-critic with a memory: one update per rollout, on all of it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from memspan.agents.ppo import MemoryPPO


class MemoryA2C(MemoryPPO):
    """A2C (arXiv 1602.01783) whose policy remembers, with Stable-Baselines3's interface.

    With one epoch of one minibatch the probability ratio is 1, nothing is clipped, and PPO is A2C
    (arXiv 2205.09123). Defaults are those of SB3's A2C, but for `n_steps`: gradients do not flow beyond a
    block, so that five steps would be too few to learn what to remember.

    Args:
        policy: as for `MemoryPPO`, and so are all that are not listed here.
        env: Gymnasium environment or vector environment, SB3 `VecEnv`, or id.
        memory: name of a memory, or `module:Class`.
        memory_kwargs: settings of the memory.
        learning_rate: constant, or function of the remaining progress.
        n_steps: T, steps of a rollout per environment: the block through which gradients flow.
        gae_lambda: bias against variance of the advantages; 1: returns as they are.
        normalize_advantage: standardise advantages over the rollout.
        ent_coef: weight of the entropy bonus; constant, or function of the remaining progress.
        use_rms_prop: RMSprop as the optimizer, instead of that of `policy_kwargs` or Adam.
        rms_prop_eps: its epsilon.
        policy_kwargs: settings of `MemoryPolicy`.
        kwargs: `gamma`, `vf_coef`, `max_grad_norm`, `memory_loss_coef`, `seed`, ... of `MemoryPPO`.
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | gym.vector.VectorEnv | str | None,
        memory: str = "transformer-xl",
        memory_kwargs: dict[str, Any] | None = None,
        learning_rate: float | Schedule = 7e-4,
        n_steps: int = 32,
        gae_lambda: float = 1.0,
        normalize_advantage: bool = False,
        ent_coef: float | Schedule = 0.0,
        use_rms_prop: bool = True,
        rms_prop_eps: float = 1e-5,
        policy_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        policy_kwargs = dict(policy_kwargs or {})
        if use_rms_prop and "optimizer_class" not in policy_kwargs:
            policy_kwargs["optimizer_class"] = torch.optim.RMSprop
            policy_kwargs["optimizer_kwargs"] = dict(alpha=0.99, eps=rms_prop_eps)
        super().__init__(
            policy,
            env,
            memory,
            memory_kwargs,
            learning_rate=learning_rate,
            n_steps=n_steps,
            n_minibatches=1,
            n_epochs=1,
            gae_lambda=gae_lambda,
            normalize_advantage=normalize_advantage,
            ent_coef=ent_coef,
            policy_kwargs=policy_kwargs,
            **kwargs,
        )
