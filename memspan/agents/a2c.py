"""Advantage actor-critic with a memory: one pass over each rollout and no clipping."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import explained_variance
from torch.nn import functional as F

from memspan.agents.base import MemoryAlgorithm


class MemoryA2C(MemoryAlgorithm):
    """A2C (arXiv 1602.01783) whose policy remembers, with Stable-Baselines3's interface.

    Defaults are those of SB3's A2C, but for `n_steps`: gradients do not flow beyond a block, so that five
    steps would be too few to learn what to remember.

    Args:
        policy: as for `MemoryPPO`, and so are the others unless they are listed.
        env: Gymnasium environment or vector environment, SB3 `VecEnv`, or id.
        memory: name of a memory, or `module:Class`.
        memory_kwargs: settings of the memory.
        learning_rate: constant, or function of the remaining progress.
        n_steps: T, steps of a rollout per environment: the block through which gradients flow.
        gamma: discount.
        gae_lambda: bias against variance of the advantages; 1: returns as they are.
        normalize_advantage: divide advantages by their standard deviation over the rollout.
        min_advantage_std: floor of that deviation.
        ent_coef: weight of the entropy bonus.
        vf_coef: weight of the value loss.
        max_grad_norm: longest gradient.
        use_rms_prop: RMSprop as the optimizer, instead of that of `policy_kwargs` or Adam.
        rms_prop_eps: its epsilon.
        memory_loss_coef: weight of the memory's own losses.
        memory_loss_gate: success rate above which they come in.
        stats_window_size: episodes over which reported means run.
        tensorboard_log: folder for TensorBoard, None: none.
        policy_kwargs: settings of `MemoryPolicy`.
        verbose: 0 silent, 1 tables, 2 more.
        seed: of everything random.
        device: "auto", "cpu", "cuda".
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | gym.vector.VectorEnv | str | None,
        memory: str = "transformer-xl",
        memory_kwargs: dict[str, Any] | None = None,
        learning_rate: float | Schedule = 7e-4,
        n_steps: int = 32,
        gamma: float = 0.99,
        gae_lambda: float = 1.0,
        normalize_advantage: bool = False,
        min_advantage_std: float = 0.05,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        use_rms_prop: bool = True,
        rms_prop_eps: float = 1e-5,
        memory_loss_coef: float | Schedule = 0.0,
        memory_loss_gate: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
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
            memory_loss_coef,
            memory_loss_gate,
            normalize_advantage,
            min_advantage_std,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def train(self) -> None:
        """Updates the policy once, with the whole rollout that the buffer holds."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        memory_loss_coef = self._memory_loss_coef()
        (block,) = self.rollout_buffer.blocks(1)
        evaluated = self._evaluate(block)
        policy_loss = -(self._advantages(block) * evaluated.log_probs).mean()
        value_loss = F.mse_loss(evaluated.values, block.returns)
        entropy_loss = self._entropy_loss(evaluated)
        memory_loss = self._memory_loss(evaluated)
        self._descend(
            policy_loss
            + self.ent_coef * entropy_loss
            + self.vf_coef * value_loss
            + memory_loss_coef * memory_loss
        )
        self._n_updates += 1
        for name, value in (
            ("policy_gradient_loss", policy_loss),
            ("value_loss", value_loss),
            ("entropy_loss", entropy_loss),
            ("memory_loss", memory_loss),
        ):
            self.logger.record(f"train/{name}", value.item())
        self.logger.record("train/memory_loss_coef", memory_loss_coef)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record(
            "train/explained_variance",
            explained_variance(self.rollout_buffer.values.flatten(), self.rollout_buffer.returns.flatten()),
        )
