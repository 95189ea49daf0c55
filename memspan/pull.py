"""`memspan pull`: a run from the Hugging Face Hub, or from a folder that `memspan push` wrote."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional

from memspan.evaluation.results import FILE_NAME, Evaluation
from memspan.hub.unpack import check_names, file_sizes, is_folder, unpack
from memspan.runs import LEFT_OUT, RunConfig, checkpoint_path, read_info


@dataclass(frozen=True)
class Options:
    """Get a run from the Hugging Face Hub, or from a folder that `memspan push` wrote.

    It becomes a run's folder, for evaluate, watch, compare, report and train --resume. Pickles, links, and
    paths that lead out are refused; files that are none of a run's are left out. Nothing of it is run.
    """

    place: Positional[str]
    """OWNER/NAME: a repository on the Hub; or a folder, written as ./NAME, ../NAME or /NAME."""
    folder: Path | None = None
    """The new folder; by default runs/OWNER/NAME, or runs/NAME."""
    revision: str | None = None
    """Branch, tag or commit of the repository; by default its newest commit."""


def main(args: Sequence[str] | None = None) -> int:
    """Pulls.

    Returns:
        The exit code: 1 where files were left out, otherwise 0.

    Raises:
        ValueError: an option is wrong, the Hub cannot be reached, or a file is not as it must be.
    """
    args = list(sys.argv[1:] if args is None else args)
    options = tyro.cli(Options, prog="memspan pull", args=args, config=(FlagCreatePairsOff,))
    console = Console(highlight=False, soft_wrap=True, markup=False)
    from_folder = is_folder(options.place)
    if from_folder and options.revision is not None:
        raise ValueError(f"revision={options.revision!r}: folders have none; must be left out")
    place = Path(options.place).expanduser()
    target = options.folder or Path("runs", place.resolve().name if from_folder else options.place)
    if target.exists():
        raise ValueError(f"folder={str(target)!r}: exists already; nothing is overwritten, choose another")
    if from_folder:
        wanted, others = check_names(file_sizes(place), options.place)
        config = unpack(place, wanted, target, options.place)
    else:
        from memspan.hub.client import download, list_files

        with console.status(f"{options.place}: what is in it"):
            commit, files = list_files(options.place, options.revision)
        wanted, others = check_names(files, options.place)
        console.print(
            f"{options.place} at {commit[:12]}: {sum(files[name] for name in wanted) / 2**20:.1f} MiB"
        )
        with tempfile.TemporaryDirectory(prefix="memspan-pull-") as scratch:
            download(options.place, commit, wanted, Path(scratch))
            config = unpack(Path(scratch), wanted, target, options.place)
    for name in others:
        print(f"memspan: left out: {name}: none of a run's files", file=sys.stderr)
    _tell(config, target, console)
    return LEFT_OUT if others else 0


def _tell(config: RunConfig, folder: Path, console: Console) -> None:
    parts = [f"{config.memory} on {config.env}, seed {config.seed}"]
    info = read_info(checkpoint_path(folder))
    parts.append(f"{info.timesteps} of {config.total_timesteps} timesteps")
    if (folder / FILE_NAME).is_file():
        found = Evaluation.load(folder)
        told = (
            ("mean return", found.mean_return)
            if found.success_rate is None
            else ("success rate", found.success_rate)
        )
        parts.append(f"{told[0]} {told[1]:.3f} with effective memory {found.effective_memory:.1f}")
    console.print(f"{', '.join(parts)}.")
    for field in ("env", "memory"):
        module = getattr(config, field).rpartition(":")[0]
        if module:
            console.print(
                f"{field}={getattr(config, field)}: using it imports {module} from your Python path."
            )
    console.print(f"Run:      {folder}")
    console.print(f"Evaluate: memspan evaluate {folder}")
    if info.timesteps < config.total_timesteps:
        console.print(f"Go on:    memspan train --resume {folder}")
