"""Zips that hold tensors and JSON and are checked before anything of them is used.

    manifest.json     format, version, kind, and of every other file its size and SHA-256
    *.json            plain values
    *.safetensors     tensors

Nothing is compressed, so that a file cannot become larger by being read. Whatever else may be in a zip is
refused, pickles above all: to read one is to run it.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memspan.agents.files import write_atomically

FORMAT = "memspan zip"
VERSION = 1
"""Raised when what files hold changes; other versions are refused by their number."""
MANIFEST = "manifest.json"
_PICKLES = (".pkl", ".pickle", ".pth", ".pt")
_UNREADABLE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,  # ways to compress that Python does not know
    RuntimeError,  # encrypted
    ValueError,
    OverflowError,
    EOFError,
    IndexError,
    OSError,
)

Target = str | Path | io.BufferedIOBase


def write_archive(target: Target, kind: str, files: Mapping[str, bytes]) -> None:
    """Writes a zip; a path has the old content or the new one, never half of it.

    Args:
        target: path, or a file that is open for writing.
        kind: what it holds.
        files: name -> content.
    """
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "files": {name: {"bytes": len(data), "sha256": _digest(data)} for name, data in files.items()},
    }
    content = {MANIFEST: json.dumps(manifest, indent=1).encode(), **files}

    def write(place: Any) -> None:
        with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as archive:
            for name, data in content.items():
                # A fixed date: the same content gives the same bytes.
                archive.writestr(zipfile.ZipInfo(name), data)

    if isinstance(target, str | Path):
        write_atomically(Path(target), write)
    else:
        write(target)


def read_archive(source: Target, kind: str) -> dict[str, bytes]:
    """The files of a zip, all as the manifest says.

    Args:
        source: path, or a file that is open for reading.
        kind: what it must hold.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such zip, is damaged, or holds what it must not.
    """
    where = str(source) if isinstance(source, str | Path) else "file"
    data = Path(source).read_bytes() if isinstance(source, str | Path) else source.read()
    if data[:1] == b"\x80":
        raise ValueError(f"{where}: a pickle, which could run anything; it is not loaded")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_entries(archive.infolist(), len(data), where)
            files = {info.filename: archive.read(info) for info in archive.infolist()}
    except RefusedError:
        raise
    except _UNREADABLE as error:
        raise ValueError(f"{where}: damaged, cut short or no zip ({error})") from None
    manifest = read_json(files.pop(MANIFEST), f"{where}: {MANIFEST}")
    _check_manifest(manifest, kind, files, where)
    return files


def read_json(data: bytes, where: str) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        ValueError: it is none.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: no JSON ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: must be an object of JSON")
    return value


class RefusedError(ValueError):
    """A zip that may be whole and is not read any further."""


def _check_entries(entries: list[zipfile.ZipInfo], size: int, where: str) -> None:
    """Raises RefusedError for what must not be in a zip, before any of it is read."""
    names = [entry.filename for entry in entries]
    if "data" in names and any(name.endswith(".pth") for name in names):
        raise RefusedError(
            f"{where}: a zip of Stable-Baselines3's own format, as memspan wrote it before this format, too; "
            "its pickles could run anything, so it is not loaded; load it with what wrote it and save it anew"
        )
    for entry in entries:
        name = entry.filename
        if name.startswith(("/", "\\")) or ".." in name or ":" in name or "\\" in name:
            raise RefusedError(f"{where}: holds {name!r}, a path that leads out of it; not loaded")
        if name.endswith(_PICKLES):
            raise RefusedError(f"{where}: holds {name!r}, a pickle, which could run anything; not loaded")
        if not name.endswith((".json", ".safetensors")) or "/" in name:
            raise RefusedError(f"{where}: holds {name!r}: must hold .json and .safetensors alone")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise RefusedError(
                f"{where}: {name} is compressed, from {entry.file_size} bytes to {entry.compress_size}: must "
                "be stored as it is"
            )
    if len(names) != len({*names}):
        raise RefusedError(f"{where}: holds a name twice")
    if sum(entry.file_size for entry in entries) > size:
        raise RefusedError(f"{where}: declares more bytes than the file has, {size}")
    if MANIFEST not in names:
        raise RefusedError(f"{where}: has no {MANIFEST}: not written by memspan")


def _check_manifest(manifest: dict[str, Any], kind: str, files: dict[str, bytes], where: str) -> None:
    """Raises ValueError unless the manifest tells of just these files, and of a version that can be read."""
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{where}: format={manifest.get('format')!r}: must be {FORMAT!r}")
    version = manifest.get("version")
    if version != VERSION:
        raise ValueError(f"{where}: version={version!r}: this memspan reads version {VERSION} alone")
    if manifest.get("kind") != kind:
        raise ValueError(f"{where}: holds {manifest.get('kind')!r}: must hold {kind!r}")
    told = manifest.get("files")
    if not isinstance(told, dict) or told.keys() != files.keys():
        raise ValueError(f"{where}: holds other files than its manifest tells of")
    for name, data in files.items():
        if told[name] != {"bytes": len(data), "sha256": _digest(data)}:
            raise ValueError(f"{where}: {name} is not what was written: its SHA-256 differs")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
