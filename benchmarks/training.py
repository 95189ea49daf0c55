"""Training speed on Corridor, side by side on one core: memspan's memories and sb3-contrib's RecurrentPPO.

    python benchmarks/training.py [--rollouts 8]

Each agent first trains for a while unmeasured, so that it walks and episodes have their usual lengths.
Expire-Span is measured twice: as it starts, and with short spans, as it is once it has forgotten.
RecurrentPPO gets the sizes of memspan's LSTM preset: units, steps, minibatches, epochs.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

import memspan  # noqa: F401  (registers the environments)
from memspan.runs import RunConfig, make_env, make_model, preset

ENV = "memspan/Corridor-v0"


class RolloutTimes(BaseCallback):
    """When each rollout began."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def _on_rollout_start(self) -> None:
        self.times.append(time.perf_counter())

    def _on_step(self) -> bool:
        return True


def memspan_agent(memory: str, **memory_kwargs: Any) -> BaseAlgorithm:
    """MemoryPPO with its preset, settings of the memory changed."""
    config = RunConfig(**preset(ENV, memory))
    return make_model(replace(config, memory_kwargs=config.memory_kwargs | memory_kwargs))


def recurrent_ppo() -> BaseAlgorithm:
    """RecurrentPPO with the sizes of memspan's LSTM preset."""
    from sb3_contrib import RecurrentPPO

    config = RunConfig(**preset(ENV, "lstm"))
    return RecurrentPPO(
        "MlpLstmPolicy",
        make_env(config),
        learning_rate=config.learning_rate,
        n_steps=config.n_steps,
        batch_size=config.n_steps * config.n_envs // config.n_minibatches,
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        ent_coef=config.ent_coef,
        policy_kwargs={
            "lstm_hidden_size": config.width,
            "enable_critic_lstm": False,
            "shared_lstm": True,
            "net_arch": {"pi": [64], "vf": [64]},
        },
        seed=0,
        device="cpu",
    )


def more_work() -> BaseAlgorithm:
    """Transformer-XL with the update of the usual size instead of the preset's."""
    config = RunConfig(**preset(ENV, "transformer-xl"))
    settings = config.memory_kwargs | {"n_heads": 4, "n_frequencies": 8}
    return make_model(replace(config, n_epochs=3, memory_kwargs=settings))


AGENTS: dict[str, Callable[[], BaseAlgorithm]] = {
    "none": lambda: memspan_agent("none"),
    "lstm": lambda: memspan_agent("lstm"),
    "sb3-contrib RecurrentPPO, LSTM": recurrent_ppo,
    "transformer-xl, memory 200": lambda: memspan_agent("transformer-xl"),
    "transformer-xl, memory 200, 3 epochs, 4 heads": more_work,
    "expire-span, at the start": lambda: memspan_agent("expire-span"),
    "expire-span, having forgotten": lambda: memspan_agent("expire-span", initial_span=0.02),
}


def measure(make: Callable[[], BaseAlgorithm], warm_up: int, rollouts: int) -> float:
    """Median steps/s of `rollouts` rollouts with their updates, after `warm_up` unmeasured ones."""
    model = make()
    per_rollout = model.n_steps * model.n_envs  # type: ignore[attr-defined]
    clock = RolloutTimes()
    model.learn(per_rollout * (warm_up + rollouts + 1), callback=clock)
    durations = [end - start for start, end in zip(clock.times, clock.times[1:], strict=False)]
    return per_rollout / median(durations[warm_up:])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--warm-up", type=int, default=14, help="rollouts before measuring")
    parser.add_argument("--rollouts", type=int, default=8, help="measured rollouts")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    console = Console()
    table = Table(title=f"Training on {ENV}, 64 environments, one core")
    table.add_column("agent")
    table.add_column("steps/s", justify="right")
    for name in track(AGENTS, description="training", console=console):
        try:
            speed = f"{measure(AGENTS[name], options.warm_up, options.rollouts):,.0f}"
        except ImportError as error:
            speed = f"not installed: {error.name}"
        table.add_row(name, speed)
    console.print(table)


if __name__ == "__main__":
    main()
