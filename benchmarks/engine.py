"""Environment steps per second on one core: engines, the adapter to SB3 and single environments, in one run.

    python benchmarks/engine.py

Everything is measured in turns: many short pieces of each, one after the other, so that all meet the same
machine. Time is the thread's own on its core (`time.thread_time`): what other programs do meanwhile counts
only as far as they take caches and clock away. On a busy machine that is much, so the median of the best
quarter is given beside the median of all.

Actions are drawn beforehand. "adapter" is what `VecEnvAdapter.step` takes more than the engine's `step`;
"with all infos read" is that with every environment's info looked at, as trainers other than ours do.
"inside one kernel" loops over steps in compiled code, without a Python call per step: no trainer in Python
gets that.
"""

import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import gymnasium as gym
import minigrid  # noqa: F401  (registers MiniGrid's environments)
import numpy as np
import numpy.typing as npt
from numba import njit
from rich.console import Console
from rich.table import Table

import memspan  # noqa: F401  (registers ours)
from memspan.agents import VecEnvAdapter
from memspan.envs import CorridorVectorEnv
from memspan.envs import corridor_kernel as kernel

REPEATS = 40
PEER = "MiniGrid-MemoryS13Random-v0, gym.make"
Piece = tuple[Callable[[], Any], Callable[[], Any], int]
"""What comes before, what is timed, and how many environment steps it makes."""


class Row(NamedTuple):
    """A measured figure."""

    name: str
    median: float
    min: float
    max: float
    unit: str


@njit
def step_many(
    actions: npt.NDArray[np.int64],
    state: npt.NDArray[np.int64],
    limits: npt.NDArray[np.int64],
    views: npt.NDArray[np.uint8],
    block: npt.NDArray[np.uint8],
) -> None:
    """Calls the engine's kernel in a compiled loop; actions (T, N)."""
    for t in range(len(actions)):
        kernel.step(actions[t], state, limits, views, block)


def make_engine(task: str, num_envs: int) -> Any:
    return gym.make_vec(f"memspan/{task}-v0", num_envs=num_envs, vectorization_mode="vector_entry_point")


def oracle(engine: Any) -> npt.NDArray[np.int64]:
    """What is called for in Instruction."""
    actions: npt.NDArray[np.int64] = engine.get_state()["required_action"]
    return actions


def draw_actions(engine: Any, right: bool) -> list[npt.NDArray[np.int64]]:
    """Actions of a piece from `reset(seed=0)`: random ones, or what Instruction calls for."""
    steps = max(16, 8192 // engine.num_envs)
    if not right:
        shape = (steps, engine.num_envs)
        return list(np.random.default_rng(0).integers(0, engine.num_actions, shape))
    engine.reset(seed=0)
    actions = []
    for _ in range(steps):
        actions.append(oracle(engine))
        engine.step(actions[-1])
    return actions


def engine_piece(task: str, num_envs: int, right: bool) -> Piece:
    """An engine through `step()`."""
    engine = make_engine(task, num_envs)
    actions = draw_actions(engine, right)

    def run(step: Callable[..., Any] = engine.step) -> None:
        for row in actions:
            step(row)

    return lambda: engine.reset(seed=0), run, len(actions) * num_envs


def adapter_piece(task: str, num_envs: int, right: bool, read: bool) -> Piece:
    """An engine through SB3's interface."""
    engine = make_engine(task, num_envs)
    actions = draw_actions(engine, right)
    env = VecEnvAdapter(engine)

    def begin() -> None:
        env.seed(0)
        env.reset()

    def run(step: Callable[..., Any] = env.step) -> None:
        for row in actions:
            infos = step(row)[3]
            if read:
                for info in infos:
                    info.get("episode")

    return begin, run, len(actions) * num_envs


def kernel_piece(num_envs: int) -> Piece:
    """The Corridor engine's kernel alone."""
    engine = CorridorVectorEnv(num_envs)
    actions = np.array(draw_actions(engine, right=False))
    block = engine._make_outputs().block
    run = lambda: step_many(actions, *engine._world, block)  # noqa: E731
    return lambda: engine.reset(seed=0), run, actions.size


def single_piece(env_id: str, steps: int = 30) -> Piece:
    """One environment from `gym.make`."""
    env = gym.make(env_id)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, env.action_space.n, steps).tolist()  # type: ignore[attr-defined]

    def run() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return lambda: None, run, steps


def pieces() -> dict[str, Piece]:
    """All that is measured, by name."""
    found: dict[str, Piece] = {}
    for task, right in (
        ("Corridor", False),
        ("Portal", False),
        ("Instruction", False),
        ("Instruction", True),
    ):
        for num_envs in (64, 1024):
            name = f"{task}{', right actions' if right else ''}, {num_envs}"
            found[f"{name}: engine"] = engine_piece(task, num_envs, right)
            found[f"{name}: with adapter"] = adapter_piece(task, num_envs, right, read=False)
            found[f"{name}: with adapter, all infos read"] = adapter_piece(task, num_envs, right, read=True)
    found["Corridor, 64: inside one kernel"] = kernel_piece(64)
    found["Corridor, 1024: inside one kernel"] = kernel_piece(1024)
    for task in ("Corridor", "Portal", "Instruction"):
        found[f"{task}, form to read, gym.make"] = single_piece(f"memspan/{task}-v0")
    found[PEER] = single_piece("MiniGrid-MemoryS13Random-v0")
    return found


def measure() -> dict[str, list[float]]:
    """Environment steps per second of every repeat, by name."""
    measured = pieces()
    rates: dict[str, list[float]] = {name: [] for name in measured}
    for repeat in range(REPEATS + 2):
        for name, (begin, run, steps) in measured.items():
            begin()
            start = time.thread_time()
            run()
            taken = time.thread_time() - start
            if repeat >= 2:  # the first compile, or read what has been compiled, and warm up
                rates[name].append(steps / taken)
    return rates


def rows() -> list[Row]:
    """Measures, and returns steps/s of everything, and how many times MiniGrid's the engines' are."""
    rates = measure()
    found = [Row(name, median(r), min(r), max(r), "steps/s") for name, r in rates.items()]
    for name, of_engine in rates.items():
        if name.endswith("engine"):
            ratios = [one / peer for one, peer in zip(of_engine, rates[PEER], strict=True)]
            found.append(Row(f"{name} / {PEER}", median(ratios), min(ratios), max(ratios), "times"))
    return found


def best_quarter(rates: list[float]) -> float:
    """The median of the best quarter."""
    return median(sorted(rates)[-max(1, len(rates) // 4) :])


def steps_table(rates: dict[str, list[float]]) -> Table:
    table = Table(
        "what",
        "steps/s",
        "best quarter",
        "range",
        "x MiniGrid",
        title="Environment steps per second, one core",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name, values in rates.items():
        ratio = median(one / peer for one, peer in zip(values, rates[PEER], strict=True))
        spread = f"{min(values):,.0f} - {max(values):,.0f}"
        table.add_row(name, f"{median(values):,.0f}", f"{best_quarter(values):,.0f}", spread, f"{ratio:,.1f}")
    return table


def adapter_table(rates: dict[str, list[float]]) -> Table:
    """Microseconds of a step of all environments: the engine's, and what the adapter adds to it."""
    table = Table(
        "what",
        "engine",
        "adapter adds",
        "share",
        "with all infos read",
        title="Microseconds per step(), best quarter",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name in rates:
        if name.endswith(": engine"):
            what = name.removesuffix(": engine")
            num_envs = int(what.split(", ")[-1])
            engine, adapter, read = (
                1e6 * num_envs / best_quarter(rates[f"{what}: {of}"])
                for of in ("engine", "with adapter", "with adapter, all infos read")
            )
            added = adapter - engine
            table.add_row(
                what, f"{engine:.2f}", f"{added:.2f}", f"{added / engine:.0%}", f"{read - engine:.2f}"
            )
    return table


def main() -> None:
    """Measures and prints."""
    warnings.filterwarnings("ignore", category=UserWarning, module="gymnasium")
    console = Console(width=max(Console().width, 120))
    with console.status("Measuring in turns; a minute on a free core."):
        rates = measure()
    console.print(steps_table(rates))
    console.print(adapter_table(rates))


if __name__ == "__main__":
    main()
