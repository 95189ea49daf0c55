"""An agent at work, step by step: what it sees, does and remembers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from memspan.agents import MemoryPolicy
from memspan.memory import Remembered
from memspan.runs import RunConfig, adapt
from memspan.runs.environments import without_text
from memspan.show.actions import action_names
from memspan.show.environments import episode_outcome


@dataclass(frozen=True)
class Frame:
    """One step of an episode, before the environment has answered; or the end of one."""

    drawing: Any
    """What the environment drew: a picture (height, width, 3) or text."""
    episode: int
    """From 1."""
    step: int
    """Steps taken so far."""
    action: str
    """What the agent does now; nothing at the end."""
    reward: float
    """Of the step before."""
    total: float
    """Return so far."""
    value: float
    """What the agent expects from here on, discounted; at the end, what it expected last."""
    outcome: str
    """How the episode ended; empty before."""
    success: bool | None
    """At the end, where the environment tells."""
    memory: str
    """Name of the memory."""
    capacity: float
    effective: float
    """Effective memory at the step that the agent has seen last."""
    seen: int
    """Steps that the memory was shown in this episode; its slots' ages count back from the last."""
    layers: tuple[Remembered, ...]
    """What each layer of the memory holds; one row."""


class RenderEveryStep(gym.Wrapper):
    """Renders after every step and every reset: so the end of an episode is seen, whoever resets."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.renders: deque[Any] = deque()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        answer = self.env.reset(seed=seed, options=options)
        self.renders.append(self.env.render())
        return answer

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        answer = self.env.step(action)
        self.renders.append(self.env.render())
        return answer


class Player:
    """Plays episodes with a run's agent in an environment that renders itself.

    Args:
        config: the run.
        policy: its agent.
        env: the environment, from `make_rendered_env`.
        seed: of the environment.
    """

    def __init__(self, config: RunConfig, policy: MemoryPolicy, env: gym.Env[Any, Any], seed: int) -> None:
        self.config = config
        self.policy = policy
        self.rendered = RenderEveryStep(env)
        vector = SyncVectorEnv([lambda: without_text(self.rendered)], autoreset_mode=AutoresetMode.SAME_STEP)
        self.env: VecEnv = adapt(config, vector)
        self.env.seed(seed)
        discrete = isinstance(env.action_space, spaces.Discrete)
        self.names: Sequence[str] | None = action_names(env) if discrete else None

    @property
    def longest(self) -> int | None:
        """Steps after which an episode is cut, where that is known."""
        spec = self.rendered.spec
        told = getattr(self.rendered.unwrapped, "max_steps", None) or (
            spec.max_episode_steps if spec else None
        )
        return int(told) if told else None

    def frames(self, n_episodes: int, deterministic: bool) -> Iterator[Frame]:
        """Every step of every episode, and the end of each.

        Args:
            n_episodes: how many.
            deterministic: the most probable action instead of a drawn one.
        """
        policy = self.policy
        policy.set_training_mode(False)
        state = policy.memory.initial_state(1, policy.device)
        self.rendered.renders.clear()
        observations = self.env.reset()
        for episode in range(1, n_episodes + 1):
            drawing = self.rendered.renders.popleft()
            step, reward, total, done = 0, 0.0, 0.0, False
            while not done:
                with torch.no_grad():
                    acted = policy.act(
                        obs_as_tensor(observations, policy.device),  # type: ignore[arg-type]
                        state,
                        torch.tensor([step == 0], device=policy.device),
                        deterministic,
                    )
                    state = acted.memory.state
                    layers = tuple(policy.memory.remembered(state))
                actions = self._clipped(acted.actions.cpu().numpy())
                now: dict[str, Any] = {
                    "episode": episode,
                    "value": float(acted.values[0]),
                    "memory": self.config.memory.rpartition(":")[2],
                    "capacity": policy.memory.capacity,
                    "effective": float(acted.memory.stats["effective_memory"][0]),
                    "seen": step + 1,
                    "layers": layers,
                }
                yield Frame(
                    drawing,
                    step=step,
                    action=self._name(actions[0]),
                    reward=reward,
                    total=total,
                    outcome="",
                    success=None,
                    **now,
                )
                observations, rewards, dones, infos = self.env.step(actions)
                drawing = self.rendered.renders.popleft()
                step, reward, done = step + 1, float(rewards[0]), bool(dones[0])
                total += reward
            success = infos[0].get("is_success")
            outcome = episode_outcome(success, bool(infos[0].get("TimeLimit.truncated")))
            yield Frame(
                drawing,
                step=step,
                action="",
                reward=reward,
                total=total,
                outcome=outcome,
                success=success,
                **now,
            )

    def _clipped(self, actions: np.ndarray) -> np.ndarray:
        space = self.policy.action_space
        actions = actions.reshape(-1, *(space.shape or ()))
        return np.clip(actions, space.low, space.high) if isinstance(space, spaces.Box) else actions

    def _name(self, action: Any) -> str:
        if self.names is None:
            return np.array2string(np.asarray(action), precision=2, suppress_small=True)
        return self.names[int(action) - int(getattr(self.policy.action_space, "start", 0))]
