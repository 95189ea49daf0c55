"""What the processes of a run hold of its rows, put together at a rollout's end and for a checkpoint.

A checkpoint has the rows of all processes, in order, so that a run can go on with any number of processes
that divides them. See `memspan.agents.distributed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.utils import obs_as_tensor
from torch import Tensor
from torch.nn import functional as F

from memspan.agents.distributed import Processes
from memspan.memory import State

if TYPE_CHECKING:
    from memspan.agents.rollouts import Rollouts
    from memspan.agents.snapshot import Snapshot

BY_ROW = ("agent.", "memory.", "env.")
"""How the names of tensors begin that have a row for each environment."""


class Moments(NamedTuple):
    """Of the numbers of a rollout, (T, N)."""

    mean: float
    variance: float

    @classmethod
    def of(cls, numbers: np.ndarray) -> Moments:
        """Those of one process."""
        return cls(float(numbers.mean(dtype=np.float64)), float(numbers.var(dtype=np.float64)))

    @classmethod
    def over(cls, parts: list[Moments]) -> Moments:
        """Those of all numbers, of which each part has as many."""
        mean = float(np.mean([one.mean for one in parts]))
        return cls(mean, float(np.mean([one.variance + (one.mean - mean) ** 2 for one in parts])))


class Ended(NamedTuple):
    """Episodes that ended in a step: their infos by row among all, in order."""

    step: int
    infos: dict[int, dict[str, Any]]

    @classmethod
    def of(cls, step: int, infos: dict[int, dict[str, Any]]) -> Ended:
        """Of their infos what Stable-Baselines3 keeps."""
        kept: dict[int, dict[str, Any]] = {
            row: {name: info[name] for name in ("episode", "is_success") if name in info}
            for row, info in infos.items()
        }
        return cls(step, kept)


def merge_ended(parts: list[list[Ended]]) -> list[list[dict[str, Any]]]:
    """Step by step the infos of all processes, by row."""
    steps: dict[int, dict[int, dict[str, Any]]] = {}
    for ended in (one for part in parts for one in part):
        steps.setdefault(ended.step, {}).update(ended.infos)
    return [[infos[row] for row in sorted(infos)] for _, infos in sorted(steps.items())]


def keep_in_step(model: Rollouts) -> None:
    """Has all processes begin with the first one's policy.

    Raises:
        ValueError: they have different numbers of environments, or other policies.
    """
    processes, policy = model.processes, model.policy
    if processes.size == 1:
        return
    shapes = {name: tuple(value.shape) for name, value in policy.state_dict().items()}
    told = processes.exchange((model.n_envs, shapes))
    if any(n_envs != told[0][0] for n_envs, _ in told):
        raise ValueError(f"n_envs={[n_envs for n_envs, _ in told]}: must be the same in all processes")
    if any(other != told[0][1] for _, other in told):
        raise ValueError("policy: must have the same parameters in all processes")
    with torch.no_grad():
        processes.from_first(value for value in policy.state_dict().values() if value.numel())


def prepare_rollout(model: Rollouts) -> None:
    """Before a rollout of several processes: the same random numbers, and the same first look."""
    model._ended = []
    drawn = [torch.get_rng_state()]
    model.processes.from_first(drawn)
    torch.set_rng_state(drawn[0])
    if model.device.type == "cuda":
        drawn = [torch.cuda.get_rng_state(model.device)]
        model.processes.from_first(drawn)
        torch.cuda.set_rng_state(drawn[0], model.device)
    # Extractors that know no average yet take that of the first observations, of all.
    model.policy.set_training_mode(False)
    with torch.no_grad(), model.processes.averaging(1 / model.processes.size):
        model.policy.embed_observations(obs_as_tensor(model._last_obs, model.device))  # type: ignore[arg-type]


def share_rollout(model: Rollouts, measured: dict[str, tuple[float, float]]) -> bool:
    """Puts together what the rollouts of all processes tell, in the agent, its buffer and `measured`.

    Args:
        model: the agent.
        measured: name -> mean and maximum of what the memory measured here; becomes that of all.

    Returns:
        False: one has ended its rollout early, and there is nothing to learn from.
    """
    buffer = model.rollout_buffer
    numbers = {
        "rewards": buffer.rewards,
        "advantages": buffer.advantages,
        "returns": buffer.returns,
        "errors": buffer.returns - buffer.values,
    }
    moments = {name: Moments.of(values) for name, values in numbers.items()}
    told = model.processes.exchange((moments, model._ended, model._rollout_is_bad, measured))
    if any(one is None for one in told):
        return False
    buffer.moments = {name: Moments.over([one[0][name] for one in told]) for name in numbers}
    for infos in merge_ended([one[1] for one in told]):
        model._note_ended(infos)
    model._rollout_is_bad = any(one[2] for one in told)
    for name in measured:
        means, largest = zip(*(one[3][name] for one in told), strict=True)
        measured[name] = float(np.mean(means)), max(largest)
    return True


def join_snapshot(processes: Processes, snapshot: Snapshot, empty: State, n_own: int) -> Snapshot | None:
    """A snapshot of this process's rows as one of all rows, in the first process; None in the others.

    Without episodes, if the environments' state cannot be divided by rows.

    Args:
        processes: all of them take part.
        snapshot: of this process.
        empty: state of a memory that remembers nothing, of at least one row.
        n_own: rows of each process.
    """
    own = {name: value.cpu() for name, value in snapshot.tensors.items() if name.startswith(BY_ROW)}
    parts = processes.to_first(own)
    if parts is None:
        return None
    rest = {name: value for name, value in snapshot.tensors.items() if not name.startswith(BY_ROW)}
    if any(value.ndim == 0 or len(value) != n_own for part in parts for value in part.values()):
        rest = {name: value for name, value in rest.items() if not name.startswith("random.")}
        return replace(snapshot, tensors=rest)
    joined = {}
    for name in own:
        pieces = [part[name] for part in parts]
        if name.startswith("memory."):
            pieces = _of_one_size(pieces, empty[name.removeprefix("memory.")].cpu())
        joined[name] = torch.cat(pieces)
    return replace(snapshot, tensors=rest | joined)


def own_rows(processes: Processes, tensors: Mapping[str, Tensor], n_own: int) -> dict[str, Tensor]:
    """Of a checkpoint's tensors the rows of this process, and all that has no rows."""
    rows = processes.rows(n_own)
    n_all = n_own * processes.size
    return {
        name: value[rows.start : rows.stop]
        if name.startswith(BY_ROW) and value.ndim and len(value) == n_all
        else value
        for name, value in tensors.items()
    }


def _of_one_size(pieces: list[Tensor], empty: Tensor) -> list[Tensor]:
    """Gives all as many slots as the largest has: free ones before the others, as packing does."""
    longest = max((one.shape[1:] for one in pieces), key=tuple)
    if all(one.shape[1:] == longest for one in pieces):
        return pieces
    # (S, ...) -> zeros or whatever stands for a free slot, before the first.
    unused = empty.flatten()[0].item()
    return [
        F.pad(one, (0, 0) * (one.ndim - 2) + (longest[0] - one.shape[1], 0), value=unused) for one in pieces
    ]
