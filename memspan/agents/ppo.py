"""Proximal policy optimisation with a memory."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch.nn import functional as F

from memspan.agents.base import MemoryAlgorithm
from memspan.agents.buffer import Block


class MemoryPPO(MemoryAlgorithm):
    """PPO (arXiv 1707.06347) whose policy remembers, with Stable-Baselines3's interface.

    Args:
        policy: "MemoryPolicy"; SB3's names are understood and mean the same, the observation space decides.
        env: Gymnasium environment or vector environment, SB3 `VecEnv`, or id.
        memory: name of a memory (`memspan.memory.MEMORIES`), or `module:Class`.
        memory_kwargs: settings of the memory, see its `Config`.
        learning_rate: constant, or function of the remaining progress from 1 to 0.
        n_steps: T, steps of a rollout per environment: the block through which gradients flow.
        n_minibatches: sets into which a rollout's environments are split; at most one per environment.
        n_epochs: passes over a rollout.
        gamma: discount.
        gae_lambda: bias against variance of the advantages.
        clip_range: how far the probability ratio may leave 1 and still be followed.
        clip_range_vf: the same for values, None: off.
        normalize_advantage: standardise advantages over the rollout.
        min_advantage_std: floor of the standard deviation they are divided by.
        ent_coef: weight of the entropy bonus; constant, or function of the remaining progress from 1 to 0.
        vf_coef: weight of the value loss.
        max_grad_norm: gradients are clipped to this norm.
        memory_loss_coef: weight of the memory's own losses, like Expire-Span's penalty.
        memory_loss_gate: success rate above which they come in, in full at 1; None: always. The success
            rate is that of the last `stats_window_size` episodes whose `info` told `is_success`.
        memory_target: effective memory at which they have gone; they count in full from twice as much on.
            None: no target.
        prediction_coef: weight of the error of predicting the memory's next input from its features and the
            action, see `memspan.agents.prediction`; 0: it is not predicted.
        outcome_coef: weight of the error of predicting, from its features and the action, whether the episode
            ends, and a step's reward (which has the value of what would have followed, where an episode is
            cut short); 0: they are not predicted.
        reconstruction_coef: weight of the error of reading the observation off the memory's input, see
            `memspan.agents.reconstruction`; 0: nothing is read off.
        action_masks: the environments tell by their method `action_masks()` what is allowed, and nothing else
            is drawn; as for sb3-contrib's MaskablePPO, see `memspan.agents.masks`.
        target_kl: stop the epochs of an update beyond 1.5 times this KL divergence; None: never.
        on_nan: what happens where a loss, gradient, reward or observation is NaN or infinite. "stop": a
            `BadNumbersError` names it, and the policy stays as it was before; "skip": the update is left out
            and counted (`train/skipped_updates`), and so are all of a rollout with such rewards or
            observations.
        env_timeout: seconds that an environment in a process of its own may take to answer; None: as long as
            its process lives.
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
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 128,
        n_minibatches: int = 4,
        n_epochs: int = 3,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        min_advantage_std: float = 0.05,
        ent_coef: float | Schedule = 0.001,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        memory_loss_coef: float | Schedule = 0.0,
        memory_loss_gate: float | None = None,
        memory_target: float | None = None,
        prediction_coef: float = 0.0,
        outcome_coef: float = 0.0,
        reconstruction_coef: float = 0.0,
        action_masks: bool = False,
        target_kl: float | None = None,
        on_nan: str = "stop",
        env_timeout: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        self.n_minibatches = n_minibatches
        self.n_epochs = n_epochs
        self.clip_range = clip_range
        self.clip_range_vf = clip_range_vf
        self.action_masks = action_masks
        self.target_kl = target_kl
        super().__init__(
            policy,
            env,
            memory,
            memory_kwargs,
            memory_loss_coef,
            memory_loss_gate,
            memory_target,
            dict(prediction=prediction_coef, outcome=outcome_coef, reconstruction=reconstruction_coef),
            normalize_advantage,
            min_advantage_std,
            on_nan,
            env_timeout,
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

    def _setup_model(self) -> None:
        super()._setup_model()
        self.clip_range = FloatSchedule(self.clip_range)
        if self.clip_range_vf is not None:
            self.clip_range_vf = FloatSchedule(self.clip_range_vf)

    def train(self) -> None:
        """Updates the policy with the rollout that the buffer holds."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        clip_range = FloatSchedule(self.clip_range)(self._current_progress_remaining)
        ent_coef = FloatSchedule(self.ent_coef)(self._current_progress_remaining)
        memory_loss_coef = self._memory_loss_coef()
        records: dict[str, list[float]] = {}
        proceed = True
        if self._rollout_is_bad:
            self.skipped_updates += self.n_epochs * self._n_sets
        for _ in range(0 if self._rollout_is_bad else self.n_epochs):
            for block in self.rollout_buffer.blocks(self._n_sets):
                evaluated = self._evaluate(block)
                advantages = self._advantages(block)
                log_ratio = evaluated.log_probs - block.log_probs
                ratio = log_ratio.exp()
                policy_loss = -torch.min(
                    advantages * ratio, advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
                ).mean()
                values = evaluated.values
                if self.clip_range_vf is not None:
                    clip_vf = FloatSchedule(self.clip_range_vf)(self._current_progress_remaining)
                    values = block.values + (values - block.values).clamp(-clip_vf, clip_vf)
                value_loss = F.mse_loss(values, block.returns)
                entropy_loss = self._entropy_loss(evaluated)
                memory_loss = self._memory_loss(evaluated)
                with torch.no_grad():
                    # Low-variance, never negative estimate: joschu.net/blog/kl-approx.html
                    approx_kl = (ratio - 1 - log_ratio).mean().item()
                losses = {
                    "policy_gradient_loss": policy_loss,
                    "value_loss": value_loss,
                    "entropy_loss": entropy_loss,
                    "memory_loss": memory_loss,
                    **{f"{task}_loss": value for task, value in evaluated.auxiliary_losses.items()},
                }
                numbers = {name: value.item() for name, value in losses.items()}
                numbers["approx_kl"] = approx_kl
                numbers["clip_fraction"] = ((ratio - 1).abs() > clip_range).float().mean().item()
                if self._is_far(approx_kl, block):
                    proceed = False
                elif not self._descend(
                    losses,
                    policy_loss
                    + ent_coef * entropy_loss
                    + self.vf_coef * value_loss
                    + memory_loss_coef * memory_loss
                    + self._auxiliary_loss(evaluated),
                    evaluated,
                    block,
                ):
                    continue
                for name, number in numbers.items():
                    # A part of the minibatch's, where other processes have the rest of it.
                    records.setdefault(name, []).append(block.weight and number * block.weight)
                if not proceed:
                    break
            self._n_updates += 1
            if not proceed:
                break
        self._record_means(records)
        if self.on_nan == "skip":
            self.logger.record("train/skipped_updates", self.skipped_updates)
        self.logger.record("train/memory_loss_coef", memory_loss_coef)
        self.logger.record("train/ent_coef", ent_coef)
        self.logger.record("train/clip_range", clip_range)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/explained_variance", self.rollout_buffer.explained_variance())

    @property
    def _n_sets(self) -> int:
        """Minibatches that there can be."""
        return min(self.n_minibatches, self.n_envs * self.processes.size)

    def _is_far(self, approx_kl: float, block: Block) -> bool:
        """Whether the policy, on a minibatch, has gone too far from that which acted."""
        if self.target_kl is None:
            return False
        (over_all,) = self.processes.sum([block.weight and approx_kl * block.weight])
        return over_all > 1.5 * self.target_kl

    def _record_means(self, records: dict[str, list[float]]) -> None:
        """Writes down the means over an update, of all processes."""
        means = self.processes.sum(float(np.mean(values)) for values in records.values())
        for name, mean in zip(records, means, strict=True):
            self.logger.record(f"train/{name}", mean)
