"""What the agents share: rollouts with a memory, on Stable-Baselines3's on-policy algorithm."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import zip_longest
from typing import Any, ClassVar, TypeVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import (
    FloatSchedule,
    obs_as_tensor,
)
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage
from torch import Tensor

from memspan.agents import watch
from memspan.agents.buffer import Block, MemoryDictRolloutBuffer, MemoryRolloutBuffer
from memspan.agents.distributed import ALONE, Processes
from memspan.agents.faults import BadNumbersError, bad_rollout, bad_update, make_finite, what_is_bad
from memspan.agents.features import is_symbolic
from memspan.agents.masks import check_masked, get_action_masks
from memspan.agents.policy import Acted, Evaluated, MemoryPolicy
from memspan.agents.row_infos import RowInfos
from memspan.agents.saved_agent import SavedAgent
from memspan.agents.shares import Ended, keep_in_step, prepare_rollout, share_rollout
from memspan.agents.vec_env import VecEnvAdapter
from memspan.memory import State, clone_state, make_config, select_rows

ACTION_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
ON_NAN = ("stop", "skip")
Self = TypeVar("Self", bound="MemoryAlgorithm")


class MemoryAlgorithm(SavedAgent):
    """Collects rollouts with a memory; subclasses say how to learn from them."""

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = dict.fromkeys(
        ("MemoryPolicy", "MlpPolicy", "CnnPolicy", "MultiInputPolicy"), MemoryPolicy
    )
    policy: MemoryPolicy
    rollout_buffer: MemoryRolloutBuffer
    action_masks: bool
    processes: Processes = ALONE

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

    # Rollouts

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Fills the buffer; see SB3's `OnPolicyAlgorithm.collect_rollouts`."""
        if self.processes.size > 1:
            prepare_rollout(self)
        with self.processes.together():
            return self._collect(env, callback, rollout_buffer, n_rollout_steps)

    def _collect(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        assert isinstance(rollout_buffer, MemoryRolloutBuffer)
        assert self._last_obs is not None
        assert self._last_episode_starts is not None
        first_row = self.processes.rows(env.num_envs).start
        self._begin_rollout(env, rollout_buffer, first_row)
        stats: dict[str, list[Tensor]] = {}
        callback.on_rollout_start()
        # Names as in SB3: callbacks find them in `self.locals`.
        for n_steps in range(n_rollout_steps):  # noqa: B007
            masks = self._get_action_masks(env) if self.action_masks else None
            with torch.no_grad():
                acted = self._act(masks)
            values, log_probs = acted.values, acted.log_probs
            self._memory_state = acted.memory.state
            for name, stat in acted.memory.stats.items():
                stats.setdefault(name, []).append(stat)
            actions = acted.actions.cpu().numpy().reshape(env.num_envs, *self.action_space.shape)  # type: ignore[misc]
            clipped_actions = actions
            if isinstance(self.action_space, spaces.Box):
                clipped_actions = np.clip(actions, self.action_space.low, self.action_space.high)
            new_obs, rewards, dones, infos = watch.step(
                env, clipped_actions, self._env_seeds, self.num_timesteps, first_row
            )
            self.num_timesteps += env.num_envs * self.processes.size
            if bad := what_is_bad(new_obs, rewards, first_row):
                self._bad_numbers(f"after {self.num_timesteps} timesteps: {', '.join(bad)}")
                new_obs, rewards = make_finite(new_obs), make_finite(rewards)
            callback.update_locals(locals())
            if not callback.on_step():
                self.processes.exchange()  # nothing, in place of a rollout
                return False
            self._update_info_buffer(infos, dones)
            rewards = self._bootstrap_time_limits(rewards, dones, infos, values)
            rollout_buffer.add(
                self._last_obs,
                actions,
                rewards,
                self._last_episode_starts,
                values,
                log_probs,
                action_masks=masks,
            )
            self._last_obs = new_obs  # type: ignore[assignment]
            self._last_episode_starts = dones
        with torch.no_grad():
            last_values = self.policy.values_of(
                obs_as_tensor(new_obs, self.device),  # type: ignore[arg-type]
                clone_state(self._memory_state),
                torch.as_tensor(dones, device=self.device),
            )
        rollout_buffer.compute_returns_and_advantage(last_values=last_values, dones=dones)
        buffer = {name: getattr(rollout_buffer, name) for name in ("values", "log_probs", "returns")}
        if bad := bad_rollout(buffer, first_row):
            self._bad_numbers(f"after {self.num_timesteps} timesteps: not finite: {', '.join(bad)}")
        measured = {name: torch.stack(values) for name, values in stats.items()}
        told = {name: (one.mean().item(), one.max().item()) for name, one in measured.items()}
        if self.processes.size > 1 and not share_rollout(self, told):
            return False
        self._record_memory(told)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _begin_rollout(self, env: VecEnv, rollout_buffer: MemoryRolloutBuffer, first_row: int) -> None:
        """Empties the buffer, notes what is remembered, and looks at what a reset has shown."""
        self.policy.set_training_mode(False)
        if self._memory_state is None or len(next(iter(self._memory_state.values()))) != env.num_envs:
            self._memory_state = self.policy.memory.initial_state(env.num_envs, self.device)
        # Row by row in memory, as it comes out of a file: where numbers lie may decide how sums are rounded.
        packed = self.policy.memory.compact(self._memory_state)
        self._memory_state = {name: value.contiguous() for name, value in packed.items()}
        self._rollout_is_bad = False
        # Those of a reset; those of a step have been looked at.
        watch.check_space(env, self._last_obs, self._env_seeds, self.num_timesteps, first_row)
        if bad := what_is_bad(self._last_obs, None, first_row):
            self._bad_numbers(f"after {self.num_timesteps} timesteps: {', '.join(bad)}")
            self._last_obs = make_finite(self._last_obs)
        rollout_buffer.reset()
        rollout_buffer.initial_state = clone_state(self._memory_state)

    def _get_action_masks(self, env: VecEnv) -> np.ndarray:
        with self._naming(env):
            return get_action_masks(env, self.action_space)

    def _act(self, masks: np.ndarray | None) -> Acted:
        """One step, with actions that are allowed by `masks`; takes the memory's state over."""
        assert self._memory_state is not None
        try:
            return self.policy.act(
                obs_as_tensor(self._last_obs, self.device),  # type: ignore[arg-type]
                self._memory_state,
                torch.as_tensor(self._last_episode_starts, device=self.device),
                action_masks=None if masks is None else torch.as_tensor(masks, device=self.device),
                others=self.processes.others(len(self._last_episode_starts)),  # type: ignore[arg-type]
            )
        except (RuntimeError, ValueError) as error:
            if "nan" not in str(error):
                raise
            where = f"after {self.num_timesteps} timesteps"
            raise BadNumbersError(f"{where}: probabilities of actions are not finite") from error

    def _bad_numbers(self, what: str) -> None:
        """Stops, or leaves the rollout out of learning.

        Raises:
            BadNumbersError: says what.
        """
        if self.on_nan == "stop":
            raise BadNumbersError(what)
        self._rollout_is_bad = True

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        if self.env is not None:
            watch.watch_workers(self.env, self.env_timeout)
            innermost: VecEnv = self.env.unwrapped
            # The seeds of the next reset; what has been seeded before is remembered.
            self._env_seeds = [
                new if new is not None else old
                for new, old in zip_longest(innermost._seeds, self._env_seeds[: innermost.num_envs])
            ]
            self._env_seeds = self._env_seeds[: innermost.num_envs]
        with self.processes.together(), self._naming(self.env):
            begun = super()._setup_learn(*args, **kwargs)
        keep_in_step(self)
        return begun

    def _naming(self, env: VecEnv | None) -> AbstractContextManager[None]:
        """Whatever goes wrong in the environments within is named."""
        if env is None:
            return nullcontext()
        first_row = self.processes.rows(env.num_envs).start
        return watch.naming(env, self._env_seeds, self.num_timesteps, first_row)

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        # SB3 knows `is_success`; Gymnasium's environments, and ours, tell `success`.
        for row in np.flatnonzero(dones) if dones is not None else ():
            if "success" in infos[row]:
                infos[row].setdefault("is_success", bool(infos[row]["success"]))
        if self.processes.size > 1:
            self._gather_ended(infos, dones)
            return
        if isinstance(infos, RowInfos) and dones is not None:
            # SB3 looks into every info for ends of episodes; these have none elsewhere.
            infos, dones = [infos[row] for row in np.flatnonzero(dones)], dones[dones]
        super()._update_info_buffer(infos, dones)

    def _gather_ended(self, infos: list[dict[str, Any]], dones: np.ndarray | None) -> None:
        """Keeps what has ended here, until that of all processes is put together at the rollout's end."""
        if dones is not None and dones.any():
            first_row = self.processes.rows(len(infos)).start
            ended = {first_row + int(row): infos[row] for row in np.flatnonzero(dones)}
            self._ended.append(Ended.of(self.rollout_buffer.pos, ended))

    def _note_ended(self, infos: list[dict[str, Any]]) -> None:
        """Episodes that have ended, here and elsewhere, in a step."""
        super()._update_info_buffer(infos, np.ones(len(infos), dtype=bool))

    def _bootstrap_time_limits(
        self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]], values: Tensor
    ) -> np.ndarray:
        """Adds the value of what would have come next where only a time limit ended the episode.

        That value is read with the memory of the episode that ended, not of the one that starts. Where the
        last observation was acted upon already, as in Gymnasium's next-step autoreset, it is among `values`.
        """
        cut = [row for row in np.flatnonzero(dones) if infos[row].get("TimeLimit.truncated", False)]
        if not cut:
            return rewards
        rewards = rewards.copy()
        shown = [row for row in cut if infos[row].get("terminal_observation_was_shown", False)]
        # The step that was acted in vain ends with its own value: it counts as if it had not been.
        if shown:
            self._add_values(rewards, shown, values[shown])
        cut = [row for row in cut if row not in shown]
        if not cut:
            return rewards
        assert self._memory_state is not None
        last = [infos[row]["terminal_observation"] for row in cut]
        if isinstance(last[0], dict):
            observations: Any = {key: np.stack([one[key] for one in last]) for key in last[0]}
        else:
            observations = np.stack(last)
        with torch.no_grad():
            last_values = self.policy.values_of(
                obs_as_tensor(observations, self.device),
                select_rows(self._memory_state, torch.as_tensor(cut, device=self.device)),
                torch.zeros(len(cut), dtype=torch.bool, device=self.device),
            )
        self._add_values(rewards, cut, self.gamma * last_values)
        return rewards

    def _add_values(self, rewards: np.ndarray, rows: list[int], values: Tensor) -> None:
        """Adds values (rows,) to a step's rewards: now, or with all others of the rollout from a device."""
        if self.rollout_buffer.on_device:
            self.rollout_buffer.add_value(rows, values)
        else:
            rewards[rows] += values.cpu().numpy()

    def _record_memory(self, measured: dict[str, tuple[float, float]]) -> None:
        """The same tags for every memory; `measured` has mean and maximum of each."""
        for name, (mean, largest) in measured.items():
            self.logger.record(f"memory/{name}", mean)
            if name == "effective_memory":
                self._effective_memory = mean
                self.logger.record("memory/peak_memory", largest)
        self.logger.record("memory/capacity", self.policy.memory.capacity)

    # Updates

    def _evaluate(self, block: Block) -> Evaluated:
        with self.processes.averaging(block.weight):
            return self.policy.evaluate_block(
                block.observations,
                block.actions,
                block.state,
                block.episode_starts,
                block.rewards,
                block.action_masks,
            )

    def _advantages(self, block: Block) -> Tensor:
        """Advantages less their mean, in units of their standard deviation, both over the rollout.

        The deviation has a floor: while all returns are still the same, it is noise, and dividing by it
        would make noise as loud as a signal.
        """
        if not self.normalize_advantage:
            return block.advantages
        mean, std = self.rollout_buffer.advantage_moments()
        return (block.advantages - mean) / max(std, self.min_advantage_std)

    def _memory_loss_coef(self) -> float:
        """Today's coefficient of the memory's own losses.

        With a gate, the losses come in as the success rate rises from the gate to 1, and go again when it
        falls: a memory only gives up what the task can spare. With a target, they go as the effective
        memory falls from twice the target to the target: a memory gives up no more than it is asked for.
        """
        coefficient = self.memory_loss_schedule(self._current_progress_remaining)
        if self.memory_loss_gate is not None:
            # The first episodes to end may all be lucky ones: they do not tell a success rate.
            ended = self.ep_success_buffer or ()
            success = float(np.mean(ended)) if len(ended) == self._stats_window_size else 0.0
            gate = (success - self.memory_loss_gate) / (1 - self.memory_loss_gate)
            coefficient *= float(np.clip(gate, 0, 1))
        if self.memory_target is not None:
            coefficient *= float(np.clip(self._effective_memory / self.memory_target - 1, 0, 1))
        return coefficient

    def _memory_loss(self, evaluated: Evaluated) -> Tensor:
        """Sum of the memory's own losses, each the mean over steps."""
        losses = [value.mean() for value in evaluated.memory.losses.values()]
        return torch.stack(losses).sum() if losses else evaluated.values.new_zeros(())

    def _auxiliary_loss(self, evaluated: Evaluated) -> Tensor:
        """What is learnt beside acting, each by its coefficient."""
        losses = [self.auxiliary_coefs[task] * value for task, value in evaluated.auxiliary_losses.items()]
        return torch.stack(losses).sum() if losses else evaluated.values.new_zeros(())

    def _entropy_loss(self, evaluated: Evaluated) -> Tensor:
        """Minus the mean entropy; estimated from the drawn actions where it has no closed form."""
        entropy = evaluated.entropy
        return evaluated.log_probs.mean() if entropy is None else -entropy.mean()

    def _descend(self, losses: dict[str, Tensor], loss: Tensor, evaluated: Evaluated, block: Block) -> bool:
        """One step of the optimizer, unless loss or gradient are not finite.

        Returns:
            Whether it was made.

        Raises:
            BadNumbersError: it cannot be made, and the agent is to stop.
        """
        self.policy.optimizer.zero_grad()
        loss = self.processes.backward(loss, block.weight, self.policy.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        if torch.isfinite(loss + norm):
            self.policy.optimizer.step()
            return True
        rows = block.rows + self.processes.rows(self.n_envs).start
        what = bad_update(losses, evaluated.log_probs.detach(), rows, self.policy)
        self.policy.optimizer.zero_grad()
        if self.on_nan == "stop":
            where = f"update {self._n_updates + 1}, after {self.num_timesteps} timesteps"
            raise self.processes.shared(BadNumbersError(f"{where}: {what}"))
        self.skipped_updates += 1
        return False
