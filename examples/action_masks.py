"""Actions that are not always allowed, told by `action_masks()` as for sb3-contrib's MaskablePPO.

Pairs of cards lie face down. Each step turns one; two that match are taken away, two that do not lie face
down again. Cards that are gone or open cannot be turned. Where the others lie has to be remembered.

    python examples/action_masks.py

Takes about 10 seconds on one core; after 20,000 steps 1.95 of 2 pairs are found in 8 steps.
"""

import gymnasium as gym
import numpy as np
import tyro
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from memspan import MemoryPPO
from memspan.agents import MaskedPredictor


class Pairs(gym.Env):
    """Observed are the card turned last, its picture, and whether another one is open beside it."""

    def __init__(self, n_pairs: int = 2, max_steps: int = 8) -> None:
        self.n_cards, self.max_steps = 2 * n_pairs, max_steps
        self.observation_space = spaces.MultiDiscrete([self.n_cards + 1, n_pairs + 1, 2])
        self.action_space = spaces.Discrete(self.n_cards)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.pictures = self.np_random.permutation(self.n_cards) // 2
        self.lying, self.open, self.now = np.ones(self.n_cards, dtype=bool), None, 0
        return np.array([self.n_cards, self.n_cards // 2, 0]), {}

    def action_masks(self) -> np.ndarray:
        """(n_cards,) bool: the cards that may be turned now."""
        allowed = self.lying.copy()
        if self.open is not None:
            allowed[self.open] = False
        return allowed

    def step(self, card: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_masks()[card], "never comes, with masks"
        self.now += 1
        first = self.open is None
        matches = not first and self.pictures[card] == self.pictures[self.open]
        if matches:
            self.lying[[card, self.open]] = False
        self.open = card if first else None
        seen = np.array([card, self.pictures[card], int(first)])
        return seen, float(matches), not self.lying.any(), self.now == self.max_steps, {}


def main(timesteps: int = 20_000) -> float:
    """Trains; returns the mean return of 100 episodes."""
    env = make_vec_env(Pairs, 16)
    model = MemoryPPO(
        "MlpPolicy", env, "gru", n_steps=32, learning_rate=3e-3, ent_coef=0.01, seed=0, action_masks=True
    )
    model.learn(timesteps, progress_bar=timesteps > 10_000)
    mean, _ = evaluate_policy(MaskedPredictor(model, env), env, n_eval_episodes=100, deterministic=False)
    print(f"mean number of pairs found in 8 steps: {mean:.2f} of 2")
    return mean


if __name__ == "__main__":
    tyro.cli(main)
