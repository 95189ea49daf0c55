"""`memspan push`: a run to the Hugging Face Hub, or to a folder in the same form."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.text import Text
from tyro.conf import FlagCreatePairsOff, Positional

from memspan.hub.unpack import is_folder
from memspan.runs import LEFT_OUT


@dataclass(frozen=True)
class Options:
    """Put a run on the Hugging Face Hub, or into a folder in the same form.

    Weights (safetensors), settings, results, pictures and a video go along, with a model card; no path of
    this machine does. `memspan pull` brings it back.
    """

    run: Positional[Path]
    """Folder of the run."""
    place: Positional[str]
    """OWNER/NAME: a repository on the Hub; or a new folder, written as ./NAME, ../NAME or /NAME."""
    private: bool = False
    """A new repository can be seen by its owner alone."""
    replace: bool = False
    """The repository may exist; its history is kept. Folders are never replaced."""
    no_replay: bool = False
    """Without a video of three episodes."""


def main(args: Sequence[str] | None = None) -> int:
    """Pushes.

    Returns:
        The exit code: 1 where results or the video are missing, otherwise 0.

    Raises:
        ValueError: an option or the run is wrong, or the Hub refuses.
    """
    args = list(sys.argv[1:] if args is None else args)
    options = tyro.cli(Options, prog="memspan push", args=args, config=(FlagCreatePairsOff,))
    from memspan.hub.client import check_login, upload
    from memspan.hub.pack import pack

    to_folder = is_folder(options.place)
    target = Path(options.place).expanduser()
    if to_folder:
        if target.exists():
            raise ValueError(
                f"place={options.place!r}: exists already; nothing is overwritten, choose another"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
    else:
        check_login()
    console = Console(highlight=False, soft_wrap=True, markup=False)
    with (
        tempfile.TemporaryDirectory(
            dir=target.parent if to_folder else None, prefix=".memspan-push-"
        ) as scratch,
        console.status("") as status,
    ):
        made = Path(scratch) / "run"
        made.mkdir()
        repo = None if to_folder else options.place
        _, missing = pack(
            options.run, made, repo, not options.no_replay, lambda text: status.update(Text(text))
        )
        size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
        if to_folder:
            made.rename(target)
            where = str(target)
        else:
            status.update(f"uploading {size / 2**20:.1f} MiB")
            where = upload(made, options.place, options.private, options.replace)
    for line in missing:
        print(f"memspan: {' '.join(line.split())}", file=sys.stderr)
    console.print(f"Pushed:  {options.run} -> {where} ({size / 2**20:.1f} MiB)")
    console.print(f"Get it:  memspan pull {options.place}")
    return LEFT_OUT if missing else 0
