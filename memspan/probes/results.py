"""What a probe found, as it stands in `results.json`."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE_NAME = "results.json"


@dataclass(frozen=True)
class Result:
    """One memory at one size."""

    memory: str
    label: str
    """The settings that were asked for, in words."""
    size: int
    score: float
    """Accuracy or error, see `Probe.measure`; mean over the sequences of the test."""
    scores: list[float] = field(repr=False)
    """Of each sequence of the test, the mean over its questions; not written to the file."""
    updates: int
    solved: bool
    """Training ended early, as there was nothing more to learn."""
    curve: dict[str, list[Any]] = field(repr=False)
    """While training, every few updates: their number, mean size, loss and score."""
    effective_memory: float
    """Memory vectors that a question could read, mean."""
    capacity: float
    parameters: int
    memory_kwargs: dict[str, Any]
    """Every setting of the memory."""
    seconds: float
    ci: tuple[float, float] | None = None
    """95 % interval of the score, for who shows it to work out."""


@dataclass(frozen=True)
class ProbeResults:
    """One call of `memspan probe`."""

    probe: str
    measure: str
    chance: float
    size_name: str
    size_label: str
    settings: dict[str, Any]
    """Of the probe."""
    training: dict[str, Any]
    command: str
    results: list[Result]
    memspan_version: str = ""
    torch_version: str = ""
    git_commit: str | None = None

    @property
    def sizes(self) -> list[int]:
        """Those that there are results of, rising."""
        return sorted({result.size for result in self.results})

    def shared_settings(self) -> dict[str, list[str]]:
        """Memory -> settings that all its entrants were given, for memories that are there more than once."""
        given: dict[str, list[list[str]]] = {}
        for memory, label in dict.fromkeys((one.memory, one.label) for one in self.results):
            given.setdefault(memory, []).append(label.split(", ") if label else [])
        return {
            memory: [setting for setting in labels[0] if all(setting in label for label in labels)]
            for memory, labels in given.items()
            if len(labels) > 1
        }

    def name(self, result: Result) -> str:
        """The memory, without its module, and those of its settings that its other entrants do not share."""
        shared = self.shared_settings().get(result.memory, [])
        own = [setting for setting in result.label.split(", ") if setting and setting not in shared]
        return ", ".join([result.memory.rpartition(":")[2], *own])

    def save(self, folder: Path) -> Path:
        """Writes `results.json`, whole or not at all."""
        plain = dataclasses.asdict(self)
        for result in plain["results"]:
            del result["scores"]
        path = folder / FILE_NAME
        part = path.with_name(f".{FILE_NAME}.{os.getpid()}")
        try:
            part.write_text(json.dumps(plain, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path
