"""One file per checkpoint, for evaluation and for going on: safetensors, nothing that runs code when loaded.

Tensors: what was learnt, see `memspan.agents.snapshot`; and, where the run is to go on from it, where its
episodes are, see `memspan.agents.episodes`. Evaluation does not read the latter.

Metadata: `format`, `timesteps` (those that were learnt from), `n_updates`, and as JSON `config`, `score` and
`counters`; and `sha256`, of all tensors and all other metadata, see `digest`.

Files of format 1 knew neither episodes nor counters, those of format 2 no `sha256`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from memspan.agents.faults import BadNumbersError
from memspan.agents.files import remove_leftovers, write_atomically
from memspan.agents.snapshot import LEARNT, Snapshot, put_back_learnt, put_back_rest, take_snapshot
from memspan.memory import make_config

if TYPE_CHECKING:
    from memspan.agents import MemoryPPO
    from memspan.runs.config import RunConfig

FORMATS = ("memspan checkpoint 1", "memspan checkpoint 2", "memspan checkpoint 3")
"""Those that can be read; the last is written."""
SUFFIX = ".safetensors"
SAME = ("env", "env_kwargs", "memory", "memory_kwargs", "algorithm", "width")
"""Settings without which the parameters mean nothing."""


class DamagedCheckpointError(ValueError):
    """A file that is not whole."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says about itself."""

    timesteps: int
    n_updates: int
    config: dict[str, Any]
    score: dict[str, float]
    """What the policy had reached, as `Score` in `memspan.runs.callbacks` has it; may be empty."""
    format: str = FORMATS[-1]
    counters: dict[str, Any] = dataclasses.field(default_factory=dict)
    """See `Snapshot`."""


def as_plain(config: RunConfig) -> dict[str, Any]:
    """The config in plain values, with every setting of the memory spelt out."""
    plain = dataclasses.asdict(config)
    plain["run_dir"] = str(config.run_dir)
    plain["memory_kwargs"] = dataclasses.asdict(make_config(config.memory, config.memory_kwargs))
    return plain


def save_checkpoint(
    model: MemoryPPO,
    config: RunConfig,
    path: Path,
    timesteps: int | None = None,
    score: Mapping[str, float] | None = None,
) -> None:
    """Writes what an agent has learnt, to be evaluated, or to go on from with new episodes.

    Args:
        model: the agent.
        config: its settings.
        path: the file; it has the old content or the new one, never half of it.
        timesteps: those that the policy has learnt from; None: all that were made.
        score: what the policy has reached.
    """
    snapshot = take_snapshot(model, episodes=False)
    if timesteps is not None:
        snapshot = dataclasses.replace(snapshot, timesteps=timesteps)
    write_snapshot(snapshot, config, path, score)


def write_snapshot(
    snapshot: Snapshot, config: RunConfig, path: Path, score: Mapping[str, float] | None = None
) -> None:
    """Writes a checkpoint, and removes what a killed writer may have left beside it.

    Args:
        snapshot: of the agent.
        config: its settings.
        path: the file; it has the old content or the new one, never half of it.
        score: what the policy has reached.

    Raises:
        BadNumbersError: what was learnt is not finite.
        OSError: it cannot be written; what was there is left.
    """
    for name, value in snapshot.tensors.items():
        if name.startswith(LEARNT) and not (value.isfinite().all() if value.is_floating_point() else True):
            raise BadNumbersError(f"{name} holds NaN or infinity: {path.name} is not written")
    metadata = {
        "format": FORMATS[-1],
        "timesteps": str(snapshot.timesteps),
        "n_updates": str(snapshot.n_updates),
        "config": json.dumps(as_plain(config)),
        "score": json.dumps(dict(score or {})),
        "counters": json.dumps(snapshot.counters),
    }
    ready = {name: value.cpu().contiguous() for name, value in snapshot.tensors.items()}
    metadata["sha256"] = digest(ready, metadata)
    remove_leftovers(path.parent, SUFFIX)
    data = save(ready, metadata)
    write_atomically(path, lambda temporary: Path(temporary).write_bytes(data))


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes and bytes of all tensors, and of all metadata but itself."""
    found = hashlib.sha256(json.dumps({**metadata, "sha256": ""}, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def load_checkpoint(model: MemoryPPO, config: RunConfig, path: Path) -> CheckpointInfo:
    """Puts what was learnt into a freshly made model: policy, optimizer, timesteps, recent episodes.

    Raises:
        ValueError: the file is damaged, or was made with other settings.
    """
    info, tensors = _read(path, LEARNT)
    _check_settings(info, config, path)
    try:
        put_back_learnt(model, _snapshot(info, tensors))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return info


def resume_checkpoint(model: MemoryPPO, config: RunConfig, path: Path) -> bool:
    """Puts all of a checkpoint into a freshly made model that has a logger, to go on as if never stopped.

    Returns:
        Whether the episodes go on, too; False: they are not in the file, or the environments cannot be put
        back into them.

    Raises:
        ValueError: the file is damaged, was made with other settings, or a tensor does not fit.
    """
    info, tensors = _read(path, ("",))
    _check_settings(info, config, path)
    snapshot = _snapshot(info, tensors)
    try:
        put_back_learnt(model, snapshot)
        return put_back_rest(model, snapshot)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_info(path: Path) -> CheckpointInfo:
    """What a checkpoint says about itself.

    Raises:
        DamagedCheckpointError: the file is not whole.
        ValueError: it is missing, or no checkpoint.
    """
    return _read(path)[0]


def _read(path: Path, wanted: tuple[str, ...] = ()) -> tuple[CheckpointInfo, dict[str, Tensor]]:
    """A file, of its tensors those of which the name begins in one of the `wanted` ways."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise DamagedCheckpointError(
            f"{path}: damaged or cut short, or not a safetensors file ({said})"
        ) from None
    if metadata.get("format") not in FORMATS:
        known = " or ".join(map(repr, FORMATS))
        raise ValueError(f"{path}: format={metadata.get('format')!r}: must be {known}")
    if metadata["format"] not in FORMATS[:2] and metadata.get("sha256") != digest(tensors, metadata):
        raise DamagedCheckpointError(f"{path}: damaged: not what was written, its SHA-256 differs")
    try:
        info = _info(metadata)
    except (KeyError, ValueError, RecursionError) as error:
        raise DamagedCheckpointError(
            f"{path}: damaged: its metadata is not what it must be ({error})"
        ) from None
    return info, {name: value for name, value in tensors.items() if name.startswith(wanted)}


def _info(metadata: Mapping[str, str]) -> CheckpointInfo:
    """Metadata as values.

    Raises:
        KeyError, ValueError, RecursionError: they are none.
    """
    numbers = [metadata[name] for name in ("timesteps", "n_updates")]
    parts = [json.loads(metadata.get(name, "{}")) for name in ("config", "score", "counters")]
    if not all(re.fullmatch("[0-9]{1,18}", number) for number in numbers):
        raise ValueError(f"timesteps and n_updates {numbers}: must be whole numbers of at least 0")
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError("config, score and counters: must be objects of JSON")
    config, score, counters = parts
    if not all(isinstance(value, int | float) for value in score.values()):
        raise ValueError("score: must be numbers")
    return CheckpointInfo(int(numbers[0]), int(numbers[1]), config, score, metadata["format"], counters)


def _snapshot(info: CheckpointInfo, tensors: dict[str, Tensor]) -> Snapshot:
    return Snapshot(tensors, info.timesteps, info.n_updates, info.counters)


def _check_settings(info: CheckpointInfo, config: RunConfig, path: Path) -> None:
    difference = _difference(info.config, json.loads(json.dumps(as_plain(config))))
    if difference:
        raise ValueError(f"{path}: made with other settings: {difference}")


def _difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Which of the settings in `SAME` differ, in words; empty if none does."""
    found: list[str] = []
    for name in SAME:
        old, new = theirs.get(name), ours.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            # The settings of two different memories cannot be compared.
            if name != "memory_kwargs" or theirs.get("memory") == ours.get("memory"):
                if name == "memory_kwargs":
                    # A setting that it does not know had its default in effect.
                    old = dataclasses.asdict(make_config(str(ours["memory"]))) | old
                for key in sorted(old.keys() | new.keys()):
                    if old.get(key) != new.get(key):
                        found.append(f"{name}.{key}={old.get(key)!r}, here {new.get(key)!r}")
        elif old != new:
            found.append(f"{name}={old!r}, here {new!r}")
    return "; ".join(found)
