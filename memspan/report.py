"""`memspan report`: one page about many runs, to look at and to pass on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.status import Status
from tyro.conf import FlagCreatePairsOff, Positional

from memspan.evaluate import with_new_settings
from memspan.evaluation.groups import score
from memspan.runs import LEFT_OUT, lines_of, scan_runs

if TYPE_CHECKING:
    from memspan.reports import Lens, ReportRun

LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Options:
    """Write a page about runs: what success costs, how sure that is, and an episode of each memory.

    The page is one file that needs no network.
    """

    runs: Positional[tuple[Path, ...]]
    """Run folders, or folders with run folders somewhere below."""
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("report.html")
    """The file to write; an older report there is replaced, any other file is not."""
    no_lens: bool = False
    """Without episodes to look into; else one is played now for each memory, by its best run with weights."""
    seed: int = 1_000_000
    """Of these episodes."""

    def validate(self) -> None:
        """Raises ValueError that names the option, its value and what is allowed."""
        from memspan.reports import check_report_path

        if not self.runs:
            raise ValueError("runs: must name at least one run folder")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"seed={self.seed}: must be from 0 to {LARGEST_SEED}")
        check_report_path(self.output)


def main(args: Sequence[str] | None = None) -> int:
    """Writes the report.

    Returns:
        The exit code: 1 where a run is damaged or foreign and was left out, otherwise 0.

    Raises:
        ValueError: an option is wrong, no run is left, or a library is missing.
    """
    args = list(sys.argv[1:] if args is None else args)
    options = tyro.cli(Options, prog="memspan report", args=args, config=(FlagCreatePairsOff,))
    try:
        from memspan.reports import write_page
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is missing: pip install 'memspan[report]'") from None
    options.validate()
    runs, left_out = scan_runs(options.runs, _read)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    lenses = [] if options.no_lens else _lenses(list(runs.values()), options.seed, console, left_out)
    write_page(options.output, list(runs.values()), left_out, lenses)
    for line in lines_of(left_out):
        print(f"memspan: {line}", file=sys.stderr)
    console.print(f"Report: {options.output}")
    return LEFT_OUT if left_out else 0


def _read(folder: Path) -> ReportRun:
    from memspan.reports import read_report_run

    run = read_report_run(folder)
    return run if run.evaluation is None else replace(run, evaluation=with_new_settings(run.evaluation))


def _lenses(runs: Sequence[ReportRun], seed: int, console: Console, left_out: dict[Path, str]) -> list[Lens]:
    """An episode of each task and memory, by its best run with weights; what cannot be played is named."""
    from memspan.reports import play_lens

    chosen: dict[tuple[str, str, str], ReportRun] = {}
    for run in sorted((run for run in runs if run.can_play), key=_rank):
        config = run.config
        chosen.setdefault((config.env, str(config.env_kwargs), config.memory), run)
    lenses: list[Lens] = []
    with console.status("") as status:
        for run in sorted(chosen.values(), key=lambda run: (run.config.env, run.config.memory)):
            told = f"{run.label}: an episode to look into"
            try:
                lenses.append(play_lens(run, seed, partial(_tell, status, told)))
            except ValueError as error:
                left_out[run.folder] = f"{error} (in the report, but without an episode)"
    return lenses


def _rank(run: ReportRun) -> tuple[float, float, str]:
    """By success to a hundredth, then by what it costs."""
    e = run.evaluation
    return (1.0, 0.0, run.label) if e is None else (-round(score(e), 2), e.effective_memory, run.label)


def _tell(status: Status, told: str, step: int) -> None:
    status.update(f"{told}, step {step}")
