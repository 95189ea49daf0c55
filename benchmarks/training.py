"""Training speed, whole loop: the same environment, sizes and thread for memspan and its peers.

64 environments, blocks of 128 steps, width 64, 3 epochs of 4 minibatches, actor and critic of one layer of
64. Agents first train for a while unmeasured, so that they walk and episodes have their usual lengths.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from statistics import mean
from typing import Any

import numpy as np
from side_by_side import Row, Size, Table, Target, Turn, in_turns, learning
from stable_baselines3.common.base_class import BaseAlgorithm
from windowed_trxl import Settings, WindowedPPO

from memspan.runs import RunConfig, make_env, make_model

ENV = "memspan/Corridor-v0"
TRANSFORMER = {"n_layers": 2, "n_heads": 4}
WINDOW = 200
LSTM_TARGET, WINDOWED_TARGET = 4, 60


def config(memory: str, size: Size, **memory_kwargs: Any) -> RunConfig:
    """A run with the sizes that all have here."""
    return RunConfig(
        env=ENV,
        memory=memory,
        memory_kwargs=memory_kwargs,
        width=64,
        n_envs=size.of(64, 16),
        n_steps=size.of(128, 16),
        n_epochs=3,
        n_minibatches=4,
        learning_rate=1e-3,
        ent_coef=0.005,
        device="cpu",
    )


def recurrent_ppo(run: RunConfig, shared: bool) -> BaseAlgorithm:
    """sb3-contrib's RecurrentPPO with the sizes of a run.

    Args:
        run: the sizes.
        shared: one LSTM for actor and critic, as memspan has it; False: one for each, its default.
    """
    from sb3_contrib import RecurrentPPO

    return RecurrentPPO(
        "MlpLstmPolicy",
        make_env(run),
        learning_rate=run.learning_rate,
        n_steps=run.n_steps,
        batch_size=run.n_steps * run.n_envs // run.n_minibatches,
        n_epochs=run.n_epochs,
        gamma=run.gamma,
        ent_coef=run.ent_coef,
        policy_kwargs={
            "lstm_hidden_size": run.width,
            "enable_critic_lstm": not shared,
            "shared_lstm": shared,
            "net_arch": {"pi": [64], "vf": [64]},
        },
        seed=0,
        device="cpu",
    )


def windowed(run: RunConfig, window: int) -> WindowedPPO:
    """The windowed method with the sizes of a run."""
    return WindowedPPO(
        make_env(run, seed=0),
        Settings(
            n_steps=run.n_steps,
            window=window,
            width=run.width,
            n_epochs=run.n_epochs,
            n_minibatches=run.n_minibatches,
            learning_rate=run.learning_rate,
            gamma=run.gamma,
            ent_coef=run.ent_coef,
            **TRANSFORMER,
        ),
    )


def windowed_turns(ppo: WindowedPPO) -> Turn:
    """Turns of one rollout and its update."""

    def turn() -> dict[str, float]:
        begun = time.perf_counter()
        rollout = ppo.collect()
        acted = time.perf_counter()
        ppo.update(rollout)
        steps = ppo.settings.n_steps * ppo.n_rows
        return {
            "training": steps / (time.perf_counter() - begun),
            "acting": steps / (acted - begun),
        }

    return turn


def mean_length(model: BaseAlgorithm) -> float:
    """Of the last episodes that ended."""
    lengths = [episode["l"] for episode in model.ep_info_buffer or ()]
    return mean(lengths) if lengths else float("nan")


def in_bfloat16(run: RunConfig) -> RunConfig | None:
    """The same with matrix products in bfloat16; None: this version has no such setting."""
    if "precision" not in {one.name for one in dataclasses.fields(RunConfig)}:
        return None
    return dataclasses.replace(run, precision="bfloat16")  # type: ignore[call-arg]


def lstm_table(size: Size, tell: Callable[[str], None]) -> Table:
    """Beside RecurrentPPO."""
    run = config("lstm", size)
    models: dict[str, BaseAlgorithm] = {
        "ours": make_model(run),
        "default": recurrent_ppo(run, shared=False),
        "shared": recurrent_ppo(run, shared=True),
    }
    turns = {}
    for name, model in models.items():
        tell(f"lstm: warming up {name}")
        learning(model, size.of(10, 1))()
        turns[name] = learning(model, size.of(3 if name == "ours" else 2, 1))
    found = in_turns(turns, size.turns, tell)
    target = Target("ratio", at_least=LSTM_TARGET)
    rows = [
        Row("lstm", found["ours"]["training"], f"RecurrentPPO, {what}", found[name]["training"], target)
        for name, what in {
            "default": "an LSTM each for actor and critic (its default)",
            "shared": "one LSTM for both, as ours",
        }.items()
    ]
    lengths = ", ".join(f"{name} {mean_length(model):.0f}" for name, model in models.items())
    return Table(
        f"LSTM of 64 units: training steps/s ({run.n_envs} environments, block of {run.n_steps})",
        "steps/s",
        rows,
        notes=[
            "RecurrentPPO reads the 27 numbers of an observation as they are, memspan as one-hot symbols "
            "through a layer of 64: its network is the larger one.",
            f"Mean length of the last episodes: {lengths}.",
        ],
    )


def transformer_table(size: Size, tell: Callable[[str], None]) -> Table:
    """Beside the windowed method."""
    window = size.of(WINDOW, 50)
    run = config("transformer-xl", size, memory_size=window, **TRANSFORMER)
    low = in_bfloat16(run)
    models = {"float32": make_model(run)} | ({} if low is None else {"bfloat16": make_model(low)})
    turns = {}
    for name, model in models.items():
        tell(f"transformer-xl: warming up {name}")
        learning(model, size.of(10, 1))()
        turns[name] = learning(model, size.of(3, 1))
    tell("windowed: warming up")
    peer = windowed(run, window)
    # Its windows are as wide from the first step on: what is not readable is projected, too.
    turns["windowed"] = windowed_turns(peer)
    turns["windowed"]()
    found = in_turns(turns, size.of(3, 2), tell)
    target = Target("ratio", at_least=WINDOWED_TARGET)
    rows = []
    for measure, goal in (("training", target), ("acting", None)):
        for name in models:
            told = "" if name == "float32" else f", {name}"
            what = f"transformer-xl{told}, {'whole loop' if measure == 'training' else 'rollouts alone'}"
            rows.append(Row(what, found[name][measure], "windowed", found["windowed"][measure], goal))
    if low is not None:
        rows.append(
            Row(
                "transformer-xl, bfloat16",
                found["bfloat16"]["training"],
                "transformer-xl, float32",
                found["float32"]["training"],
            )
        )
    lengths = [*(f"{name} {mean_length(model):.0f}" for name, model in models.items())]
    recent = peer.episode_lengths[-100:]
    lengths.append(f"windowed {np.mean(recent) if recent else float('nan'):.0f}")
    notes = [
        "windowed: `benchmarks/windowed_trxl.py`, in the manner of Memory Gym's baseline and CleanRL's "
        "ppo_trxl; every sample projects keys and values of its own window, which is always of full width, "
        "so that its time does not depend on how long episodes are. Environments, features, actor, critic "
        "and optimizer are ours.",
        f"Mean length of the last episodes: {', '.join(lengths)}.",
    ]
    if low is None:
        notes.append("bfloat16: not measured, this version has no `--precision`.")
    return Table(
        f"Transformer-XL, memory {window}, 2 layers, 4 heads, width 64: training steps/s "
        f"({run.n_envs} environments, block of {run.n_steps})",
        "steps/s",
        rows,
        notes=notes,
    )


def tables(size: Size, tell: Callable[[str], None]) -> list[Table]:
    """All of this file."""
    return [lstm_table(size, tell), transformer_table(size, tell)]
