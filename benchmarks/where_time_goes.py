"""Where a training loop's time goes, and how far that is from what its arithmetic alone would take.

    python benchmarks/where_time_goes.py [MEMORY...] [--rollouts 6]

64 environments, blocks of 128 steps, width 64, 3 epochs of 4 minibatches; Transformers have 2 layers of
4 heads, and Expire-Span the short spans that it has once trained. Prints, of a rollout with its update, the
time of each part, and the floor: floating point operations of its matrix products by the rate of a large one,
or the bytes these read and write by the rate at which memory is copied, whichever takes longer.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from memspan.agents import watch
from memspan.agents.base import MemoryAlgorithm
from memspan.runs import RunConfig, make_model

LAYERS = {"n_layers": 2, "n_heads": 4}
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "lstm": {},
    "transformer-xl": LAYERS | {"memory_size": 200},
    "expire-span": LAYERS | {"max_span": 256, "ramp": 16, "initial_span": 0.02},
}
WARM_UP = 10
"""Rollouts, until episodes have their usual lengths."""


class Products(TorchDispatchMode):
    """Counts floating point operations and bytes of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=out)
            tensors = [one for one in (*args, out) if isinstance(one, torch.Tensor)]
            self.bytes += sum(one.numel() * one.element_size() for one in tensors)
        return out


class Stopwatch:
    """Time within functions, less that within others of them that they call."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.inner: list[float] = []

    def around(self, owner: Any, name: str, part: str) -> None:
        """Has a function's time counted to a part."""
        function = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                whole = time.perf_counter() - start
                self.seconds[part] += whole - self.inner.pop()
                if self.inner:
                    self.inner[-1] += whole

        setattr(owner, name, timed)


def agent(memory: str) -> MemoryAlgorithm:
    """An agent of the sizes above, which has walked for a while."""
    config = RunConfig(memory=memory, device="cpu", n_epochs=3, memory_kwargs=SETTINGS[memory])
    model = make_model(config)
    model.learn(WARM_UP * model.n_steps * model.n_envs)
    return model


def parts(model: MemoryAlgorithm, rollouts: int) -> tuple[dict[str, float], float]:
    """Seconds of each part, and of all, per rollout with its update."""
    stopwatch = Stopwatch()
    policy = model.policy
    stopwatch.around(model, "train", "update: losses, minibatches, records")
    stopwatch.around(policy, "evaluate_block", "update: heads and distributions, forward")
    stopwatch.around(policy.memory, "forward", "update: memory, forward")
    stopwatch.around(model, "_descend", "update: backward, clipping, optimizer")
    stopwatch.around(model, "collect_rollouts", "acting: buffer, checks, callbacks")
    stopwatch.around(policy, "act", "acting: heads, drawing actions")
    stopwatch.around(policy.memory, "step", "acting: memory")
    stopwatch.around(policy, "embed_observations", "observations to features, both")
    stopwatch.around(watch, "step", "environments and their adapter")
    start = time.perf_counter()
    model.learn(rollouts * model.n_steps * model.n_envs, reset_num_timesteps=False)
    whole = (time.perf_counter() - start) / rollouts
    return {part: seconds / rollouts for part, seconds in stopwatch.seconds.items()}, whole


def best(function: Callable[[], Any], repeats: int = 30) -> float:
    """Seconds of the fastest call."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


def rates() -> tuple[float, float]:
    """Operations a second of a large matrix product, and bytes a second that a copy reads and writes."""
    x = torch.randn(1024, 1024)
    numbers = torch.randn(2**24)
    target = torch.empty_like(numbers)
    return 2 * 1024**3 / best(lambda: x @ x), 2 * 2**26 / best(lambda: target.copy_(numbers))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("memories", nargs="*", help=f"of {', '.join(SETTINGS)}; default: all")
    parser.add_argument("--rollouts", type=int, default=6)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    console = Console(highlight=False)
    operations_rate, bytes_rate = rates()
    columns: dict[str, dict[str, str]] = {}
    for memory in track(options.memories or list(SETTINGS), description="measuring", console=console):
        model = agent(memory)
        with Products() as products:
            model.learn(model.n_steps * model.n_envs, reset_num_timesteps=False)
        seconds, whole = parts(model, options.rollouts)
        floor = max(products.operations / operations_rate, products.bytes / bytes_rate)
        cells = {part: f"{1000 * value:.0f} ms" for part, value in sorted(seconds.items())}
        cells["all"] = f"{1000 * whole:.0f} ms"
        cells["steps/s"] = f"{model.n_steps * model.n_envs / whole:,.0f}"
        cells["products"] = f"{products.operations / 1e9:.1f} GFLOP, {products.bytes / 1e9:.1f} GB"
        cells["floor"] = f"{1000 * floor:.0f} ms"
        cells["all / floor"] = f"{whole / floor:.1f}"
        columns[memory] = cells
    table = Table(title="A rollout of 64 x 128 steps with its update, one core")
    table.add_column("part")
    for memory in columns:
        table.add_column(memory, justify="right")
    for part in dict.fromkeys(part for cells in columns.values() for part in cells):
        table.add_row(part, *(cells.get(part, "") for cells in columns.values()))
    console.print(table)
    console.print(f"Products: {operations_rate / 1e9:.0f} GFLOP/s; copies: {bytes_rate / 1e9:.0f} GB/s.")


if __name__ == "__main__":
    main()
