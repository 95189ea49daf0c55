"""What a step costs after a past of any length: time and state of every memory.

    python benchmarks/past.py --out results/cost

A memory whose settings let it reach back over T steps (`memspan.probes.far_enough`) reads T steps of noise in
blocks, with the state carried on, for T from 10 to 100,000. Then, from what it has come to:

    acting    16 single steps, from a copy of the state each time
    training  a block of 64 steps, forward and backward

One row, one thread, untrained weights. Times are the process's CPU time, so that what else the machine does
counts for little, and medians of several repeats.

Reading with attention over everything takes time that grows with the square of T. Where it would take more
than --fill-seconds, going by the two lengths before, the longest past that would not takes T's place.

Untrained, a memory with a learnt span for each input keeps a share of everything. It is measured a second
time with span predictors that keep 1 input in 50: see `keep_one_in`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from past_figure import draw, tables
from rich.console import Console
from torch import Tensor

from memspan.evaluation import provenance, save_figure
from memspan.memory import MEMORIES, Memory, clone_state, make_memory, state_bytes
from memspan.memory.base import State
from memspan.memory.expire_span import SpanPredictor
from memspan.probes import Entrant, far_enough

LENGTHS = (10, 100, 1_000, 10_000, 100_000)
WIDTH = 64
FILL_BLOCK, TRAIN_BLOCK, ACT_STEPS = 256, 64, 16
ACT_REPEATS, TRAIN_REPEATS = 15, 7
SLOW = 2.0
"""Seconds of repeats after which three of them are enough."""
KEPT = 50
TRIED = 2_000
"""Steps of noise that tell which span predictors keep 1 input in `KEPT`."""
SHARPNESS = 1e3
"""Slope of the logit of spans: hardly any input has neither a span of 0 nor the longest."""
MARK = "<!-- measured -->"


@dataclass(frozen=True)
class Point:
    """One memory after one past."""

    memory: str
    label: str
    past: int
    """Steps that were read."""
    act_seconds: float
    """CPU seconds of an acting step, median of the repeats; lowest and highest follow."""
    act_range: tuple[float, float]
    train_seconds: float
    """The same of a step in a training block."""
    train_range: tuple[float, float]
    state_bytes: int
    effective_memory: float
    capacity: float
    fill_seconds: float
    settings: dict[str, Any]
    """Those that were raised so that the memory reaches back over the past."""


def keep_one_in(memory: Memory, n: int) -> bool:
    """Sets what gives inputs their spans so that 1 in n gets the longest and the others none.

    Each layer in turn: w is a random direction, times `SHARPNESS`, and b so that w.z + b is above 0 for 1 in
    n of what the layer holds at the fullest of its blocks, in `TRIED` steps of noise.

    Returns:
        Whether there are any spans to set.
    """
    predictors = [module for module in memory.modules() if isinstance(module, SpanPredictor)]
    for predictor in predictors:
        seen: list[Tensor] = []
        hook = predictor.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))  # type: ignore[misc]
        read(memory, memory.initial_state(1), noise(TRIED, seed=1))
        hook.remove()
        with torch.no_grad():
            direction = torch.randn(len(predictor.weight), generator=torch.Generator().manual_seed(0))
            predictor.weight.copy_(SHARPNESS * direction)
            predictor.bias.zero_()
            logits = predictor(max(seen, key=lambda slots: slots.shape[1]))
            predictor.bias.copy_(-logits.quantile(1 - 1 / n) / len(direction) ** 0.5)
    return bool(predictors)


VARIANTS: dict[str, Callable[[Memory], bool]] = {
    "": lambda memory: True,
    f"keeps 1 in {KEPT}": lambda memory: keep_one_in(memory, KEPT),
}
"""Label -> prepares a memory, or tells that there is nothing to prepare."""


def noise(n_steps: int, seed: int = 0) -> Tensor:
    """(T, 1, D)."""
    return torch.randn(n_steps, 1, WIDTH, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def read(memory: Memory, state: State, x: Tensor) -> State:
    """The state after x (T, 1, D), read in blocks; no episode starts."""
    for block in x.split(FILL_BLOCK):
        state = memory(block, state, torch.zeros(block.shape[:2], dtype=torch.bool)).state
    return memory.compact(state)


def prepared(name: str, label: str, past: int) -> tuple[Memory, dict[str, Any]] | None:
    """The memory for a past, with the settings that were raised for it; None: there is no such variant."""
    settings = far_enough(Entrant(name), WIDTH, past)
    torch.manual_seed(0)
    memory = make_memory(name, WIDTH, settings).eval()
    return (memory, settings) if VARIANTS[label](memory) else None


def repeats(once: Callable[[], float], most: int) -> list[float]:
    """What `most` calls return, or three where calls are slow; one more goes before, which does not count."""
    once()
    found: list[float] = []
    while len(found) < min(3, most) or (len(found) < most and sum(found) < SLOW):
        found.append(once())
    return found


@torch.no_grad()
def acting(memory: Memory, state: State) -> tuple[float, float]:
    """Seconds of `ACT_STEPS` steps, and the effective memory of the first of them."""
    steps, start = noise(ACT_STEPS, seed=2), torch.zeros(1, dtype=torch.bool)
    state = clone_state(state)
    begun = time.process_time()
    effective_memory = 0.0
    for i, x in enumerate(steps):
        out = memory.step(x, state, start)
        state = out.state
        if i == 0:
            effective_memory = out.stats["effective_memory"].item()
    return time.process_time() - begun, effective_memory


def training(memory: Memory, state: State) -> float:
    """Seconds of a block of `TRAIN_BLOCK` steps, forward and backward."""
    x = noise(TRAIN_BLOCK, seed=3).requires_grad_()
    memory.zero_grad()
    begun = time.process_time()
    out = memory(x, state, torch.zeros(TRAIN_BLOCK, 1, dtype=torch.bool), keep_state=False)
    out.features.square().mean().backward()  # type: ignore[no-untyped-call]
    return time.process_time() - begun


def measure(name: str, label: str, past: int) -> Point | None:
    """Reads a past and measures what comes after it; None: there is no such variant."""
    made = prepared(name, label, past)
    if made is None:
        return None
    memory, settings = made
    begun = time.process_time()
    state = read(memory, memory.initial_state(1), noise(past))
    fill_seconds = time.process_time() - begun
    act = [seconds / ACT_STEPS for seconds in repeats(lambda: acting(memory, state)[0], ACT_REPEATS)]
    train = [seconds / TRAIN_BLOCK for seconds in repeats(lambda: training(memory, state), TRAIN_REPEATS)]
    return Point(
        memory=name,
        label=label,
        past=past,
        act_seconds=median(act),
        act_range=(min(act), max(act)),
        train_seconds=median(train),
        train_range=(min(train), max(train)),
        state_bytes=state_bytes(state),
        effective_memory=acting(memory, state)[1],
        capacity=memory.capacity,
        fill_seconds=fill_seconds,
        settings=settings,
    )


def affordable(points: Sequence[Point], past: int, fill_seconds: float) -> int:
    """`past`, or the longest past, to two digits, that is read in `fill_seconds`.

    Seconds are taken as a T + b T^2, through the last two points.
    """
    if len(points) < 2:
        return past
    (t, each), (later, later_each) = ((one.past, one.fill_seconds / one.past) for one in points[-2:])
    b = max((later_each - each) / (later - t), 0.0)
    a = later_each - b * later
    if a * past + b * past**2 <= fill_seconds:
        return past
    most = fill_seconds / a if b == 0 else (-a + (a**2 + 4 * b * fill_seconds) ** 0.5) / (2 * b)
    digit = 10 ** max(len(str(int(most))) - 2, 0)
    return max(int(most) // digit * digit, later)


def series(name: str, label: str, lengths: Sequence[int], fill_seconds: float) -> Iterator[Point]:
    """One memory after every past, rising; the last may be shorter than asked for."""
    points: list[Point] = []
    for length in lengths:
        past = affordable(points, length, fill_seconds)
        if points and past <= points[-1].past:
            return
        point = measure(name, label, past)
        if point is None:
            return
        points.append(point)
        yield point
        if past < length:
            return


def machine() -> dict[str, Any]:
    """What it was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "python_version": platform.python_version(),
    }


def main(args: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes `past.json`, the figure, and the tables into a README that has a mark."""
    args = list(sys.argv[1:] if args is None else args)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/cost"), help="folder of the results")
    parser.add_argument("--memory", nargs="+", default=list(MEMORIES), help="default: all")
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--fill-seconds", type=float, default=40.0, help="CPU seconds to read a past, about")
    parser.add_argument("--note", default="", help="what else there is to say about the measurement")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    console = Console(highlight=False, width=100)
    load, begun = os.getloadavg()[0], time.monotonic()
    points: list[Point] = []
    for i, (name, label) in enumerate(product(options.memory, VARIANTS)):
        for one in series(name, label, sorted(options.lengths), options.fill_seconds):
            points.append(one)
            console.print(
                f"[{i // len(VARIANTS) + 1}/{len(options.memory)}] {name} {label}: {one.past:,} steps, "
                f"{1e3 * one.act_seconds:.2f} ms, {one.state_bytes:,} bytes, {one.effective_memory:,.1f} "
                f"vectors (read in {one.fill_seconds:.1f} s)",
                soft_wrap=True,
                markup=False,
            )
    options.out.mkdir(parents=True, exist_ok=True)
    plain = {
        "command": shlex.join(["python", "benchmarks/past.py", *args]),
        "note": options.note,
        "times": "CPU seconds of one thread, batch of 1, medians; ranges are lowest and highest",
        "load_before": load,
        "minutes": (time.monotonic() - begun) / 60,
        **machine(),
        **provenance(),
        "width": WIDTH,
        "fill_seconds": options.fill_seconds,
        "points": [dataclasses.asdict(point) for point in points],
    }
    (options.out / "past.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    save_figure(draw(plain), options.out / "past")
    readme = options.out / "README.md"
    if readme.exists() and readme.read_text().count(MARK) == 2:
        before, _, after = readme.read_text().split(MARK)
        readme.write_text(f"{before}{MARK}\n\n{tables(plain)}\n\n{MARK}{after}", encoding="utf-8")
    console.print(f"Results: {options.out / 'past.json'}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
