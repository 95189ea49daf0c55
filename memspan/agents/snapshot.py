"""All that an agent's future depends on, in tensors and plain numbers.

Taken before a rollout, put back into a freshly made agent of the same settings, it gives the same bits as if
nothing had happened in between. What was learnt:

    policy.<parameter>           the policy, each parameter once
    optimizer.<i>.<name>         the optimizer's state of parameter i
    recent.success    (E,) bool  the last episodes' successes, E at most `stats_window_size`
    recent.episodes   (E, 2)     their returns and lengths

and where its episodes are: see `memspan.agents.episodes`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from torch import Tensor

from memspan.agents.episodes import put_back_episodes, take_episodes
from memspan.agents.shares import join_snapshot
from memspan.agents.stored import check_finite, check_like, check_shape, get_tensor

if TYPE_CHECKING:
    from memspan.agents.base import MemoryAlgorithm
    from memspan.agents.policy import MemoryPolicy

LEARNT = ("policy.", "optimizer.", "recent.")
"""How the names of what was learnt begin."""


@dataclass(frozen=True)
class Snapshot:
    """See the module's docstring."""

    tensors: dict[str, Tensor]
    timesteps: int
    n_updates: int
    counters: dict[str, Any] = field(default_factory=dict)
    """Plain values: the last rollout's `effective_memory`, `skipped_updates` so far, and `logged`, what is
    still to be written."""


def take_snapshot(model: MemoryAlgorithm, episodes: bool = True) -> Snapshot:
    """Copies what an agent's future depends on.

    Args:
        model: the agent, between two rollouts.
        episodes: False: without where its episodes are.
    """
    tensors = {f"policy.{name}": value for name, value in policy_tensors(model.policy).items()}
    for index, values in model.policy.optimizer.state_dict()["state"].items():
        held = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        tensors |= {f"optimizer.{index}.{name}": value for name, value in held.items()}
    tensors["recent.success"] = torch.tensor([bool(one) for one in model.ep_success_buffer or ()])
    recent = [[one["r"], one["l"]] for one in model.ep_info_buffer or ()]
    tensors["recent.episodes"] = torch.tensor(recent, dtype=torch.float64).reshape(-1, 2)
    if episodes:
        tensors |= take_episodes(model)
    counters = {
        "effective_memory": model._effective_memory,
        "skipped_updates": model.skipped_updates,
        "logged": _logged(model),
    }
    copies = {name: value.detach().clone() for name, value in tensors.items()}
    return Snapshot(copies, model.num_timesteps, model._n_updates, counters)


def whole_snapshot(model: MemoryAlgorithm, own: Snapshot) -> Snapshot | None:
    """The snapshot of all of which each process has taken its share; None in all but the first."""
    if model.processes.size == 1:
        return own
    assert model.env is not None
    return join_snapshot(model.processes, own, model.policy.memory.initial_state(1), model.env.num_envs)


def put_back_learnt(model: MemoryAlgorithm, snapshot: Snapshot) -> None:
    """Gives a freshly made agent what was learnt.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape.
    """
    tensors = snapshot.tensors
    policy = {f"policy.{name}": value for name, value in policy_tensors(model.policy).items()}
    for name, value in policy.items():
        check_like(tensors, name, value)
        check_finite(name, tensors[name])
    for name in tensors:
        if name.startswith("policy.") and name not in policy:
            raise ValueError(f"tensor {name} is none of this policy")
    optimizer = model.policy.optimizer
    state = read_optimizer_state(optimizer, tensors)
    success, recent = (get_tensor(tensors, f"recent.{name}") for name in ("success", "episodes"))
    if success.ndim != 1 or recent.ndim != 2 or recent.shape[1] < 2:
        raise ValueError("tensors recent.success and recent.episodes: must be a list, and rows of at least 2")
    check_finite("recent.episodes", recent)
    effective_memory = snapshot.counters.get("effective_memory", model._effective_memory)
    if not isinstance(effective_memory, int | float):
        raise ValueError(f"effective_memory={effective_memory!r}: must be a number")
    skipped = snapshot.counters.get("skipped_updates", 0)
    if not isinstance(skipped, int):
        raise ValueError(f"skipped_updates={skipped!r}: must be a whole number")
    with torch.no_grad():
        for name, value in policy.items():
            value.copy_(tensors[name])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    model.num_timesteps = snapshot.timesteps
    model._n_updates = snapshot.n_updates
    model._effective_memory = effective_memory
    model.skipped_updates = skipped
    window = model._stats_window_size
    model.ep_success_buffer = deque(success.tolist(), maxlen=window)
    # Nothing reads when they ended, SB3's `t`.
    model.ep_info_buffer = deque(
        ({"r": r, "l": int(length), "t": 0.0} for r, length, *_ in recent.tolist()), maxlen=window
    )


def put_back_rest(model: MemoryAlgorithm, snapshot: Snapshot) -> bool:
    """Has an agent with what was learnt, and a logger, go on: what is to be logged, and its episodes.

    Returns:
        Whether its episodes go on; False: they start anew, see `put_back_episodes`.

    Raises:
        ValueError: a tensor is missing or does not fit.
    """
    logged = snapshot.counters.get("logged", {})
    try:
        rows = [
            (name, value, int(count), tuple(excluded)) for name, (value, count, excluded) in logged.items()
        ]
    except (TypeError, ValueError, AttributeError):
        raise ValueError("counters: logged: must be name: [value, count, excluded]") from None
    for name, value, count, excluded in rows:
        if not isinstance(value, int | float):
            raise ValueError(f"counters: logged: {name}={value!r}: must be a number")
        model.logger.name_to_value[name] = value
        model.logger.name_to_count[name] = count
        model.logger.name_to_excluded[name] = excluded
    return put_back_episodes(model, snapshot.tensors)


def policy_tensors(policy: MemoryPolicy) -> dict[str, Tensor]:
    """Every parameter once: SB3's policies know their feature extractor by three names."""
    found: dict[int | str, tuple[str, Tensor]] = {}
    for name, value in policy.state_dict(keep_vars=True).items():
        found.setdefault(id(value) if value.numel() else name, (name, value.detach()))
    return dict(found.values())


def read_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> dict[int, dict[str, Tensor]]:
    """An optimizer's state from tensors `optimizer.<i>.<name>`; others are left aside.

    Raises:
        ValueError: one is missing, does not fit, or is not finite.
    """
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if not name.startswith("optimizer."):
            continue
        index, _, key = name.removeprefix("optimizer.").partition(".")
        if not (index.isascii() and index.isdigit() and len(index) < 10) or int(index) >= len(parameters):
            raise ValueError(f"tensor {name}: the optimizer has {len(parameters)} parameters")
        if key == "step":
            check_shape(name, value, ())
        else:
            check_like(tensors, name, parameters[int(index)])
        check_finite(name, value)
        state.setdefault(int(index), {})[key] = value
    needed = {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimizer, torch.optim.Adam) else set()
    needed = needed.union(*(one.keys() for one in state.values()))
    for number, one in state.items():
        for key in sorted(needed - one.keys()):
            raise ValueError(f"tensor optimizer.{number}.{key} is missing")
    return state


def _logged(model: MemoryAlgorithm) -> dict[str, tuple[float, int, tuple[str, ...]]]:
    """What was recorded since the logger last wrote: the figures of an update wait for the next rollout."""
    logger: Logger | None = getattr(model, "_logger", None)
    if logger is None:
        return {}
    return {
        name: (value if isinstance(value, int) else float(value), logger.name_to_count.get(name, 0), excluded)
        for name, excluded in logger.name_to_excluded.items()
        if isinstance(value := logger.name_to_value[name], int | float | np.number)
    }
