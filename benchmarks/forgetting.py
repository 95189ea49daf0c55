"""What forgetting saves: Expire-Span that has forgotten beside Transformer-XL of the same reach, both full.

Each agent has walked so far down a corridor that its past is as long as its reach before anything is
measured, and the corridor goes on until the end, so that Transformer-XL holds and reads all that it can.
Agents learn with a learning rate of 0: all the work is done, and what is measured stays what it was.

Expire-Span keeps what a trained agent keeps in a corridor: the cue, and whatever is in its ramp. Either its
span predictors are set so (`keep_the_cue`), at 2 layers and 4 heads; or its weights are published ones, which
learnt it, at the sizes they were trained with. Transformer-XL's weights do not matter for speed. The longest
span is a quarter longer than the reach, as spans only come near the longest.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import Row, Size, Table, Target, in_turns, learning
from torch import Tensor

from memspan import MemoryPPO
from memspan.memory import State
from memspan.memory.expire_span import SpanPredictor
from memspan.runs import RunConfig, checkpoint_path, load_checkpoint, load_config, make_env, make_model

RIGHT = 0
SLACK = 1.25
RAMP = 16
REACHES = {200: (64, 1.5), 4_000: (64, 10.0), 16_000: (16, 30.0)}
"""Reach -> environments, and the ratio that is aimed at."""
QUICK_REACHES = {200: (8, 1.5), 1_000: (4, 10.0)}
FAR, FAR_BYTES = 100_000, 2e9
BYTES_TARGET = 1.2
RESULTS = Path(__file__).resolve().parents[1] / "results" / "corridor" / "Corridor-v0"
PUBLISHED = {
    "expire-span-r4": RESULTS / "expire-span-r4" / "0",
    "transformer-xl": RESULTS / "transformer-xl" / "0",
}
SURE = 12.0
"""Logit of what is kept, and less that of what is not: a span of under a step, were the longest 125,000."""


def run_of(memory: str, n_envs: int, n_steps: int, corridor: int, **memory_kwargs: Any) -> RunConfig:
    """A run at a learning rate of 0, in corridors of one length."""
    return RunConfig(
        memory=memory,
        memory_kwargs={"n_layers": 2, "n_heads": 4, **memory_kwargs},
        env_kwargs={"min_length": corridor, "max_length": corridor},
        n_envs=n_envs,
        n_steps=n_steps,
        learning_rate=0.0,
        memory_loss_coef=5e-4,
        device="cpu",
    )


def walking(model: MemoryPPO) -> MemoryPPO:
    """Makes an untrained agent walk to the right, as trained ones do."""
    with torch.no_grad():
        model.policy.action_net.bias[RIGHT] += 12
    return model


def transformer_xl(reach: int, n_envs: int, n_steps: int, corridor: int, **memory_kwargs: Any) -> MemoryPPO:
    """Has a window of `reach` steps."""
    settings = {"memory_size": reach, **memory_kwargs}
    return walking(make_model(run_of("transformer-xl", n_envs, n_steps, corridor, **settings)))


def expire_span(reach: int, n_envs: int, n_steps: int, corridor: int) -> MemoryPPO:
    """Keeps the cue for `reach` steps and more, and everything else for its ramp."""
    settings = {"max_span": math.ceil(SLACK * reach), "ramp": RAMP, "span_learning_rate": 0.0}
    model = walking(make_model(run_of("expire-span", n_envs, n_steps, corridor, **settings)))
    keep_the_cue(model)
    return model


def published(reach: int, n_envs: int, n_steps: int, corridor: int) -> MemoryPPO:
    """Expire-Span with published weights, its longest span moved to the reach."""
    return from_run(
        PUBLISHED["expire-span-r4"],
        n_envs,
        n_steps,
        {"min_length": corridor, "max_length": corridor},
        {"max_span": math.ceil(SLACK * reach), "span_learning_rate": 0.0},
    )


def from_run(
    folder: Path, n_envs: int, n_steps: int, env_kwargs: dict[str, Any], memory_kwargs: dict[str, Any]
) -> MemoryPPO:
    """A published agent that goes on at a learning rate of 0."""
    trained = load_config(folder)
    run = dataclasses.replace(
        trained,
        env_kwargs=trained.env_kwargs | env_kwargs,
        memory_kwargs=trained.memory_kwargs | memory_kwargs,
        n_envs=n_envs,
        n_steps=n_steps,
        n_epochs=3,
        learning_rate=0.0,
        final_learning_rate=0.0,
        device="cpu",
    )
    model = make_model(run, make_env(run, seed=1))
    load_checkpoint(model, trained, checkpoint_path(folder))
    for group in model.policy.optimizer.param_groups:
        group["lr"] = 0.0
        if "own_lr" in group:
            group["own_lr"] = 0.0
    return model


def keep_the_cue(model: MemoryPPO) -> None:
    """Sets span predictors so that what was seen at the cue gets the longest span, and all else nearly none.

    In each layer w is the direction from the mean of all other steps to the cue's, and b puts the middle
    between them at a logit of 0.

    Raises:
        ValueError: a layer cannot tell the cue's step from others in this way.
    """
    policy, n_steps = model.policy, 64
    observations, starts = walk(model, n_steps)
    x = policy.embed_observations(observations.flatten(0, 1)).detach().unflatten(0, (n_steps, -1))
    predictors = [module for module in policy.memory.modules() if isinstance(module, SpanPredictor)]
    for n, predictor in enumerate(predictors):
        seen: list[Tensor] = []
        hook = predictor.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))  # type: ignore[misc]
        with torch.no_grad():
            policy.memory(x, policy.memory.initial_state(model.n_envs), starts)
        hook.remove()
        # The cue's step is the first of the block; slots of the block come last, where they are in rows.
        slots = max((one for one in seen if one.ndim == 3), key=lambda one: one.shape[1])[:, -n_steps:]
        cue, rest = slots[:, :1], slots[:, 1:]
        with torch.no_grad():
            predictor.mean.copy_(slots.mean((0, 1)))
            predictor.variance.copy_(slots.var((0, 1), correction=0))
            predictor.weight.copy_(cue.mean((0, 1)) - rest.mean((0, 1)))
            predictor.bias.zero_()
            low, high = predictor(rest).max(), predictor(cue).min()
            if not low < high:
                raise ValueError(f"layer {n}: the cue's logit {high:.3g} must be above all others, {low:.3g}")
            scale = 2 * SURE / (high - low)
            predictor.weight.mul_(scale)
            predictor.bias.copy_(-scale * (low + high) / 2 / len(predictor.weight) ** 0.5)


def walk(model: MemoryPPO, n_steps: int, first: Any = None) -> tuple[Tensor, Tensor]:
    """Steps to the right.

    Args:
        model: its environments are stepped.
        n_steps: how many.
        first: what is seen before; None: the environments are reset.

    Returns:
        Observations (T, B, ...) and starts (T, B) of episodes; the last observation is not among them but in
        `model._last_obs`, where the agent goes on.
    """
    env, right = model.get_env(), np.full(model.n_envs, RIGHT)
    assert env is not None
    seen = [env.reset() if first is None else first]
    starts = torch.zeros(n_steps, model.n_envs, dtype=torch.bool)
    starts[0] = first is None
    for _ in range(n_steps):
        observations, _, dones, _ = env.step(right)
        if dones.any():
            raise RuntimeError("the corridor ended")
        seen.append(observations)
    model._last_obs, model._last_episode_starts = seen[-1], np.zeros(model.n_envs, dtype=bool)
    return torch.as_tensor(np.stack(seen[:-1])), starts


@torch.no_grad()
def fill(model: MemoryPPO, past: int, tell: Callable[[str], None], block: int = 128) -> None:
    """Walks `past` steps down a new corridor, with the memory, so that learning goes on from there."""
    policy = model.policy
    policy.set_training_mode(False)
    state: State = policy.memory.initial_state(model.n_envs)
    last, told = None, time.monotonic()
    for at in range(0, past, block):
        n_steps = min(block, past - at)
        observations, starts = walk(model, n_steps, last)
        x = policy.embed_observations(observations.flatten(0, 1)).unflatten(0, (n_steps, -1))
        state = policy.memory(x, state, starts).state
        last = model._last_obs
        if time.monotonic() - told > 10:
            told = time.monotonic()
            tell(f"{model.memory}: {at + n_steps:,} of {past:,} steps walked")
    model._memory_state = policy.memory.compact(state)


def bytes_held(state: State) -> float:
    """Of one row, the whole of what its tensors lie in."""
    storages = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in state.values()
    }
    return sum(storages.values()) / len(next(iter(state.values())))


def slots_kept(model: MemoryPPO) -> list[float]:
    """Of each layer, mean over rows."""
    state = model._memory_state
    assert state is not None
    with torch.no_grad():
        layers = model.policy.memory.remembered(state)
    return [(layer.age >= 0).sum(1).float().mean().item() for layer in layers]


def bytes_of_slots(model: MemoryPPO) -> float:
    """Bytes of the slots that a row keeps: of each the entries that it has in the state's tensors."""
    state = model._memory_state
    assert state is not None
    total = 0.0
    for n, kept in enumerate(slots_kept(model)):
        tensors = [value for name, value in state.items() if name.endswith(f".{n}")]
        total += kept * sum(value[0, 0].numel() * value.element_size() for value in tensors)
    return total


def reach_tables(size: Size, tell: Callable[[str], None]) -> list[Table]:
    """Speed and bytes at every reach."""
    speed: dict[str, list[Row]] = {"training": [], "acting": []}
    held: list[Row] = []
    notes: list[str] = []
    n_steps = size.of(128, 16)
    for reach, (n_envs, aim) in (QUICK_REACHES if size.quick else REACHES).items():
        turns = min(size.turns, size.of(5 if reach < 1_000 else 3, 2))
        # Rollouts of a turn: those that forgot are done sooner.
        rollouts = {"expire-span": 2, "transformer-xl": 1, "expire-span-r4": 2, "transformer-xl, 1 layer": 1}
        corridor = reach + n_steps * (2 * (turns + 1) + 2) + 100
        sizes = (reach, n_envs, n_steps, corridor)
        models = {"transformer-xl": transformer_xl(*sizes), "expire-span": expire_span(*sizes)}
        if (PUBLISHED["expire-span-r4"] / "checkpoints").is_dir():
            one_layer = {"n_layers": 1, "n_heads": 2, "n_frequencies": 4}
            models["transformer-xl, 1 layer"] = transformer_xl(*sizes, **one_layer)
            models["expire-span-r4"] = published(*sizes)
        for name, model in models.items():
            tell(f"reach {reach:,}: {name} walks with {n_envs} environments")
            fill(model, reach, tell)
        found = in_turns(
            {name: warmed(model, rollouts[name]) for name, model in models.items()},
            turns,
            lambda what, reach=reach: tell(f"reach {reach:,}: {what}"),
        )
        pairs = {
            "2 layers, 4 heads": ("expire-span", "transformer-xl"),
            "published weights, 1 layer, 2 heads": ("expire-span-r4", "transformer-xl, 1 layer"),
        }
        for what, (ours, theirs) in pairs.items():
            if ours not in models:
                continue
            target = Target("ratio", at_least=aim) if ours == "expire-span" else None
            told = f"reach {reach:,}, {n_envs} environments: {what}"
            for measure, rows in speed.items():
                rows.append(Row(told, found[ours][measure], "transformer-xl", found[theirs][measure], target))
            kept = slots_kept(models[ours])
            notes.append(
                f"{told}: slots kept in each layer {', '.join(f'{one:.1f}' for one in kept)}, "
                f"transformer-xl {', '.join(f'{one:,.0f}' for one in slots_kept(models[theirs]))}."
            )
            state, peer = models[ours]._memory_state, models[theirs]._memory_state
            assert state is not None
            assert peer is not None
            held.append(
                Row(
                    told,
                    [bytes_held(state)],
                    "the slots kept alone",
                    [bytes_of_slots(models[ours])],
                    Target("ratio", at_most=BYTES_TARGET),
                )
            )
            held.append(Row(told, [bytes_held(state)], "transformer-xl", [bytes_held(peer)]))
    return [
        Table(
            "Training, whole loop, steps/s, the past as long as the reach",
            "steps/s",
            speed["training"],
            notes=notes,
        ),
        Table("Rollouts alone, steps/s", "steps/s", speed["acting"]),
        Table("State of an environment as acting leaves it, bytes", "bytes", held),
    ]


def warmed(model: MemoryPPO, rollouts: int) -> Callable[[], dict[str, float]]:
    """Turns, after one that does not count."""
    learning(model, 1)()
    return learning(model, rollouts)


def as_trained_table(size: Size, tell: Callable[[str], None]) -> Table | None:
    """Published agents that go on where they were trained, in corridors of 3 to 200 steps."""
    if not all((folder / "checkpoints").is_dir() for folder in PUBLISHED.values()):
        return None
    n_envs, n_steps = size.of(64, 8), size.of(128, 16)
    turns = {}
    for name, folder in PUBLISHED.items():
        tell(f"as trained: warming up {name}")
        model = from_run(folder, n_envs, n_steps, {}, {})
        learning(model, size.of(4, 1))()
        turns[name] = learning(model, size.of(3, 1))
    found = in_turns(turns, size.turns, lambda what: tell(f"as trained: {what}"))
    ours, theirs = found["expire-span-r4"], found["transformer-xl"]
    return Table(
        "Published weights of both, in the corridors of 3 to 200 steps that they were trained in",
        "steps/s",
        [
            Row("expire-span-r4, whole loop", ours["training"], "transformer-xl", theirs["training"]),
            Row("expire-span-r4, rollouts alone", ours["acting"], "transformer-xl", theirs["acting"]),
        ],
        notes=[
            "1 layer, 2 heads. Transformer-XL's window of 200 is a third full: most corridors are shorter."
        ],
    )


def far_table(size: Size, tell: Callable[[str], None]) -> Table:
    """A reach of 100,000 steps, in a process of its own: how much memory is resident at most?"""
    past, n_envs = size.of(FAR, 2_000), size.of(64, 4)
    tell(f"reach {FAR:,}: {n_envs} environments walk {past:,} steps, in a process of their own")
    command = [sys.executable, str(Path(__file__)), "--reach", str(FAR), "--past", str(past)]
    done = subprocess.run([*command, "--envs", str(n_envs)], stdout=subprocess.PIPE, check=True, text=True)
    told = json.loads(done.stdout.splitlines()[-1])
    window = 2 * n_envs * FAR * (64 * 4 + 8)
    return Table(
        f"A reach of {FAR:,} steps after a past of {past:,}, {n_envs} environments",
        "bytes",
        [
            Row(
                "resident at most, whole process",
                [told["peak_bytes"]],
                target=Target("ours", at_most=FAR_BYTES),
            ),
            Row("state of all environments", [told["state_bytes"]]),
        ],
        notes=[
            f"{told['training']:,.0f} steps/s training, {told['acting']:,.0f} in rollouts alone, slots kept "
            f"in each layer {', '.join(f'{one:.1f}' for one in told['kept'])}.",
            f"By arithmetic, not measured: a window of {FAR:,} steps would hold {window / 1e9:.1f} GB.",
        ],
    )


def far(reach: int, past: int, n_envs: int) -> dict[str, Any]:
    """Walks, learns for two rollouts, and tells what the process needed."""
    model = expire_span(reach, n_envs, 128, past + 1_000)
    fill(model, past, lambda what: print(what, file=sys.stderr, flush=True))
    turn = warmed(model, 1)()
    state = model._memory_state
    assert state is not None
    return {
        "peak_bytes": peak_bytes(),
        "state_bytes": bytes_held(state) * n_envs,
        "kept": slots_kept(model),
        **turn,
    }


def peak_bytes() -> int:
    """What was resident of this process at most.

    Linux hands `ru_maxrss` on from the process that started this one; `VmHWM` begins anew.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def tables(size: Size, tell: Callable[[str], None]) -> list[Table]:
    """All of this file."""
    found = [*reach_tables(size, tell), as_trained_table(size, tell), far_table(size, tell)]
    return [table for table in found if table is not None]


def main(args: Sequence[str] | None = None) -> None:
    """What `far_table` runs in a process of its own."""
    parser = argparse.ArgumentParser(description="one reach; prints what it needed, in JSON")
    parser.add_argument("--reach", type=int, default=FAR)
    parser.add_argument("--past", type=int, default=FAR)
    parser.add_argument("--envs", type=int, default=64)
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    print(json.dumps(far(options.reach, options.past, options.envs)))


if __name__ == "__main__":
    main()
