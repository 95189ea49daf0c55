"""Files that are whole or not there, whenever the writer is killed or the power fails."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[str], object], replace: bool = True) -> None:
    """Has `write(temporary path)` make a file beside `path`, which then takes its place at once.

    Args:
        path: the file.
        write: makes a file at the path that it is given.
        replace: whether `path` may exist.

    Raises:
        FileExistsError: it exists, and may not.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        _sync_folder(path.parent.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        write(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        if replace:
            os.replace(name, path)
        else:
            _put_in_empty_place(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    _sync_folder(path.parent)


def remove_leftovers(folder: Path, suffix: str) -> None:
    """Removes what a killed writer of files that end in `suffix` left in `folder`."""
    for leftover in folder.glob(f".*{suffix}.*"):
        leftover.unlink(missing_ok=True)


def _put_in_empty_place(name: str, path: Path) -> None:
    try:
        os.link(name, path)
    except FileExistsError:
        raise
    except OSError:
        # This file system knows no hard links.
        if path.exists():
            raise FileExistsError(path) from None
        os.replace(name, path)


def _sync_folder(folder: Path) -> None:
    """Makes new names in a folder last; a file's own fsync says nothing about its name."""
    # Windows opens no folders.
    with contextlib.suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
