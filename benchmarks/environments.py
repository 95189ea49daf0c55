"""Environment steps/s: the engines beside MiniGrid and POPGym; the adapter to SB3 beside the engine."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401  (registers MiniGrid's environments)
import numpy as np
import numpy.typing as npt
from side_by_side import Row, Size, Table, Target, Turn, in_turns

from memspan.agents import VecEnvAdapter
from memspan.envs import CorridorVectorEnv, InstructionVectorEnv, PortalVectorEnv, register_envs
from memspan.envs.vector_engine import VectorEngine

MINIGRID = "MiniGrid-MemoryS13Random-v0"
POPGYM = (
    "RepeatFirstEasy",
    "AutoencodeEasy",
    "CountRecallEasy",
    "ConcentrationEasy",
    "PositionOnlyCartPoleEasy",
)
ENGINES: dict[str, tuple[type[VectorEngine], int, float]] = {
    "Corridor, 64": (CorridorVectorEnv, 64, 20e6),
    "Corridor, 1,024": (CorridorVectorEnv, 1024, 40e6),
    "Portal, 64": (PortalVectorEnv, 64, 20e6),
    "Portal, 1,024": (PortalVectorEnv, 1024, 40e6),
    "Instruction, 64": (InstructionVectorEnv, 64, 5e6),
    "Instruction, 1,024": (InstructionVectorEnv, 1024, 5e6),
}
"""Name -> class, environments, steps/s that are aimed at."""
TIMES_MINIGRID = 1_000
ROWS = 256


def recorded(kind: type[VectorEngine], n_envs: int) -> list[npt.NDArray[np.int64]]:
    """Rows of actions to be played from seed 0: random ones, in Instruction the right ones."""
    envs = kind(n_envs)
    envs.reset(seed=0)
    rows = list(np.random.default_rng(0).integers(0, envs.num_actions, (ROWS, n_envs)))
    if kind is InstructionVectorEnv:
        # At random, episodes would end with the first mistake.
        for i in range(ROWS):
            rows[i] = envs.get_state()["required_action"]
            envs.step(rows[i])
    return rows


def engine_turn(kind: type[VectorEngine], n_envs: int, steps: int, adapted: bool = False) -> Turn:
    """Turns of an engine through `step()`, by itself or behind the adapter to SB3."""
    rows = recorded(kind, n_envs)
    envs = kind(n_envs)
    adapter = VecEnvAdapter(envs)
    step = adapter.step if adapted else envs.step
    rounds = max(1, steps // (ROWS * n_envs))

    def turn() -> dict[str, float]:
        seconds = 0.0
        for _ in range(rounds):
            adapter.seed(0)
            adapter.reset()
            begun = time.perf_counter()
            for actions in rows:
                step(actions)
            seconds += time.perf_counter() - begun
        return {"steps": rounds * ROWS * n_envs / seconds}

    return turn


def single_turn(env: gym.Env[Any, Any], n_steps: int) -> Turn:
    """Turns of one environment with random actions, resets included."""
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(n_steps)]

    def turn() -> dict[str, float]:
        begun = time.perf_counter()
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return {"steps": n_steps / (time.perf_counter() - begun)}

    return turn


def engines_table(size: Size, tell: Callable[[str], None]) -> Table:
    """Engines and MiniGrid."""
    steps = size.of(4_000_000, 200_000)
    contestants = {name: engine_turn(kind, n, steps) for name, (kind, n, _) in ENGINES.items()}
    contestants["MiniGrid"] = single_turn(gym.make(MINIGRID), size.of(2_000, 200))
    for turn in contestants.values():
        turn()
    found = in_turns(contestants, 2 * size.turns, tell)
    peer = found["MiniGrid"]["steps"]
    rows = []
    for name, (_, _, aim) in ENGINES.items():
        what, rates = f"{name} environments", found[name]["steps"]
        rows.append(Row(what, rates, MINIGRID, peer, Target("ours", at_least=aim)))
        rows.append(Row(what, rates, MINIGRID, peer, Target("ratio", at_least=TIMES_MINIGRID)))
    notes = [
        "Engines through `step()`, as a trainer calls it; MiniGrid is one environment from `gym.make`.",
        "Actions are drawn at random beforehand; in Instruction they are the right ones.",
    ]
    return Table("Engines, steps/s", "steps/s", rows, notes=notes)


def popgym_table(size: Size, tell: Callable[[str], None]) -> Table:
    """POPGym's environments, each one from its class, beside our forms to read and our engine."""
    title = "POPGym, steps/s of one environment"
    try:
        from popgym import envs as popgym_envs
    except ImportError as error:
        tell(f"not installed: {error.name}")
        return Table(title, "steps/s", [], notes=[f"Not measured: {error.name} is not installed."])
    ours = {
        "Corridor engine, 64 environments": engine_turn(CorridorVectorEnv, 64, size.of(4_000_000, 200_000)),
        "Corridor, form to read": single_turn(gym.make("memspan/Corridor-v0"), size.of(5_000, 200)),
    }
    theirs = {name: single_turn(getattr(popgym_envs, name)(), size.of(5_000, 200)) for name in POPGYM}
    for turn in (*ours.values(), *theirs.values()):
        turn()
    found = in_turns(ours | theirs, size.turns, tell)
    rows = [
        Row(what, found[what]["steps"], f"POPGym's {name}", found[name]["steps"])
        for what in ours
        for name in theirs
    ]
    return Table(title, "steps/s", rows)


def adapter_table(size: Size, tell: Callable[[str], None]) -> Table:
    """What the adapter to SB3 adds to a step."""
    steps, rows = size.of(1_000_000, 30_000), []
    for name, (kind, n_envs, _) in ENGINES.items():
        if n_envs != 64:
            continue
        contestants = {
            "engine": engine_turn(kind, n_envs, steps),
            "adapted": engine_turn(kind, n_envs, steps, adapted=True),
        }
        for turn in contestants.values():
            turn()
        found = in_turns(contestants, 2 * size.turns, tell)
        seconds = {key: [1e6 * n_envs / rate for rate in each["steps"]] for key, each in found.items()}
        added = [both - alone for both, alone in zip(seconds["adapted"], seconds["engine"], strict=True)]
        rows.append(
            Row(
                f"{name} environments: added by the adapter",
                added,
                "the engine's step",
                seconds["engine"],
                Target("ratio", at_most=1),
            )
        )
    return Table("The adapter to Stable-Baselines3, microseconds of a step of all", "microseconds", rows)


def tables(size: Size, tell: Callable[[str], None]) -> list[Table]:
    """All of this file."""
    warnings.filterwarnings("ignore", category=UserWarning, module="gymnasium")
    register_envs()
    return [engines_table(size, tell), popgym_table(size, tell), adapter_table(size, tell)]
