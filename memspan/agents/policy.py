"""Actor and critic on top of a memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.utils import FloatSchedule, get_device
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional as F

from memspan.agents.archive import Target
from memspan.agents.auxiliary import AuxiliaryTasks
from memspan.agents.choices import check_finite, choose
from memspan.agents.features import default_extractor, preprocess
from memspan.agents.masks import as_masks, mask_logits
from memspan.agents.precision import use_precision
from memspan.agents.saved import Saved, check_memory_settings, write_saved
from memspan.memory import MemoryOutput, State, clone_state, make_memory, optimizer_groups
from memspan.memory.few_rows import FewRows

Self = TypeVar("Self", bound="MemoryPolicy")


class Acted(NamedTuple):
    """What acting for one step gives; B rows."""

    actions: Tensor
    """(B, *action shape)."""
    values: Tensor
    """(B,)."""
    log_probs: Tensor
    """(B,)."""
    memory: MemoryOutput


class Evaluated(NamedTuple):
    """What the current policy thinks of a block; T steps, B rows."""

    values: Tensor
    """(T, B)."""
    log_probs: Tensor
    """(T, B)."""
    entropy: Tensor | None
    """(T, B), or None where the distribution has no closed form."""
    memory: MemoryOutput
    auxiliary_losses: dict[str, Tensor]
    """Task -> mean over the block, see `memspan.agents.auxiliary`."""


class MemoryPolicy(ActorCriticPolicy):
    """Features -> memory -> actor and critic, for every observation and action space of SB3.

    Args:
        observation_space: any that SB3 handles; the extractor follows from it unless given.
        action_space: Box, Discrete, MultiDiscrete or MultiBinary.
        lr_schedule: learning rate as a function of the remaining progress.
        memory: name of a registered memory, or `module:Class`.
        memory_kwargs: settings of the memory.
        width: D, width of the memory.
        net_arch: layers of actor and critic after the memory, as in SB3.
        first_preference: gain of the first weights from the actor's last layer to the logits of discrete
            actions. SB3's 0.01 makes a first policy that does not care where it goes. Behind a door that is
            chosen by a coin, the value is the same whatever is remembered, and the critic, who learns at
            every step, has nothing to remember it for; one that prefers a door gives it a reason.
        precision: "float32", or "bfloat16" for the matrix products of linear layers between observations and
            the last ones of actor and critic, see `memspan.agents.precision`.
        auxiliary_tasks: what to learn beside acting, see `memspan.agents.auxiliary`; the agent's coefficients
            set it.
        kwargs: as in SB3's ActorCriticPolicy; by default the optimizer is a fused Adam with eps 1e-8 and
            betas (0.9, 0.99).
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        memory: str = "transformer-xl",
        memory_kwargs: dict[str, Any] | None = None,
        width: int = 64,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        first_preference: float = 0.01,
        precision: str = "float32",
        auxiliary_tasks: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        if kwargs.get("use_sde"):
            raise ValueError("use_sde=True: not supported with a memory; must be False")
        if not kwargs.get("share_features_extractor", True):
            raise ValueError(
                "share_features_extractor=False: must be True, for actor and critic share a memory"
            )
        if "optimizer_class" not in kwargs and kwargs.get("optimizer_kwargs") is None:
            # Adam with all parameters in one kernel. Its eps is torch's: the 1e-5 that SB3 and others give to
            # PPO is more than the gradients that find a memory, one step in hundreds, and hides them. Its
            # second beta is below torch's 0.999: where gradients have been small for long, as in a task
            # that is solved, a rare large one would make a step that undoes what was learnt.
            kwargs["optimizer_kwargs"] = {"eps": 1e-8, "betas": (0.9, 0.99), "fused": True}
        self.memory_name = memory
        self.memory_kwargs = dict(memory_kwargs or {})
        self.width = width
        self.first_preference = first_preference
        self.precision = precision
        self.auxiliary_tasks = list(auxiliary_tasks)
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch if net_arch is not None else dict(pi=[64], vf=[64]),
            features_extractor_class=features_extractor_class or default_extractor(observation_space),
            **kwargs,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        self.embed = nn.Linear(self.features_dim, self.width)
        self.features_dim = self.width  # what SB3 builds actor and critic on
        memory = make_memory(self.memory_name, self.width, self.memory_kwargs)
        super()._build(lr_schedule)
        if self.ortho_init and not isinstance(self.action_space, spaces.Box):
            assert isinstance(self.action_net, nn.Linear)
            nn.init.orthogonal_(self.action_net.weight, gain=self.first_preference)
        self.memory = memory
        for part in (self.features_extractor, self.embed, self.memory, self.mlp_extractor):
            use_precision(part, self.precision)
        self._few_embedded = FewRows(self, "embed")
        # Of others it is not known what they do with their networks.
        plain = type(self.mlp_extractor) is MlpExtractor
        self._few_logits = FewRows(self, *("mlp_extractor.policy_net", "action_net") if plain else ())
        self._few_values = FewRows(self, *("mlp_extractor.value_net", "value_net") if plain else ())
        self.auxiliary = AuxiliaryTasks(
            self.auxiliary_tasks, self.width, self.observation_space, self.action_space
        )
        groups = optimizer_groups(
            memory, self.parameters(), adam=issubclass(self.optimizer_class, torch.optim.Adam)
        )
        for group in groups[1:]:
            group["own_lr"] = group["lr"]
        self.optimizer = self.optimizer_class(groups, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        del data["use_sde"], data["squash_output"], data["use_expln"]
        data.update(
            memory=self.memory_name,
            memory_kwargs=self.memory_kwargs,
            width=self.width,
            first_preference=self.first_preference,
            precision=self.precision,
            auxiliary_tasks=self.auxiliary_tasks,
        )
        return data

    def save(self, path: Target) -> None:
        """Writes the policy alone to a zip of tensors and JSON, see `memspan.agents.saved`."""
        settings = self._get_constructor_parameters()
        del settings["lr_schedule"]
        write_saved(path, self, settings, "policy")

    @classmethod
    def load(cls: type[Self], path: Target, device: torch.device | str = "auto") -> Self:
        """A policy from a file that `save` wrote. Nothing that the file holds is run.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no such file, or not whole, or does not fit.
        """
        saved = Saved(path, "policy")
        settings = saved.take_settings({})
        with saved.naming():
            check_memory_settings(settings.get("memory"), settings.get("memory_kwargs"))
            with torch.device("meta"):
                saved.check_shapes(cls(lr_schedule=FloatSchedule(0.0), **settings))
            policy = cls(lr_schedule=FloatSchedule(0.0), **settings)
        saved.put_into(policy)
        return policy.to(get_device(device))

    # Features: the one path of acting, bootstrap and update

    def embed_observations(self, observations: PyTorchObs) -> Tensor:
        """(N, ...) observations -> (N, D) inputs of the memory."""
        ready = preprocess(observations, self.observation_space, self.normalize_images)
        features = self.features_extractor(ready)
        few = self._few_embedded(features)
        embedded: Tensor = self.embed(features) if few is None else few
        return embedded

    def act(
        self,
        observations: PyTorchObs,
        state: State,
        episode_start: Tensor,
        deterministic: bool = False,
        action_masks: Tensor | None = None,
        others: tuple[int, int] = (0, 0),
    ) -> Acted:
        """One step; takes `state` over, see `Memory.step`.

        Args:
            observations: (B, ...).
            state: of the memory.
            episode_start: (B,) bool.
            deterministic: the most probable actions instead of drawn ones.
            action_masks: (B, choices) bool.
            others: rows of other processes before and behind these. They draw, too: all processes use up the
                same random numbers, and each row gets those of its place among all.
        """
        memory = self.memory.step(self.embed_observations(observations), state, episode_start)
        if action_masks is None and self._chooses_as_here():
            logits, values = self._logits_and_values(memory.features)
            actions, log_probs = choose(logits, deterministic, others)
            return Acted(actions, values, log_probs, memory)
        latent_pi, latent_vf = self.mlp_extractor(memory.features)
        if any(others):
            latent_pi = F.pad(latent_pi, (0, 0, *others))
            action_masks = None if action_masks is None else F.pad(action_masks, (0, 0, *others), value=True)
        if deterministic:
            check_finite(latent_pi)
        distribution = self._get_action_dist_from_latent(latent_pi, action_masks)
        actions = distribution.get_actions(deterministic=deterministic)
        log_probs = distribution.log_prob(actions)
        if any(others):
            own = slice(others[0], len(actions) - others[1])
            actions, log_probs = actions[own], log_probs[own]
        return Acted(actions, self.value_net(latent_vf).squeeze(-1), log_probs, memory)

    def _chooses_as_here(self) -> bool:
        """Whether logits are all that a choice depends on; a subclass may have a distribution of its own."""
        own = type(self)._get_action_dist_from_latent is not MemoryPolicy._get_action_dist_from_latent
        return not own and isinstance(self.action_dist, CategoricalDistribution)

    def _logits_and_values(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, choices) and (B,) of features (B, D)."""
        logits, values = self._few_logits(features), self._few_values(features)
        if logits is None or values is None:
            latent_pi, latent_vf = self.mlp_extractor(features)
            logits, values = self.action_net(latent_pi), self.value_net(latent_vf)
        return logits, values.squeeze(-1)

    def _get_action_dist_from_latent(
        self, latent_pi: Tensor, action_masks: Tensor | None = None
    ) -> Distribution:
        if action_masks is None and isinstance(self.action_dist, CategoricalDistribution):
            # As SB3, without torch's checks, which cost as much as drawing.
            logits = self.action_net(latent_pi)
            self.action_dist.distribution = Categorical(logits=logits, validate_args=False)
            return self.action_dist
        if action_masks is None:
            return super()._get_action_dist_from_latent(latent_pi)
        logits = mask_logits(self.action_net(latent_pi), action_masks, self.action_space)
        return self.action_dist.proba_distribution(action_logits=logits)

    def values_of(self, observations: PyTorchObs, state: State, episode_start: Tensor) -> Tensor:
        """(B,) values; takes `state` over."""
        memory = self.memory.step(self.embed_observations(observations), state, episode_start)
        return self.value_net(self.mlp_extractor.forward_critic(memory.features)).squeeze(-1)  # type: ignore[no-any-return]

    def evaluate_block(
        self,
        observations: PyTorchObs,
        actions: Tensor,
        state: State,
        episode_starts: Tensor,
        rewards: Tensor | None = None,
        action_masks: Tensor | None = None,
    ) -> Evaluated:
        """A block of T steps of B rows: what the update differentiates.

        Args:
            observations: (T, B, ...).
            actions: (T, B, *action shape).
            state: what the memory held before the block.
            episode_starts: (T, B) bool.
            rewards: (T, B), of about the size 1, if outcomes are to be predicted.
            action_masks: (T, B, choices) bool, see `memspan.agents.masks`; None: every action was allowed.
        """
        n_steps, n_rows = episode_starts.shape
        if isinstance(observations, dict):
            flat: Any = {key: value.flatten(0, 1) for key, value in observations.items()}
        else:
            flat = observations.flatten(0, 1)
        x = self.embed_observations(flat).view(n_steps, n_rows, -1)
        memory = self.memory(x, state, episode_starts, keep_state=False)
        latent_pi, latent_vf = self.mlp_extractor(memory.features.flatten(0, 1))
        masks = None if action_masks is None else action_masks.flatten(0, 1)
        distribution = self._get_action_dist_from_latent(latent_pi, masks)
        log_probs = distribution.log_prob(actions.flatten(0, 1)).view(n_steps, n_rows)
        entropy = distribution.entropy()
        return Evaluated(
            self.value_net(latent_vf).view(n_steps, n_rows),
            log_probs,
            None if entropy is None else entropy.view(n_steps, n_rows),
            memory,
            self.auxiliary(memory.features, actions, x, flat, rewards, episode_starts),
        )

    # SB3's interface

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Actions and the next state; `state` is left as it is.

        Args:
            observation: one, or a batch.
            state: what the last call returned; None: nothing is remembered.
            episode_start: (B,) where an episode starts; None: only where `state` is None.
            deterministic: the most probable action instead of a drawn one.
            action_masks: what is allowed, (choices,) or (B, choices) bool, see `memspan.agents.masks`.
        """
        self.set_training_mode(False)
        observations, is_batch = self.obs_to_tensor(observation)
        n_rows = len(next(iter(observations.values())) if isinstance(observations, dict) else observations)
        if state is None:
            state = self.memory.initial_state(n_rows, self.device)
        if episode_start is None:
            starts = torch.zeros(n_rows, dtype=torch.bool, device=self.device)
        else:
            starts = torch.as_tensor(np.asarray(episode_start, dtype=bool), device=self.device).reshape(-1)
        if len(starts) != n_rows:
            raise ValueError(f"episode_start has {len(starts)} rows: must have one per observation, {n_rows}")
        masks = None
        if action_masks is not None:
            masks = as_masks(action_masks, self.action_space, n_rows, self.device)
        with torch.no_grad():
            acted = self.act(observations, clone_state(state), starts, deterministic, masks)
        actions = acted.actions.cpu().numpy().reshape(-1, *self.action_space.shape)  # type: ignore[misc]
        if isinstance(self.action_space, spaces.Box):
            actions = np.clip(actions, self.action_space.low, self.action_space.high)
        return (actions if is_batch else actions[0]), acted.memory.state

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError("a policy with a memory needs its state: use act or predict")

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        raise NotImplementedError("a policy with a memory needs its state: use evaluate_block")

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        raise NotImplementedError("a policy with a memory needs its state: use values_of")

    def get_distribution(self, obs: PyTorchObs) -> Any:
        raise NotImplementedError("a policy with a memory needs its state: use act")
