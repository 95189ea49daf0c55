"""The memory horizon: how far back an agent's success depends on what it saw, whatever its memory is made of.

Before each decision the memory is made empty and shown the last k observations and the present one. Success
over k says how much of the past is *used*, where the effective memory size says how much is *kept*: an LSTM
keeps two vectors, and how far back they reach can only be seen from what it does. The horizon is the
smallest k that keeps 99 % of the success.

Dimension letters: B rows (environments side by side), K past steps that are shown, D width of the memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from memspan.agents import MemoryPolicy
from memspan.evaluation.episodes import Episodes, OnProgress, play_episodes
from memspan.evaluation.intervals import Interval, mean_interval, wilson_interval
from memspan.evaluation.json_files import checked, read_json, write_json
from memspan.memory import MemoryOutput, State

FILE_NAME = "horizon.json"
KEPT = 0.99
"""Share of the success that the horizon keeps."""
FINE_ENOUGH = 0.05
"""The horizon is told to within this share of itself."""


@dataclass(frozen=True)
class Point:
    """Success of the agent that is shown so many past steps."""

    steps: int
    score: float
    """Success rate; mean return where the environment does not tell success."""
    ci: Interval


@dataclass(frozen=True)
class Horizon:
    """What was found about one run; see the module."""

    env: str
    memory: str
    name: str
    seed: int
    timesteps: int
    episodes: int
    evaluation_seed: int
    deterministic: bool
    tells_success: bool
    full: float
    """Score with the whole past."""
    full_ci: Interval
    horizon: int | None
    """Steps, 0 where the present is enough; None where nothing succeeds, so that there is nothing to keep."""
    points: list[Point]
    """By rising steps, from 0."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    memory_kwargs: dict[str, Any] = field(default_factory=dict)
    memspan_version: str = ""
    torch_version: str = ""
    git_commit: str | None = None

    def save(self, folder: Path) -> Path:
        """Writes `horizon.json`, whole or not at all."""
        return write_json(folder / FILE_NAME, dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Horizon:
        """Reads a run folder's `horizon.json`.

        Raises:
            ValueError: there is none, or it is not one of this version's.
        """
        with read_json(folder / FILE_NAME, "horizon") as data:
            points = [Point(**{**point, "ci": tuple(point["ci"])}) for point in data.pop("points")]
            if not points:
                raise ValueError("points=[]: must be at least one")
            return checked(cls(**(data | {"full_ci": tuple(data["full_ci"])}), points=points))


@dataclass(frozen=True)
class _Acted:
    actions: Tensor
    memory: MemoryOutput


class _WindowMemory:
    """State of `WindowedPolicy`: inputs of the last K steps (B, K, D), and where episodes started (B, K)."""

    def __init__(self, policy: MemoryPolicy, steps: int) -> None:
        self.policy, self.steps = policy, steps

    def initial_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        return {
            "x": torch.zeros(batch_size, self.steps, self.policy.width, device=device),
            "starts": torch.ones(batch_size, self.steps, dtype=torch.bool, device=device),
        }


class WindowedPolicy:
    """An agent that knows the last K steps only: acts as `MemoryPolicy.act` does, from an empty memory.

    Args:
        policy: the agent.
        steps: K; 0: it sees the present alone.
    """

    def __init__(self, policy: MemoryPolicy, steps: int) -> None:
        self.policy = policy
        self.memory = _WindowMemory(policy, steps)
        self.device = policy.device
        self.action_space = policy.action_space

    def set_training_mode(self, mode: bool) -> None:
        self.policy.set_training_mode(mode)

    def act(
        self, observations: PyTorchObs, state: State, episode_start: Tensor, deterministic: bool = False
    ) -> _Acted:
        """One step from the window alone; see `MemoryPolicy.act`."""
        policy = self.policy
        x = torch.cat([state["x"], policy.embed_observations(observations)[:, None]], dim=1)
        starts = torch.cat([state["starts"], episode_start[:, None]], dim=1)
        empty = policy.memory.initial_state(len(x), policy.device)
        # Steps of earlier episodes are in the window, too; the start of the present one clears them.
        out = policy.memory(x.transpose(0, 1), empty, starts.T, keep_state=False)
        latent = policy.mlp_extractor.forward_actor(out.features[-1])
        actions = policy._get_action_dist_from_latent(latent).get_actions(deterministic=deterministic)
        stats = {name: values[-1] for name, values in out.stats.items()}
        window = {"x": x[:, 1:].contiguous(), "starts": starts[:, 1:].contiguous()}
        return _Acted(actions, MemoryOutput(out.features[-1], window, stats=stats))


MakeEnv = Callable[[], VecEnv]
"""The same environments with the same seeds at every call."""


def find_horizon(
    policy: MemoryPolicy,
    make_env: MakeEnv,
    n_episodes: int,
    deterministic: bool = False,
    on_progress: Callable[[str, int], None] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The fields of a `Horizon` that follow from playing.

    K is doubled until the success is kept, and then halved in between as long as that tells more than
    `FINE_ENOUGH`.

    Args:
        policy: the agent.
        make_env: see `MakeEnv`.
        n_episodes: for every K.
        deterministic: the most probable action instead of a drawn one.
        on_progress: told what is being played, and how many episodes of it are finished.
        seed: of the actions that are drawn, for every K the same.
    """

    def play(steps: int | None) -> Episodes:
        torch.manual_seed(seed)
        env = make_env()
        name = "the whole past" if steps is None else f"{steps} past steps"
        tell: OnProgress | None = None if on_progress is None else lambda done: on_progress(name, done)
        try:
            player: Any = policy if steps is None else WindowedPolicy(policy, steps)
            return play_episodes(player, env, n_episodes, deterministic, tell)
        finally:
            env.close()

    whole = play(None)
    full, full_ci = _score(whole)
    # A window as long as the longest episode is the whole past.
    longest = int(whole.lengths.max()) - 1
    points: dict[int, Point] = {}

    def kept(steps: int) -> bool:
        if steps not in points:
            points[steps] = Point(steps, *(_score(play(steps)) if steps < longest else (full, full_ci)))
        # Of returns that may be negative, 99 % is meant of what the past adds.
        floor = 0.0 if whole.successes is not None else min(points[0].score, full)
        return points[steps].score - floor >= KEPT * (full - floor)

    low, high = 0, 0
    # Even of a score that is no number there is no more to show than all.
    while not kept(high) and high < longest:
        low, high = high, min(max(2 * high, 1), longest)
    while high - low > max(FINE_ENOUGH * high, 1):
        middle = (low + high) // 2
        low, high = (low, middle) if kept(middle) else (middle, high)
    return {
        "tells_success": whole.successes is not None,
        "episodes": n_episodes,
        "full": full,
        "full_ci": full_ci,
        "horizon": high if full > 0 or whole.successes is None else None,
        "points": [points[steps] for steps in sorted(points)],
    }


def _score(played: Episodes) -> tuple[float, Interval]:
    if played.successes is None:
        return float(played.returns.mean()), mean_interval(played.returns)
    successes, n = int(played.successes.sum()), len(played.successes)
    return successes / n, wilson_interval(successes, n)
