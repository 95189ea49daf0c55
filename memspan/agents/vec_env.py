"""Gymnasium's vector environments as Stable-Baselines3 sees them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from memspan.agents.row_infos import Ends, RowInfos, tell_end

_TRANSLATED = {"final_obs", "final_info", "_final_obs", "_final_info"}
_STATE = "state."


class VecEnvAdapter(VecEnv):
    """Makes an SB3 `VecEnv` of any Gymnasium `VectorEnv`.

    SB3 resets an environment in the step that ends its episode and hands the last observation on as
    `info["terminal_observation"]`. The three ways in which a `VectorEnv` resets are all brought to that:

    - SAME_STEP: is that already;
    - DISABLED: finished rows are reset here, with `options={"reset_mask": ...}`;
    - NEXT_STEP: the step after the last one resets and ignores its action. It is counted to the episode
      that ended, as one more step of reward 0, so that nothing of it is seen by the next episode.

    Environments with `get_snapshot() -> dict[str, np.ndarray]` and `set_snapshot(snapshot) -> observations`,
    as ours have them, can be left and gone on with; see `memspan.agents.episodes`.

    Finished rows also get `info["episode"]` (return `r`, length `l`, seconds since the start `t`), as SB3's
    Monitor would write it, and `info["is_success"]` if the environment tells `success`.

    Args:
        env: the vector environment; it is closed with this one.
    """

    def __init__(self, env: gym.vector.VectorEnv) -> None:
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.autoreset_mode = AutoresetMode(mode)
        # An engine never writes again what it has returned: infos can be made later.
        self._infos_last = getattr(type(env), "never_rewrites", False)
        self._start = time.time()
        self._steps = 0
        self._returns = np.zeros(env.num_envs)
        self._starts = np.zeros(env.num_envs, dtype=np.int64)  # by the count of `_steps`
        # NEXT_STEP only: how rows ended whose reset is still to come.
        self._ending: dict[int, dict[str, Any]] = {}

    def reset(self) -> VecEnvObs:
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        options = self._options[0] or None
        if any(other != self._options[0] for other in self._options):
            raise ValueError("options: a VectorEnv takes the same options for all its environments")
        if seeds is not None and seeds == list(range(seeds[0] or 0, (seeds[0] or 0) + self.num_envs)):
            # What every VectorEnv makes of a single seed; some know no list of them.
            seeds = seeds[0]  # type: ignore[assignment]
        observations, infos = self.env.reset(seed=seeds, options=options)  # type: ignore[arg-type]
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = self._rows(infos)
        self._begin(np.ones(self.num_envs, dtype=np.bool_))
        self._ending.clear()
        return observations  # type: ignore[no-any-return]

    def get_snapshot(self) -> dict[str, np.ndarray] | None:
        """All that the episodes' future depends on; None where the environments cannot tell.

        Returns:
            `returns` and `lengths` (num_envs,) of the episodes so far, and the fields of
            `env.get_snapshot()`, each as `state.<field>`.
        """
        # What a wrapper passes on from inside is not all that there is to it. And with NEXT_STEP there may
        # be infos to report a step later, which can hold anything.
        if not hasattr(type(self.env), "set_snapshot") or self.autoreset_mode == AutoresetMode.NEXT_STEP:
            return None
        inner = {f"{_STATE}{field}": values for field, values in self.env.get_snapshot().items()}  # type: ignore[attr-defined]
        return {"returns": self._returns.copy(), "lengths": self._steps - self._starts, **inner}

    def set_snapshot(self, snapshot: Mapping[str, np.ndarray]) -> VecEnvObs:
        """Goes on from a snapshot, in place of a reset.

        Returns:
            What is observed there, (num_envs, ...).

        Raises:
            ValueError: the environments refuse their part.
        """
        inner = {
            field.removeprefix(_STATE): values
            for field, values in snapshot.items()
            if field.startswith(_STATE)
        }
        observations: VecEnvObs = self.env.set_snapshot(inner)  # type: ignore[attr-defined]
        self._returns = np.array(snapshot["returns"], dtype=np.float64)
        self._starts = self._steps - np.asarray(snapshot["lengths"], dtype=np.int64)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step(self, actions: np.ndarray) -> VecEnvStepReturn:
        self._actions = actions
        return self.step_wait()

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, terminated, truncated, vector_infos = self.env.step(self._actions)
        # Summed up as they are told, as SB3's Monitor does.
        self._returns += rewards
        self._steps += 1
        rewards = np.array(rewards, np.float32)
        if self._infos_last:
            return self._finish_later(observations, rewards, truncated, vector_infos)
        dones = terminated | truncated
        infos = self._rows(vector_infos)
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            return self._finish_next_step(observations, rewards, dones, truncated & ~terminated, infos)
        ended = dones.nonzero()[0]
        if len(ended):
            if self.autoreset_mode == AutoresetMode.SAME_STEP:
                last_obs = {row: _row(vector_infos["final_obs"], row) for row in ended}
                last_infos = self._rows(vector_infos["final_info"]) if "final_info" in vector_infos else infos
            else:
                # Copied: an environment may write the next observations into the same array.
                last_obs = {row: _copy_row(observations, row) for row in ended}
                last_infos = infos
                observations, _ = self.env.reset(options={"reset_mask": dones})
            for row in ended:
                only_truncated = bool(truncated[row] and not terminated[row])
                self._finish(infos, row, last_infos[row], last_obs[row], only_truncated)
        return observations, rewards, dones, infos

    def _finish_later(
        self, observations: Any, rewards: np.ndarray, truncated: np.ndarray, vector_infos: dict[str, Any]
    ) -> VecEnvStepReturn:
        """Reports the ends of episodes when they are read; for SAME_STEP, and infos that stay as they are."""
        dones = vector_infos.get("_final_obs")
        if dones is None:
            infos = RowInfos(vector_infos, self.num_envs)
            return observations, rewards, np.zeros(self.num_envs, np.bool_), infos  # type: ignore[return-value]
        last_obs, seconds = vector_infos["final_obs"], time.time() - self._start
        ends = Ends(dones, truncated, last_obs, self._returns, self._starts, self._steps, seconds)
        self._begin(dones)
        return observations, rewards, dones, RowInfos(vector_infos, self.num_envs, ends)  # type: ignore[return-value]

    def _finish_next_step(
        self,
        observations: Any,
        rewards: np.ndarray,
        dones: np.ndarray,
        only_truncated: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> VecEnvStepReturn:
        """Reports the end of an episode one step later, together with its reset."""
        shown = np.zeros_like(dones)
        for row, ending in self._ending.items():
            shown[row] = True
            self._finish(infos, row, ending["info"], ending["obs"], ending["truncated"])
            infos[row]["terminal_observation_was_shown"] = True
        self._ending = {
            row: {
                "info": infos[row],
                "obs": _copy_row(observations, row),
                "truncated": bool(only_truncated[row]),
            }
            for row in np.flatnonzero(dones).tolist()
        }
        return observations, rewards, shown, infos

    def _finish(
        self,
        infos: list[dict[str, Any]],
        row: int,
        final_info: dict[str, Any],
        final_obs: Any,
        truncated: bool,
    ) -> None:
        info = infos[row] = dict(final_info)
        length, seconds = self._steps - self._starts[row], time.time() - self._start
        tell_end(info, final_obs, truncated, self._returns[row], length, seconds)
        self._returns[row] = 0
        self._starts[row] = self._steps

    def _begin(self, mask: np.ndarray) -> None:
        """Counts anew in the rows of `mask`, in new arrays: the old ones may still be read."""
        self._returns, self._starts = self._returns.copy(), self._starts.copy()
        np.putmask(self._returns, mask, 0.0)
        np.putmask(self._starts, mask, self._steps)

    def _rows(self, infos: dict[str, Any]) -> list[dict[str, Any]]:
        """One dictionary a row, of what a vector environment tells in arrays with masks."""
        rows: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for key, values in infos.items():
            if key in _TRANSLATED or (key.startswith("_") and key[1:] in infos):
                continue
            if isinstance(values, dict):
                for row, nested in enumerate(self._rows(values)):
                    if nested:
                        rows[row][key] = nested
                continue
            mask = infos.get(f"_{key}")
            told = range(self.num_envs) if mask is None else np.flatnonzero(mask).tolist()
            for row in told:
                rows[row][key] = values[row]
        return rows

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        rows = list(self._get_indices(indices))
        # An attribute of the environments, where there are any that have it, else the one they share.
        envs = self._envs()
        if envs and all(env.has_wrapper_attr(attr_name) for env in envs):
            return [envs[row].get_wrapper_attr(attr_name) for row in rows]
        return [getattr(self.env, attr_name)] * len(rows)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        raise NotImplementedError("a VectorEnv's environments share their attributes: set it on `.env`")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        envs = self._envs()
        if envs:
            return [
                envs[row].get_wrapper_attr(method_name)(*method_args, **method_kwargs)
                for row in self._get_indices(indices)
            ]
        raise NotImplementedError("this VectorEnv has no environments of its own: call it on `.env`")

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        # Monitor's work is done here.
        from stable_baselines3.common.monitor import Monitor

        return [issubclass(wrapper_class, Monitor)] * len(list(self._get_indices(indices)))

    def get_images(self) -> Sequence[np.ndarray | None]:
        frames = self.env.render() if self.render_mode is not None else None
        return [None] * self.num_envs if frames is None else [np.asarray(frame) for frame in frames]

    def _envs(self) -> list[gym.Env[Any, Any]]:
        """The single environments that a `SyncVectorEnv` is made of; others have none to show."""
        return getattr(self.env.unwrapped, "envs", [])


def _row(batch: Any, row: int) -> Any:
    """Observation `row` of a batch that is an array, an object array or a dictionary of arrays."""
    if isinstance(batch, dict):
        return {key: value[row] for key, value in batch.items()}
    return batch[row]


def _copy_row(batch: Any, row: int) -> Any:
    one = _row(batch, row)
    return {key: np.copy(value) for key, value in one.items()} if isinstance(one, dict) else np.copy(one)
