"""From a folder that somebody else wrote to a run's folder, or not at all."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from memspan.evaluation.results import FILE_NAME, Evaluation
from memspan.runs import RunConfig, load_config, read_info
from memspan.runs.checks import check_fields
from memspan.runs.folder import CHECKPOINTS, CONFIG, checkpoint_path

REPO = re.compile(r"[\w.-]+/[\w.-]+")
"""A repository on the Hub."""
MIB = 2**20
WANTED = {
    r"README\.md|config\.yaml|evaluation\.json": MIB,
    r"(training|success)\.png|replay\.(mp4|gif)": 256 * MIB,
    r"checkpoints/(\d{1,18}|best)\.safetensors": 4096 * MIB,
}
"""Files of a run, and the most bytes that one may have."""
PICKLES = {
    *(".pkl", ".pickle", ".pck", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".zip"),
}
"""Files that are pickles or may hold some."""


def is_folder(place: str) -> bool:
    """Whether a place is a folder of this machine, `./x`, `../x`, `/x` or `~/x`, and no repository.

    Raises:
        ValueError: it is neither.
    """
    if place.startswith((".", "~")) or Path(place).is_absolute():
        return True
    if not REPO.fullmatch(place):
        raise ValueError(
            f"place={place!r}: must be OWNER/NAME for a repository on the Hub, or a folder like ./{place}"
        )
    return False


def check_names(files: Mapping[str, int], where: str) -> tuple[list[str], list[str]]:
    """Looks at names and sizes before anything is read.

    Args:
        files: name, with `/` between folders -> bytes.
        where: what they are files of.

    Returns:
        Those that are a run's, and others; hidden ones are in neither.

    Raises:
        ValueError: a path leads out, a file is a pickle or too large, or it is no run.
    """
    wanted: list[str] = []
    others: list[str] = []
    for name, size in sorted(files.items()):
        parts = name.split("/")
        if not name.isprintable() or set(name) & set("\\:") or {"", ".", ".."} & {*parts}:
            raise ValueError(f"{where}: holds {name!r}, a path that leads out of it; nothing was taken")
        if Path(name).suffix.lower() in PICKLES:
            raise ValueError(
                f"{where}: holds {name!r}, which may be a pickle and run anything; nothing was taken"
            )
        most = next((most for pattern, most in WANTED.items() if re.fullmatch(pattern, name)), None)
        if most is None:
            if not name.startswith("."):
                others.append(name)
        elif size > most:
            raise ValueError(f"{where}: {name} has {size} bytes: must have at most {most}; nothing was taken")
        else:
            wanted.append(name)
    if CONFIG not in wanted or not any(name.startswith(f"{CHECKPOINTS}/") for name in wanted):
        raise ValueError(f"{where}: is no run: must hold {CONFIG} and {CHECKPOINTS}/*.safetensors")
    return wanted, others


def file_sizes(folder: Path) -> dict[str, int]:
    """Files of a folder, in the form that `check_names` takes.

    Raises:
        ValueError: there is no such folder, or it holds a link or a device.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    found: dict[str, int] = {}
    for here, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in (*below, *names):
            path = Path(here) / name
            told = path.lstat()
            if stat.S_ISREG(told.st_mode):
                found[path.relative_to(folder).as_posix()] = told.st_size
            elif not stat.S_ISDIR(told.st_mode):
                raise ValueError(f"{path}: is no file but a link or a device; nothing was taken")
    return found


def unpack(source: Path, names: Iterable[str], target: Path, where: str) -> RunConfig:
    """Copies a run's files to a new folder, once all of them are what they must be.

    Args:
        source: folder with the files.
        names: those to take, from `check_names`.
        target: the new folder.
        where: what is told of the source.

    Returns:
        The run's settings.

    Raises:
        ValueError: the target exists, or a file is damaged, a link, or no such file.
    """
    if target.exists() or target.is_symlink():
        raise ValueError(f"folder={str(target)!r}: exists already; nothing is overwritten, choose another")
    sizes = file_sizes(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        made = Path(scratch) / "run"
        made.mkdir()
        for name in names:
            if name not in sizes:
                raise ValueError(f"{where}: {name} is missing")
            (made / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, made / name)
        try:
            config = check_run(made)
        except ValueError as error:
            raise ValueError(f"{where}: {str(error).replace(f'{made}/', '')}; nothing was taken") from None
        made.rename(target)
    return config


def check_run(folder: Path) -> RunConfig:
    """Reads everything of a run's folder once; imports and runs nothing.

    Raises:
        ValueError: says what is wrong.
    """
    with open(folder / CONFIG, encoding="utf-8") as file:
        try:
            # A few lines of aliases of aliases can stand for terabytes.
            aliases = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(file))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ValueError(f"{CONFIG}: not YAML ({' '.join(str(error).split())})") from None
    if aliases:
        raise ValueError(f"{CONFIG}: must hold no aliases")
    config = load_config(folder)
    check_fields(config)
    for name in ("env", "memory"):
        if not getattr(config, name).isprintable():
            raise ValueError(f"{CONFIG}: {name}={getattr(config, name)!r}: must have no control characters")
    checkpoint_path(folder)
    for path in sorted((folder / CHECKPOINTS).iterdir()):
        read_info(path)
    if (folder / FILE_NAME).is_file():
        _check_results(folder)
    return config


def _check_results(folder: Path) -> None:
    """Raises ValueError unless the results are some, and their numbers are numbers."""
    try:
        found = Evaluation.load(folder)
    except RecursionError:
        raise ValueError(f"{FILE_NAME}: is nested too deeply") from None
    for name in ("success_rate", "mean_return", "effective_memory"):
        value = getattr(found, name)
        if not isinstance(value, int | float) and (value is not None or name != "success_rate"):
            raise ValueError(f"{FILE_NAME}: {name}={value!r}: must be a number")
