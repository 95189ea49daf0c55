"""One file per checkpoint, for evaluation and for going on: safetensors, nothing that runs code when loaded.

Tensors:

    policy.<parameter>          the policy, each parameter once
    optimizer.<i>.<name>        Adam's state of parameter i
    recent.success  (E,) bool   the last episodes' successes, E at most `stats_window_size`
    recent.episodes (E, 3)      their returns, lengths and times

Metadata: `format`, `timesteps` (those that were learnt from), `n_updates`, and as JSON `config` and `score`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from memspan.memory import make_config

if TYPE_CHECKING:
    from memspan.agents import MemoryPPO
    from memspan.runs.config import RunConfig

FORMAT = "memspan checkpoint 1"
SAME = ("env", "env_kwargs", "memory", "memory_kwargs", "algorithm", "width")
"""Settings without which the parameters mean nothing."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says about itself."""

    timesteps: int
    n_updates: int
    config: dict[str, Any]
    score: dict[str, float]
    """What the policy had reached, as `Score` in `memspan.runs.callbacks` has it; may be empty."""


def as_plain(config: RunConfig) -> dict[str, Any]:
    """The config in plain values, with every setting of the memory spelt out."""
    plain = dataclasses.asdict(config)
    plain["run_dir"] = str(config.run_dir)
    plain["memory_kwargs"] = dataclasses.asdict(make_config(config.memory, config.memory_kwargs))
    return plain


def write_atomically(path: Path, write: Any) -> None:
    """Has `write(temporary path)` make a file beside `path`, which then takes its place at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        write(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def save_checkpoint(
    model: MemoryPPO,
    config: RunConfig,
    path: Path,
    timesteps: int | None = None,
    score: Mapping[str, float] | None = None,
) -> None:
    """Writes a checkpoint; `path` has the old content or the new one, never half of it.

    Args:
        model: the agent.
        config: its settings.
        path: the file.
        timesteps: those that the policy has learnt from; None: all that were made.
        score: what the policy has reached.
    """
    tensors = {f"policy.{name}": value for name, value in _policy_tensors(model).items()}
    for index, values in model.policy.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    tensors["recent.success"] = torch.tensor([bool(one) for one in model.ep_success_buffer or ()])
    episodes = [[one["r"], one["l"], one["t"]] for one in model.ep_info_buffer or ()]
    tensors["recent.episodes"] = torch.tensor(episodes, dtype=torch.float64).reshape(-1, 3)
    metadata = {
        "format": FORMAT,
        "timesteps": str(model.num_timesteps if timesteps is None else timesteps),
        "n_updates": str(model._n_updates),
        "config": json.dumps(as_plain(config)),
        "score": json.dumps(dict(score or {})),
    }
    ready = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, lambda temporary: save_file(ready, temporary, metadata))


def load_checkpoint(model: MemoryPPO, config: RunConfig, path: Path) -> CheckpointInfo:
    """Puts a checkpoint into a freshly made model: policy, optimizer, timesteps, recent episodes.

    Raises:
        ValueError: the file is damaged, or was made with other settings.
    """
    info, tensors = _read(path)
    difference = _difference(info.config, json.loads(json.dumps(as_plain(config))))
    if difference:
        raise ValueError(f"{path}: made with other settings: {difference}")
    policy = _policy_tensors(model)
    loaded = {
        name.removeprefix("policy."): value for name, value in tensors.items() if name.startswith("policy.")
    }
    for name in sorted(policy.keys() | loaded.keys()):
        have, want = (tuple(one[name].shape) if name in one else None for one in (loaded, policy))
        if have != want:
            raise ValueError(f"{path}: parameter {name} has shape {have}, but the policy needs {want}")
    with torch.no_grad():
        for name, value in policy.items():
            value.copy_(loaded[name])
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer = model.policy.optimizer
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    model.num_timesteps = info.timesteps
    model._n_updates = info.n_updates
    window = config.stats_window_size
    model.ep_success_buffer = deque(tensors["recent.success"].tolist(), maxlen=window)
    model.ep_info_buffer = deque(
        ({"r": r, "l": int(length), "t": t} for r, length, t in tensors["recent.episodes"].tolist()),
        maxlen=window,
    )
    return info


def read_info(path: Path) -> CheckpointInfo:
    """What a checkpoint says about itself.

    Raises:
        ValueError: the file is damaged, or no checkpoint.
    """
    return _read(path, with_tensors=False)[0]


def _read(path: Path, with_tensors: bool = True) -> tuple[CheckpointInfo, dict[str, Tensor]]:
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: damaged or cut short, or not a safetensors file ({error})") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: format={metadata.get('format')!r}: must be {FORMAT!r}")
    return (
        CheckpointInfo(
            int(metadata["timesteps"]),
            int(metadata["n_updates"]),
            json.loads(metadata["config"]),
            json.loads(metadata["score"]),
        ),
        tensors,
    )


def _policy_tensors(model: MemoryPPO) -> dict[str, Tensor]:
    """Every parameter once: SB3's policies know their feature extractor by three names."""
    found: dict[Any, tuple[str, Tensor]] = {}
    for name, value in model.policy.state_dict().items():
        found.setdefault((value.data_ptr(), value.shape) if value.numel() else name, (name, value))
    return dict(found.values())


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
