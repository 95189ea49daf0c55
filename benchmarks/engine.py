"""Environment steps per second on one core: the engine beside single environments, in one run.

    python benchmarks/engine.py

Actions are drawn beforehand. Every figure is the median of several repeats; the range is their lowest
and highest. "inside one kernel" loops over steps in compiled code, without a Python call per step: what the
kernel could do for a caller that is compiled itself. No trainer in Python gets it; the "step()" rows are what
one gets.
"""

import time
import warnings
from collections.abc import Callable
from statistics import median

import gymnasium as gym
import minigrid  # noqa: F401  (registers MiniGrid's environments)
import numpy as np
import numpy.typing as npt
from numba import njit
from rich.console import Console
from rich.table import Table

from memspan.envs import CorridorVectorEnv, InstructionVectorEnv, PortalVectorEnv, register_envs
from memspan.envs import corridor_kernel as kernel
from memspan.envs.vector_engine import VectorEngine

REPEATS = 9
ACTION_ROWS = 256
Actions = npt.NDArray[np.int64]


@njit
def step_many(
    steps: int,
    actions: npt.NDArray[np.int64],
    state: npt.NDArray[np.int64],
    rng: npt.NDArray[np.uint64],
    limits: npt.NDArray[np.int64],
    views: npt.NDArray[np.uint8],
    obs: npt.NDArray[np.uint8],
    final_obs: npt.NDArray[np.uint8],
    rewards: npt.NDArray[np.float64],
    flags: npt.NDArray[np.bool_],
) -> None:
    """Calls the engine's kernel in a compiled loop; actions (rows, N) are used over and over."""
    for t in range(steps):
        kernel.step(actions[t % len(actions)], state, rng, limits, views, obs, final_obs, rewards, flags)


def rates(run: Callable[[], int]) -> list[float]:
    """Environment steps per second of several repeats of `run`, which returns how many it made."""
    run()
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        steps = run()
        found.append(steps / (time.perf_counter() - start))
    return found


def public_rates(envs: VectorEngine, policy: Callable[[VectorEngine], Actions] | None = None) -> list[float]:
    """An engine through `step()`, as a trainer uses it.

    Actions are random, or what a policy did in a first run, which is played again from the same seed.
    """
    envs.reset(seed=0)
    shape = (ACTION_ROWS, envs.num_envs)
    rows = list(np.random.default_rng(0).integers(0, envs.num_actions, shape))
    if policy is not None:
        for i in range(ACTION_ROWS):
            rows[i] = policy(envs)
            envs.step(rows[i])
    rounds = max(1, 4_000_000 // (envs.num_envs * ACTION_ROWS))

    def run() -> int:
        for _ in range(rounds):
            envs.reset(seed=0)
            for actions in rows:
                envs.step(actions)
        return rounds * ACTION_ROWS * envs.num_envs

    return rates(run)


def oracle(envs: VectorEngine) -> Actions:
    """What is called for in Instruction."""
    assert isinstance(envs, InstructionVectorEnv)
    return envs.get_state()["required_action"]


def kernel_rates(num_envs: int) -> list[float]:
    """The engine's kernel alone."""
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 4, (ACTION_ROWS, num_envs))
    state = np.zeros((num_envs, 5), dtype=np.int64)
    streams = rng.integers(0, 2**63, num_envs, dtype=np.uint64)
    limits = np.array([3, 198, 400, 0])
    kernel.draw_layouts(state, streams, limits, np.ones(num_envs, dtype=np.bool_))
    obs = np.empty((num_envs, 3, 3, 3), dtype=np.uint8)
    arrays = (obs, obs.copy(), np.empty(num_envs), np.empty((4, num_envs), dtype=np.bool_))
    views = kernel.build_views(3)
    steps = 8_000_000 // num_envs

    def run() -> int:
        step_many(steps, actions, state, streams, limits, views, *arrays)
        return steps * num_envs

    return rates(run)


def single_rates(env_id: str) -> list[float]:
    """One environment from `gym.make`."""
    env = gym.make(env_id)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, env.action_space.n, 2000).tolist()

    def run() -> int:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return len(actions)

    return rates(run)


def main() -> None:
    """Measures and prints."""
    warnings.filterwarnings("ignore", category=UserWarning, module="gymnasium")
    register_envs()
    found = [
        ("Corridor engine, step(), 64 environments", public_rates(CorridorVectorEnv(64))),
        ("Corridor engine, step(), 1024 environments", public_rates(CorridorVectorEnv(1024))),
        ("Portal engine, step(), 64 environments", public_rates(PortalVectorEnv(64))),
        ("Portal engine, step(), 1024 environments", public_rates(PortalVectorEnv(1024))),
        ("Instruction engine, random actions, 64", public_rates(InstructionVectorEnv(64))),
        ("Instruction engine, right actions, 64", public_rates(InstructionVectorEnv(64), oracle)),
        ("Instruction engine, right actions, 1024", public_rates(InstructionVectorEnv(1024), oracle)),
        ("Corridor engine, inside one kernel, 64", kernel_rates(64)),
        ("Corridor engine, inside one kernel, 1024", kernel_rates(1024)),
        ("Corridor, form to read, gym.make", single_rates("memspan/Corridor-v0")),
        ("Portal, form to read, gym.make", single_rates("memspan/Portal-v0")),
        ("Instruction, form to read, gym.make", single_rates("memspan/Instruction-v0")),
        ("MiniGrid-MemoryS13Random-v0, gym.make", single_rates("MiniGrid-MemoryS13Random-v0")),
    ]
    peer = median(found[-1][1])
    table = Table("what", "steps/s", "range", "x MiniGrid", title="Environment steps per second, one core")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, values in found:
        table.add_row(
            name,
            f"{median(values):,.0f}",
            f"{min(values):,.0f} - {max(values):,.0f}",
            f"{median(values) / peer:,.1f}",
        )
    Console(width=max(Console().width, 100)).print(table)


if __name__ == "__main__":
    main()
