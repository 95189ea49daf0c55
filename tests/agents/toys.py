"""Small environments of every kind, and small settings of every memory."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from memspan.envs import CorridorVectorEnv

MEMORIES: dict[str, dict[str, Any]] = {
    "none": {},
    "lstm": {"n_layers": 2},
    "gru": {"n_layers": 2},
    "transformer-xl": {"memory_size": 4, "n_heads": 2},
    "gated-transformer-xl": {"memory_size": 4, "n_heads": 2},
    "adaptive-span": {"max_span": 8, "ramp": 3, "n_heads": 2},
    "linear-attention": {"n_heads": 2},
    "state-space": {"n_heads": 2},
    "infinity-former": {"memory_size": 4, "n_heads": 2, "n_basis": 6, "chunk": 3},
    "compressive": {"memory_size": 3, "compression_rate": 2, "compressed_size": 2, "n_heads": 2},
    "expire-span": {"max_span": 8, "ramp": 3, "n_heads": 2},
    "refresh-span": {"max_span": 8, "ramp": 3, "n_heads": 2, "renewal_width": 4},
    "summary-tree": {"memory_size": 2, "n_levels": 3, "n_heads": 2},
}

OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "vector": spaces.Box(-1, 1, (3,), np.float32),
    "matrix": spaces.Box(-1, 1, (2, 3), np.float64),
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([3, 4]),
    "sentence": spaces.MultiDiscrete([30] * 6),
    "multi-binary": spaces.MultiBinary(4),
    "picture 36": spaces.Box(0, 255, (36, 36, 3), np.uint8),
    "picture 64": spaces.Box(0, 255, (64, 64, 3), np.uint8),
    "picture, channels first": spaces.Box(0, 255, (3, 40, 40), np.uint8),
    "small grey picture": spaces.Box(0, 255, (12, 12, 1), np.uint8),
    "symbols 3": spaces.Box(0, 255, (3, 3, 3), np.uint8),
    "symbols 7": spaces.Box(0, 255, (7, 7, 3), np.uint8),
    "dict": spaces.Dict(
        {
            "symbols": spaces.Box(0, 255, (7, 7, 3), np.uint8),
            "direction": spaces.Discrete(4),
            "compass": spaces.Box(-1, 1, (2,), np.float32),
        }
    ),
    "dict with picture and symbols": spaces.Dict(
        {
            "picture": spaces.Box(0, 255, (40, 40, 3), np.uint8),
            "symbols": spaces.Box(0, 255, (5, 5, 3), np.uint8),
        }
    ),
}

ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "box": spaces.Box(-0.5, 0.5, (2,), np.float32),
    "box matrix": spaces.Box(-0.5, 0.5, (2, 2), np.float32),
    "multi-binary": spaces.MultiBinary(3),
}


class Toy(gym.Env[Any, Any]):
    """Random observations and episodes of 2 to 5 steps, every other of which is cut by a time limit, and
    some of which reach both their end and the limit.

    Rewards tell the step and the action; what is drawn follows from the seed.
    """

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(
        self,
        observations: str = "vector",
        actions: str = "discrete",
        tells_success: bool = True,
        render_mode: str | None = None,
    ) -> None:
        self.observation_space = copy.deepcopy(OBSERVATIONS[observations])
        self.action_space = copy.deepcopy(ACTIONS[actions])
        self.tells_success = tells_success
        self.render_mode = render_mode
        self.n_episodes = 0
        self.closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
            self.n_episodes = 0
        self.n_episodes += 1
        self.steps = 0
        self.length = (options or {}).get("length") or int(self.np_random.integers(2, 6))
        return self.observation_space.sample(), {"length": self.length}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action in self.action_space
        self.steps += 1
        over = self.steps >= self.length
        cut = self.n_episodes % 2 == 0
        info = {"steps": self.steps, "nested": {"length": self.length}}
        if self.tells_success:
            info["success"] = over and not cut
        reward = self.steps + float(np.sum(action)) / 8
        truncated = over and (cut or self.n_episodes % 3 == 0)
        return self.observation_space.sample(), reward, over and not cut, truncated, info

    def render(self) -> Any:
        return np.full((4, 4, 3), self.steps, np.uint8)

    def double(self, number: int) -> int:
        return 2 * number + self.length

    def close(self) -> None:
        self.closed = True


def corridors(num_envs: int, max_length: int = 5, **kwargs: Any) -> CorridorVectorEnv:
    return CorridorVectorEnv(num_envs, max_length=max_length, **kwargs)


class Recall(VectorEnv[Any, Any, Any]):
    """A bit is shown at first; in the last of three steps, the action has to be that bit."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
    n_steps = 3

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(0, 1, (3,), np.float32)
        self.single_action_space = spaces.Discrete(2)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.rng = np.random.default_rng(seed)
        self.now = 0
        self.bits = self.rng.integers(2, size=self.num_envs)
        return self.observe(), {}

    def observe(self) -> Any:
        """The bit at first, "answer" at the end, nothing in between."""
        observations = np.zeros((self.num_envs, 3), np.float32)
        if self.now == 0:
            observations[np.arange(self.num_envs), self.bits] = 1
        observations[:, 2] = self.now == self.n_steps - 1
        return observations

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        over = np.full(self.num_envs, self.now == self.n_steps - 1)
        success = over & (actions == self.bits)
        infos: dict[str, Any] = {"success": success}
        final_obs = self.observe()
        self.now += 1
        if over[0]:
            infos["final_obs"] = final_obs
            self.now = 0
            self.bits = self.rng.integers(2, size=self.num_envs)
        return self.observe(), success.astype(float), over, np.zeros_like(over), infos
