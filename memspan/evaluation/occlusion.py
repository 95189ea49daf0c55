"""Which past steps an agent acts on: hide each from it, and see how far its later actions move.

One episode is played. Then, for each of its steps, the memory reads the same episode with that one step blank
(an observation of zeros), and the distributions of the actions at all later steps are compared with what
they were. The distance is total variation: the probability with which an action is another one. For
continuous actions it is an upper bound of that, by Bretagnolle and Huber's inequality.

Beside it stand the lives that the memory gave: for how many steps of this episode each past step could be
read, layer by layer.

Dimension letters: T steps of the episode, N layers, D width of the memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, kl_divergence

from memspan.agents import MemoryPolicy
from memspan.evaluation.episodes import env_actions

ROWS = 256
"""Hidden steps that are looked at together."""


@dataclass(frozen=True)
class Occlusion:
    """What came of one episode of T steps."""

    change: npt.NDArray[np.float32]
    """(T, T): how far the actions at step t (column) move when step s (row) is hidden; 0 where s >= t."""
    read_for: npt.NDArray[np.int64]
    """(N, T): for how many later steps of the episode step s could be read; N = 0 if the memory has no
    slots."""
    success: bool | None

    @property
    def influence(self) -> npt.NDArray[np.float32]:
        """(T,): the largest change that hiding each step makes to any later action."""
        return np.asarray(self.change.max(axis=1), dtype=np.float32)


@torch.no_grad()
def occlude(
    policy: MemoryPolicy, env: VecEnv, deterministic: bool = False, most_steps: int = 1000
) -> Occlusion:
    """Plays one episode and hides each of its steps in turn.

    Args:
        policy: the agent.
        env: one environment, seeded by the caller; it is reset here.
        deterministic: the most probable action instead of a drawn one.
        most_steps: what comes after so many steps is left out.

    Raises:
        ValueError: more than one environment.
    """
    if env.num_envs != 1:
        raise ValueError(f"num_envs={env.num_envs}: must be 1")
    policy.set_training_mode(False)
    state = policy.memory.initial_state(1, policy.device)
    observations, done, info = env.reset(), False, {}
    seen: list[Tensor] = []
    lives: list[npt.NDArray[np.int64]] = []
    while not done and len(seen) < most_steps:
        ready: Any = obs_as_tensor(observations, policy.device)  # type: ignore[arg-type]
        seen.append(policy.embed_observations(ready)[0])
        start = torch.tensor([len(seen) == 1], device=policy.device)
        acted = policy.act(ready, state, start, deterministic)
        state = acted.memory.state
        _count_readable(policy, state, lives, len(seen))
        observations, _, dones, infos = env.step(env_actions(policy, acted.actions))
        done, info = bool(dones[0]), infos[0]
    x = torch.stack(seen)  # (T, D)
    blank = policy.embed_observations(_zeros_like(ready))[0]
    return Occlusion(
        _changes(policy, x, blank),
        np.stack([life[: len(x)] for life in lives]) if lives else np.zeros((0, len(x)), np.int64),
        info.get("is_success") if done else None,
    )


def _changes(policy: MemoryPolicy, x: Tensor, blank: Tensor) -> npt.NDArray[np.float32]:
    n_steps = len(x)
    usual = _features(policy, x[:, None])
    change = np.zeros((n_steps, n_steps), np.float32)
    for first in range(0, n_steps, ROWS):
        rows = torch.arange(first, min(first + ROWS, n_steps))
        hidden = x[:, None].repeat(1, len(rows), 1)  # (T, rows, D)
        hidden[rows, rows - first] = blank
        moved = _features(policy, hidden)
        # Two-dimensional, as SB3's distributions need it.
        ours, theirs = (
            _distributions(policy, each.flatten(0, 1)) for each in (usual.expand_as(moved), moved)
        )
        change[rows] = _distance(ours, theirs).view(n_steps, len(rows)).T.cpu().numpy()
    # A step acts on what it sees itself by sight, not by memory.
    return np.triu(change, k=1)


def _features(policy: MemoryPolicy, x: Tensor) -> Tensor:
    """What an empty memory makes of (T, B, D) inputs of one episode a row."""
    n_steps, n_rows, _ = x.shape
    starts = torch.zeros(n_steps, n_rows, dtype=torch.bool, device=x.device)
    starts[0] = True
    state = policy.memory.initial_state(n_rows, x.device)
    features: Tensor = policy.memory(x, state, starts, keep_state=False).features
    return features


def _distributions(policy: MemoryPolicy, features: Tensor) -> list[Distribution]:
    """Of each part of the actions at (B, D) features."""
    made = policy._get_action_dist_from_latent(policy.mlp_extractor.forward_actor(features))
    inner: Any = made.distribution
    return list(inner) if isinstance(inner, list) else [inner]


def _distance(ours: list[Distribution], theirs: list[Distribution]) -> Tensor:
    """(B,): total variation, or a bound of it; of several parts of an action, the largest."""
    parts = []
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(a, Categorical) and isinstance(b, Categorical):
            parts.append((a.probs - b.probs).abs().sum(-1) / 2)
        elif isinstance(a, Bernoulli) and isinstance(b, Bernoulli):
            parts.append((a.probs - b.probs).abs().amax(-1))
        else:
            divergence = kl_divergence(a, b).sum(-1)
            parts.append((1 - (-divergence).exp()).clamp(min=0).sqrt())
    return torch.stack(parts).amax(0)


def _count_readable(
    policy: MemoryPolicy, state: dict[str, Tensor], lives: list[npt.NDArray[np.int64]], seen: int
) -> None:
    """Adds to each past step's life, layer by layer, if the step just taken could read it."""
    layers = [layer for layer in policy.memory.remembered(state) if layer.age.shape[1]]
    while len(lives) < len(layers):
        lives.append(np.zeros(0, np.int64))
    for n, layer in enumerate(layers):
        life = np.zeros(seen, np.int64)
        life[: len(lives[n])] = lives[n]
        ages = layer.age[0][layer.readable[0]].cpu().numpy()
        np.add.at(life, seen - 1 - ages[ages < seen], 1)
        lives[n] = life


def _zeros_like(observations: Any) -> Any:
    if isinstance(observations, dict):
        return {key: torch.zeros_like(value) for key, value in observations.items()}
    return torch.zeros_like(observations)
