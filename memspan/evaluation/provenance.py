"""Which code made a result."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGE = Path(__file__).resolve().parents[1]


def provenance() -> dict[str, str | None]:
    """The fields of an `Evaluation` that tell versions."""
    try:
        memspan_version = version("memspan")
    except PackageNotFoundError:
        memspan_version = "unknown"
    return {
        "memspan_version": memspan_version,
        "torch_version": torch.__version__,
        "git_commit": git_commit(PACKAGE),
    }


def git_commit(package: Path) -> str | None:
    """Commit that the package's code is from, with "-dirty" if it was changed since.

    None where git cannot tell: no git, no checkout, or a package that merely lies in someone else's.
    """
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        commit = _git(package, "rev-parse", "HEAD")
        changed = _git(package, "status", "--porcelain", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
