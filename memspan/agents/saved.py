"""Agents and policies in files that hold tensors and JSON alone; see `memspan.agents.archive`.

settings.json           what the agent or policy was made with, and how far it has come
policy.safetensors      the policy, each parameter once
optimizer.safetensors   <i>.<name>: the optimizer's state of parameter i (agents alone)
groups.json             its groups' settings (agents alone)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from memspan.agents.archive import Target, read_archive, read_json, write_archive
from memspan.agents.plain import LeftOut, decode, encode, parts_left_out
from memspan.agents.snapshot import policy_tensors, read_optimizer_state
from memspan.agents.stored import check_finite, check_like

if TYPE_CHECKING:
    from memspan.agents.policy import MemoryPolicy

SETTINGS, POLICY, OPTIMIZER, GROUPS = (
    "settings.json",
    "policy.safetensors",
    "optimizer.safetensors",
    "groups.json",
)
_MOST = {"n_layers": 256, "n_levels": 256, "n_basis": 1024, "n_": 10_000}
"""Layers, levels, heads and the like that there may be."""


def write_saved(target: Target, policy: MemoryPolicy, settings: Mapping[str, Any], kind: str) -> None:
    """Writes a policy, with its optimizer where `kind` is "agent"."""
    files = {
        SETTINGS: _to_json({name: encode(value) for name, value in sorted(settings.items())}),
        POLICY: _to_safetensors(policy_tensors(policy)),
    }
    if kind == "agent":
        state = policy.optimizer.state_dict()
        tensors = {
            f"{index}.{name}": value
            for index, one in state["state"].items()
            for name, value in one.items()
            if isinstance(value, Tensor)
        }
        files[OPTIMIZER] = _to_safetensors(tensors)
        groups = [
            {name: encode(value) for name, value in group.items() if name != "params"}
            for group in state["param_groups"]
        ]
        files[GROUPS] = _to_json({"groups": groups})
    write_archive(target, kind, files)


class Saved:
    """A file that has been read and checked.

    Args:
        source: path, or a file that is open for reading.
        kind: "agent" or "policy".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or not whole, or holds what it must not.
    """

    def __init__(self, source: Target, kind: str) -> None:
        self.where = str(source) if isinstance(source, str | Path) else "file"
        files = read_archive(source, kind)
        wanted = {SETTINGS, POLICY} | ({OPTIMIZER, GROUPS} if kind == "agent" else set())
        if files.keys() != wanted:
            raise ValueError(
                f"{self.where}: holds {', '.join(sorted(files))}: must hold {', '.join(sorted(wanted))}"
            )
        with self.naming():
            told = read_json(files[SETTINGS], SETTINGS)
            self.settings = {name: self._decode(name, value) for name, value in told.items()}
            self._policy = _from_safetensors(files[POLICY], POLICY)
            if kind == "agent":
                self._optimizer = _from_safetensors(files[OPTIMIZER], OPTIMIZER)
                self._groups = read_json(files[GROUPS], GROUPS).get("groups")

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Whatever is wrong with what the file tells becomes a ValueError of one line that names the file."""
        try:
            yield
        except Exception as error:
            if isinstance(error, ValueError) and str(error).startswith(self.where):
                raise
            said = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{self.where}: {said}") from None

    def take_settings(self, instead: Mapping[str, Any]) -> dict[str, Any]:
        """All settings, with some of them replaced.

        Raises:
            ValueError: one could not be saved, and nothing is given instead.
        """
        settings = {
            **self.settings,
            **{name: value for name, value in instead.items() if name in self.settings},
        }
        for name, value in settings.items():
            for what in parts_left_out(value):
                raise ValueError(
                    f"{self.where}: {name} was a {what}, which is not saved: give it as load(..., {name}=...)"
                )
        return settings

    def check_shapes(self, policy: MemoryPolicy) -> None:
        """Compares tensors with those of a policy, which may be one without memory, on the device "meta".

        Raises:
            ValueError: one is missing, unknown, of another type or shape, or not finite.
        """
        with self.naming():
            own = policy_tensors(policy)
            for name, value in own.items():
                check_like(self._policy, name, value)
                check_finite(name, self._policy[name])
            for name in self._policy:
                if name not in own:
                    raise ValueError(f"tensor {name} is none of this policy")

    def put_into(self, policy: MemoryPolicy) -> None:
        """Puts what was learnt into a policy that fits, and into its optimizer if the file has one."""
        self.check_shapes(policy)
        with self.naming():
            optimizer = self._optimizer_state(policy) if hasattr(self, "_optimizer") else None
            with torch.no_grad():
                for name, value in policy_tensors(policy).items():
                    value.copy_(self._policy[name])
            if optimizer is not None:
                policy.optimizer.load_state_dict(optimizer)

    def _decode(self, name: str, value: Any) -> Any:
        try:
            return decode(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}: {error}") from None

    def _optimizer_state(self, policy: MemoryPolicy) -> dict[str, Any]:
        state = read_optimizer_state(
            policy.optimizer, {f"optimizer.{k}": v for k, v in self._optimizer.items()}
        )
        groups = policy.optimizer.state_dict()["param_groups"]
        if not isinstance(self._groups, list) or len(self._groups) != len(groups):
            raise ValueError(f"{GROUPS}: must hold {len(groups)} groups of parameters")
        for group, told in zip(groups, self._groups, strict=True):
            if not isinstance(told, dict) or told.keys() != group.keys() - {"params"}:
                raise ValueError(f"{GROUPS}: must hold {', '.join(sorted(group.keys() - {'params'}))}")
            for name, value in told.items():
                group[name] = _like(name, decode(value), group[name])
        return {"state": state, "param_groups": groups}


def check_memory_settings(memory: Any, memory_kwargs: Any) -> None:
    """Raises ValueError for a memory of a module that nobody has imported, or with senseless numbers."""
    if not isinstance(memory, str) or not isinstance(memory_kwargs, dict):
        raise ValueError(f"memory={memory!r}: must be the name of a memory, with settings by name")
    module, colon, _ = memory.rpartition(":")
    if colon and module not in sys.modules:
        raise ValueError(
            f"memory={memory!r}: {module} has not been imported; import it first, if you trust it"
        )
    for name, value in memory_kwargs.items():
        most = _MOST.get(name, _MOST["n_"] if name.startswith("n_") else None)
        if most is not None and isinstance(value, int) and value > most:
            raise ValueError(f"memory_kwargs: {name}={value}: must be at most {most}")


def with_suffix(path: Target, must_exist: bool = False) -> Target:
    """The path with .zip, where it has no suffix, as Stable-Baselines3 has it."""
    if not isinstance(path, str | Path):
        return path
    plain = Path(path)
    if must_exist:
        return plain if plain.is_file() else Path(f"{plain}.zip")
    return plain if plain.suffix else Path(f"{plain}.zip")


def _like(name: str, value: Any, own: Any) -> Any:
    """A setting of the optimizer, which must be of the kind of its own."""
    numbers = isinstance(value, int | float) and isinstance(own, int | float)
    if not (numbers or value is None or own is None or isinstance(value, type(own))):
        raise ValueError(f"{GROUPS}: {name}={value!r}: must be like {own!r}")
    return value


def _to_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode()


def _to_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def _from_safetensors(data: bytes, name: str) -> dict[str, Tensor]:
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name}: damaged or not safetensors ({error})") from None


__all__ = ["LeftOut", "Saved", "check_memory_settings", "with_suffix", "write_saved"]
