"""A windowed Transformer-XL trained by PPO: a plain reference of that method, to measure speed against.

The method is that of Memory Gym's baseline (Pleines et al., Memory Gym, 2023, arXiv 2309.17207) and of
CleanRL's `ppo_trxl`: a step's query reads a window of what the layers took in at the last W steps of its
episode. These are stored when the agent acts. For the update every sample gets its own window out of the
store, adds the code of its positions, normalises it and projects keys and values from it; samples are drawn
one by one.
So a step that lies in the windows of W later ones is normalised and projected W times per layer and epoch.

    stored     (B, W + T, N, D)   the W steps before the rollout, then its T steps
    window     stored[b, t : t + W] for step t of row b: the W steps before it
    readable   (B, T, W)          those of its own episode

Everything else is as in `MemoryPPO`: environments, features, actor, critic, optimizer, losses. Episodes cut
short count as ended, as they do there. Dimension letters: as in `memspan.memory`; W is the window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.agents.features import default_extractor, preprocess


@dataclass(frozen=True)
class Settings:
    """Those of a `MemoryPPO` with the memory `transformer-xl`, by the same names."""

    n_steps: int = 128
    window: int = 200
    width: int = 64
    n_layers: int = 2
    n_heads: int = 4
    ff_factor: int = 2
    n_epochs: int = 3
    n_minibatches: int = 4
    learning_rate: float = 1e-3
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    ent_coef: float = 0.005
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    min_advantage_std: float = 0.05


class WindowedLayer(nn.Module):
    """Pre-norm attention of one query per sample over the sample's own window, and a feed-forward layer."""

    def __init__(self, width: int, n_heads: int, ff_factor: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_query, self.norm_window, self.norm_ff = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.ff = nn.Sequential(
            nn.Linear(width, ff_factor * width), nn.ReLU(), nn.Linear(ff_factor * width, width)
        )

    def forward(self, x: Tensor, window: Tensor, readable: Tensor) -> Tensor:
        """Inputs x (B, D), window (B, W, D), readable (B, W) -> (B, D)."""
        heads = (self.n_heads, -1)
        query = self.query(self.norm_query(x)).unflatten(-1, heads)  # (B, H, E)
        window = self.norm_window(window)
        keys = self.key(window).unflatten(-1, heads)  # (B, W, H, E)
        values = self.value(window).unflatten(-1, heads)
        scores = torch.einsum("bhe,bwhe->bhw", query, keys) / math.sqrt(query.shape[-1])
        mask = readable.unsqueeze(1)
        # A number, not -inf: at an episode's first step there is nothing to read, and nothing is.
        weights = torch.softmax(scores.masked_fill(~mask, -1e9), dim=-1) * mask
        x = x + self.out(torch.einsum("bhw,bwhe->bhe", weights, values).flatten(1))
        out: Tensor = x + self.ff(self.norm_ff(x))
        return out


class WindowedPolicy(nn.Module):
    """Features -> layers over windows -> actor and critic."""

    positions: Tensor

    def __init__(self, env: VecEnv, settings: Settings) -> None:
        super().__init__()
        self.space = env.observation_space
        self.extractor = default_extractor(self.space)(self.space)
        width = settings.width
        self.embed = nn.Linear(self.extractor.features_dim, width)
        self.layers = nn.ModuleList(
            WindowedLayer(width, settings.n_heads, settings.ff_factor) for _ in range(settings.n_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.actor = nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, int(env.action_space.n)))
        self.critic = nn.Sequential(nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, 1))
        nn.init.orthogonal_(self.actor[-1].weight, gain=0.01)
        # Sines and cosines of how long ago: W steps at the front of the window, 1 at its end.
        distance = torch.arange(settings.window, 0, -1.0)
        angle = distance[:, None] * 1e4 ** (-torch.arange(0, width, 2) / width)
        self.register_buffer("positions", torch.cat([angle.sin(), angle.cos()], dim=-1))

    def forward(
        self, observations: Tensor, windows: Tensor, readable: Tensor
    ) -> tuple[torch.distributions.Categorical, Tensor, Tensor]:
        """Observations (B, ...), windows (B, W, N, D), readable (B, W).

        Returns:
            Distribution of the actions, values (B,), and what the layers took in (B, N, D), to be stored.
        """
        x = self.embed(self.extractor(preprocess(observations, self.space, True)))
        windows = windows + self.positions[:, None]
        inputs = []
        for n, layer in enumerate(self.layers):
            inputs.append(x.detach())
            x = layer(x, windows[:, :, n], readable)
        x = self.norm(x)
        actions = torch.distributions.Categorical(logits=self.actor(x), validate_args=False)
        return actions, self.critic(x).squeeze(-1), torch.stack(inputs, dim=1)


class WindowedPPO:
    """Rollouts and updates on a `VecEnv` with discrete actions.

    Args:
        env: B environments.
        settings: see `Settings`.
    """

    def __init__(self, env: VecEnv, settings: Settings | None = None) -> None:
        self.env = env
        self.settings = s = settings or Settings()
        self.policy = WindowedPolicy(env, s)
        self.optimizer = torch.optim.Adam(
            self.policy.parameters(), s.learning_rate, betas=(0.9, 0.99), fused=True
        )
        self.n_rows = env.num_envs
        self.stored = torch.zeros(self.n_rows, s.window + s.n_steps, s.n_layers, s.width)
        self.first = torch.zeros(self.n_rows, dtype=torch.long)
        """Where the episode of each row begins in the store."""
        self.observations = torch.as_tensor(np.asarray(env.reset()))
        self.starts = torch.ones(self.n_rows, dtype=torch.bool)
        self.success: list[float] = []
        """Of the episodes that ended, in order."""
        self.episode_lengths: list[int] = []

    def _look(self, t: int) -> tuple[Tensor, Tensor]:
        """Windows (B, W, N, D) of step t, and what of them is readable (B, W)."""
        window = self.settings.window
        places = torch.arange(t, t + window)
        return self.stored[:, t : t + window], places >= self.first[:, None]

    @torch.no_grad()
    def collect(self) -> dict[str, Tensor]:
        """A rollout, every entry (T, B, ...)."""
        s = self.settings
        self.policy.eval()
        steps: list[dict[str, Tensor]] = []
        for t in range(s.n_steps):
            self.first = torch.where(self.starts, s.window + t, self.first)
            windows, readable = self._look(t)
            actions, values, inputs = self.policy(self.observations, windows, readable)
            self.stored[:, s.window + t] = inputs
            drawn = actions.sample()
            observations, rewards, dones, infos = self.env.step(drawn.numpy())
            steps.append(
                {
                    "observations": self.observations,
                    "readable": readable,
                    "actions": drawn,
                    "log_probs": actions.log_prob(drawn),
                    "values": values,
                    "rewards": torch.as_tensor(rewards),
                    "starts": self.starts,
                }
            )
            for row in np.flatnonzero(dones):
                self.success.append(float(infos[row]["success"]))
                self.episode_lengths.append(int(infos[row]["episode"]["l"]))
            self.observations, self.starts = torch.as_tensor(observations), torch.as_tensor(dones)
        self.first = torch.where(self.starts, s.window + s.n_steps, self.first)
        _, last_values, _ = self.policy(self.observations, *self._look(s.n_steps))
        rollout = {name: torch.stack([step[name] for step in steps]) for name in steps[0]}
        rollout["advantages"] = self._advantages(rollout, last_values)
        return rollout

    def _advantages(self, rollout: dict[str, Tensor], last_values: Tensor) -> Tensor:
        """Generalised advantage estimation, (T, B)."""
        s = self.settings
        values = torch.cat([rollout["values"], last_values[None]])
        goes_on = 1 - torch.cat([rollout["starts"][1:], self.starts[None]]).float()
        advantages = torch.zeros_like(rollout["values"])
        after = torch.zeros(self.n_rows)
        for t in reversed(range(s.n_steps)):
            delta = rollout["rewards"][t] + s.gamma * goes_on[t] * values[t + 1] - values[t]
            after = delta + s.gamma * s.gae_lambda * goes_on[t] * after
            advantages[t] = after
        return advantages

    def evaluate(self, rollout: dict[str, Tensor], samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities, entropies and values of some samples, each numbered t * B + row."""
        t, row = samples // self.n_rows, samples % self.n_rows
        places = t[:, None] + torch.arange(self.settings.window)
        actions, values, _ = self.policy(
            rollout["observations"][t, row], self.stored[row[:, None], places], rollout["readable"][t, row]
        )
        return actions.log_prob(rollout["actions"][t, row]), actions.entropy(), values

    def update(self, rollout: dict[str, Tensor]) -> None:
        """PPO's epochs over a rollout; then the store moves on."""
        s = self.settings
        self.policy.train()
        flat = {name: rollout[name].flatten() for name in ("log_probs", "values", "advantages")}
        every, returns = flat["advantages"], flat["advantages"] + flat["values"]
        scaled = (every - every.mean()) / max(float(every.std()), s.min_advantage_std)
        for _ in range(s.n_epochs):
            for samples in torch.randperm(len(every)).chunk(s.n_minibatches):
                log_probs, entropies, values = self.evaluate(rollout, samples)
                ratio = (log_probs - flat["log_probs"][samples]).exp()
                clipped = ratio.clamp(1 - s.clip_range, 1 + s.clip_range)
                advantages = scaled[samples]
                loss = (
                    -torch.min(advantages * ratio, advantages * clipped).mean()
                    - s.ent_coef * entropies.mean()
                    + s.vf_coef * F.mse_loss(values, returns[samples])
                )
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self.policy.parameters(), s.max_grad_norm)
                self.optimizer.step()
        self.forget()

    def forget(self) -> None:
        """Moves the store on by a rollout: its last W steps come before the next."""
        s = self.settings
        self.stored[:, : s.window] = self.stored[:, s.n_steps :].clone()
        self.first = (self.first - s.n_steps).clamp(min=0)
