"""Many run folders at once: what can be read, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from memspan.runs.folder import find_runs

Read = TypeVar("Read")

LEFT_OUT = 1
"""Exit code of a command that did its work but for runs that it had to leave out."""


def scan_runs(
    paths: Iterable[Path], read: Callable[[Path], Read]
) -> tuple[dict[Path, Read], dict[Path, str]]:
    """Reads every run folder that is named or lies below one that is named.

    Args:
        paths: folders.
        read: reads one run's folder, and raises ValueError or OSError where it is damaged or foreign.

    Returns:
        By folder what was read, and by folder why the others are left out.

    Raises:
        ValueError: nothing is left; it says what is wrong with the first.
    """
    good: dict[Path, Read] = {}
    left_out: dict[Path, str] = {}
    for path in paths:
        try:
            folders = find_runs([path])
        except (ValueError, OSError) as error:
            left_out[path] = str(error)
            continue
        for folder in folders:
            if folder in good or folder in left_out:
                continue
            try:
                good[folder] = read(folder)
            except (ValueError, OSError) as error:
                left_out[folder] = str(error)
    if not good:
        raise ValueError(next(iter(left_out.values()), "runs: must name at least one run folder"))
    return good, left_out


def lines_of(left_out: Mapping[Path, str]) -> list[str]:
    """One line for each run that is left out."""
    return [
        f"left out: {' '.join((reason if str(folder) in reason else f'{folder}: {reason}').split())}"
        for folder, reason in left_out.items()
    ]
