"""How an agent with a memory acts: a rollout of all environments, into blocks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from memspan.agents import watch
from memspan.agents.buffer import MemoryRolloutBuffer
from memspan.agents.distributed import ALONE, Processes
from memspan.agents.faults import BadNumbersError, bad_rollout, make_finite, what_is_bad
from memspan.agents.masks import get_action_masks
from memspan.agents.policy import Acted, MemoryPolicy
from memspan.agents.row_infos import RowInfos
from memspan.agents.saved_agent import SavedAgent
from memspan.agents.shares import Ended, keep_in_step, prepare_rollout, share_rollout
from memspan.memory import State, clone_state, select_rows


class Rollouts(SavedAgent):
    """Acts with a memory and fills the buffer."""

    policy: MemoryPolicy
    rollout_buffer: MemoryRolloutBuffer
    action_masks: bool
    on_nan: str
    env_timeout: float | None
    processes: Processes = ALONE
    _memory_state: State | None
    _effective_memory: float
    _rollout_is_bad: bool
    _env_seeds: list[int | None]
    _ended: list[Ended]

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
        assert self._memory_state is not None
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
        cut = [int(row) for row in np.flatnonzero(dones) if infos[row].get("TimeLimit.truncated", False)]
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
