"""Agents that are saved and loaded as Stable-Baselines3's are, without its pickles."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, TypeVar

import gymnasium as gym
import torch
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import FloatSchedule, check_for_correct_spaces, get_system_info

from memspan.agents.archive import Target
from memspan.agents.policy import MemoryPolicy
from memspan.agents.saved import Saved, check_memory_settings, with_suffix, write_saved

Self = TypeVar("Self", bound="SavedAgent")
_FOLLOW = (
    *("lr_schedule", "memory_loss_schedule", "start_time", "rollout_buffer_class", "rollout_buffer_kwargs"),
    *("_last_obs", "_last_episode_starts", "_last_original_obs", "action_noise"),
    *("_rollout_is_bad", "_env_seeds", "_ended", "processes"),
)
"""Attributes that follow from others, or mean nothing in another process."""


class SavedAgent(OnPolicyAlgorithm):
    """`save`, `load` and `set_parameters`, see `memspan.agents.saved`."""

    policy: MemoryPolicy

    @abstractmethod
    def _all_policy_kwargs(self) -> dict[str, Any]:
        """What the policy is made with."""

    def save(
        self, path: Target, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None
    ) -> None:
        """Writes the agent to a zip of tensors and JSON, see `memspan.agents.saved`.

        Functions, as a learning rate may be one, are left out and have to be given to `load`; schedules of
        Stable-Baselines3 are kept.

        Args:
            path: the file, old or new and never half of it; or one that is open for writing.
            exclude: attributes to leave out.
            include: attributes to keep that would be left out.
        """
        left_out = {*self._excluded_save_params(), *_FOLLOW, *(exclude or ())} - {*(include or ())}
        settings = {name: value for name, value in vars(self).items() if name not in left_out}
        write_saved(with_suffix(path), self.policy, settings, "agent")

    @classmethod
    def load(
        cls: type[Self],
        path: Target,
        env: GymEnv | gym.vector.VectorEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """An agent from a file that `save` wrote. Nothing that the file holds is run.

        Args:
            path: the file, with or without .zip; or one that is open for reading.
            env: where it acts from now on.
            device: where it computes.
            custom_objects: values in place of those of the file.
            print_system_info: print what is installed.
            force_reset: as in Stable-Baselines3; episodes always start anew.
            kwargs: more values in place of those of the file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no such file, or not whole, or does not fit.
        """
        if print_system_info:
            get_system_info()
        saved = Saved(with_suffix(path, must_exist=True), "agent")
        settings = saved.take_settings({**(custom_objects or {}), **kwargs})
        if "policy_kwargs" in kwargs and saved.settings.get("policy_kwargs") != kwargs["policy_kwargs"]:
            raise ValueError(f"policy_kwargs={kwargs['policy_kwargs']}: must be as stored")
        wrapped = None
        if env is not None:
            with saved.naming():
                wrapped = cls._wrap_env(env, settings["verbose"])  # type: ignore[arg-type]
                spaces_of_file = settings["observation_space"], settings["action_space"]
            check_for_correct_spaces(wrapped, *spaces_of_file)
            settings["n_envs"] = wrapped.num_envs
        with saved.naming():
            check_memory_settings(settings.get("memory"), settings.get("memory_kwargs"))
            policy_class = settings["policy_class"]
            if not issubclass(policy_class, MemoryPolicy):
                raise ValueError(f"policy_class={policy_class.__name__}: must be a MemoryPolicy")
            for name in settings:
                if hasattr(cls, name):
                    raise ValueError(f"{name}: no setting of {cls.__name__}")
            model = cls(policy_class, None, device=device, _init_setup_model=False)  # type: ignore[arg-type, call-arg]
            vars(model).update(settings)
            vars(model).update(kwargs)
            saved.check_shapes(model._shapes())
            model._setup_model()
        if wrapped is not None:
            model.set_env(wrapped, force_reset=force_reset)
        saved.put_into(model.policy)
        return model

    def set_parameters(
        self, load_path_or_dict: Any, exact_match: bool = True, device: torch.device | str = "auto"
    ) -> None:
        """As in Stable-Baselines3; a path must be that of a file that `save` wrote."""
        if isinstance(load_path_or_dict, dict):
            super().set_parameters(load_path_or_dict, exact_match, device)
        else:
            Saved(with_suffix(load_path_or_dict, must_exist=True), "agent").put_into(self.policy)

    def _shapes(self) -> MemoryPolicy:
        """The policy without memory for its numbers: to compare shapes before any is asked for."""
        with torch.device("meta"):
            schedule = FloatSchedule(self.learning_rate)
            kwargs = self._all_policy_kwargs()
            return self.policy_class(self.observation_space, self.action_space, schedule, **kwargs)  # type: ignore[return-value]
