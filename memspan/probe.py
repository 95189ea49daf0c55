"""`memspan probe`: asks memories a question that only memory can answer, and draws how well they learn to."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from tyro.conf import FlagCreatePairsOff, UseAppendAction

from memspan.evaluation import provenance, save_figure
from memspan.memory import MEMORIES
from memspan.probes import (
    PROBES,
    Entrant,
    Probe,
    ProbeResults,
    Result,
    Training,
    far_enough,
    parse_entrant,
    run,
)
from memspan.probes.results import FILE_NAME
from memspan.show.probe_figure import draw_probe
from memspan.show.probe_table import in_short, interval, legend, probe_table, show_progress

COLUMNS = 100
"""Width of what is printed where there is no terminal to ask."""
INTERRUPTED = 130
DIVERGED = 1


@dataclass(frozen=True)
class Options:
    """What is compared, and where the results go."""

    memory: UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """Memories: NAME or module:Class, with settings NAME,key=value,key=value. Default: all."""
    out: Path | None = None
    """Folder of the results; by default probes/NAME."""
    overwrite: bool = False
    """Replace results that are in the folder already."""
    threads: int = 1
    """CPU threads of torch; small networks are fastest with 1."""

    @property
    def entrants(self) -> list[Entrant]:
        """Raises ValueError: a memory or setting is unknown, or named twice."""
        names = [name for group in self.memory for name in group] or list(MEMORIES)
        entrants = [parse_entrant(name) for name in names]
        for i, entrant in enumerate(entrants):
            if entrant in entrants[:i]:
                raise ValueError(f"memory={names[i]!r}: must be named once")
        return entrants


def main(args: Sequence[str] | None = None) -> int:
    """Trains, tests and draws; returns the exit code: 1 if a memory diverged.

    Raises:
        ValueError: a setting is wrong; nothing was trained.
    """
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(_help())
        return 0
    probe, training, options = parse(args)
    entrants, folder = check(probe, training, options)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = COLUMNS
    found = ProbeResults(
        probe=probe.name,
        measure=probe.measure,
        chance=probe.chance,
        size_name=probe.size_name,
        size_label=probe.size_label,
        settings=dataclasses.asdict(probe),
        training=dataclasses.asdict(training),
        command=shlex.join(["memspan", "probe", *args]),
        results=[],
        **provenance(),  # type: ignore[arg-type]
    )
    diverged: list[str] = []
    try:
        for result in _results(probe, entrants, training, console, diverged):
            found.results.append(result)
            found.save(folder)
    except KeyboardInterrupt:
        kept = f"; what was done is in {folder / FILE_NAME}" if found.results else ""
        console.print(f"Stopped{kept}.", soft_wrap=True, markup=False)
        return INTERRUPTED
    except ValueError as error:
        # Settings were checked: what goes wrong now is no wrong use, and its traceback is needed.
        raise RuntimeError("probing failed") from error
    if not found.results:
        console.print("Nothing was learnt: there are no results.")
        return DIVERGED
    console.print(probe_table(found))
    if signs := legend(found):
        console.print(signs + "\n", soft_wrap=True, markup=False)
    console.print(f"Results: {folder / FILE_NAME}", soft_wrap=True, markup=False)
    for file in save_figure(draw_probe(found), folder / probe.name):
        console.print(f"Figure:  {file}", soft_wrap=True, markup=False)
    for title in diverged:
        console.print(f"Missing: {title}", soft_wrap=True, markup=False)
    return DIVERGED if diverged else 0


def parse(args: Sequence[str]) -> tuple[Probe, Training, Options]:
    """The probe that is named first, how to train, and the rest.

    Raises:
        ValueError: there is no such probe.
        SystemExit: help was asked for, or a flag is wrong.
    """
    name, *rest = args
    if name not in PROBES:
        near = difflib.get_close_matches(name, PROBES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"must be one of {', '.join(PROBES)}"
        raise ValueError(f"probe={name!r}: unknown; {hint}")
    parsed: Any = tyro.cli(
        flag_class(name),
        prog=f"memspan probe {name}",
        description=f"{PROBES[name].__doc__} What is asked, and how to read the answers: docs/probes.md. "
        "Settings of a memory: memspan train --memory NAME --help-all. Those that are not given are "
        "raised where the memory could not reach back far enough.\n\n"
        f"Memories: {', '.join(sorted(MEMORIES))}.",
        args=rest,
        config=(FlagCreatePairsOff,),
    )
    return parsed.probe, parsed.training, parsed.options


def flag_class(name: str) -> Any:
    """A dataclass of the flags of probe `name`."""
    probe_class, flat = PROBES[name], tyro.conf.arg(name="")
    return dataclasses.make_dataclass(
        "Flags",
        [
            ("probe", Annotated[probe_class, flat], dataclasses.field(default=probe_class())),
            ("options", Annotated[Options, flat], dataclasses.field(default=Options())),
            ("training", Annotated[Training, flat], dataclasses.field(default=Training())),
        ],
    )


def check(probe: Probe, training: Training, options: Options) -> tuple[list[Entrant], Path]:
    """Everything that can be wrong; returns the memories, and the folder, which it makes.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """
    probe.validate()
    training.validate()
    if options.threads < 1:
        raise ValueError(f"threads={options.threads}: must be at least 1")
    entrants = options.entrants
    for entrant in entrants:
        far_enough(entrant, training.width, 1)
    folder = options.out or Path("probes") / probe.name
    if (folder / FILE_NAME).exists() and not options.overwrite:
        raise ValueError(
            f"{folder}: has results already; choose another --out, or replace them by --overwrite"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"out={str(folder)!r}: must be a folder that can be written to ({reason})") from None
    return entrants, folder


def _results(
    probe: Probe, entrants: list[Entrant], training: Training, console: Console, diverged: list[str]
) -> Iterator[Result]:
    """One memory after the other, small sizes first; titles of those that diverged go to `diverged`."""
    todo = [(entrant, size) for entrant in entrants for size in probe.sizes]
    for i, (entrant, size) in enumerate(todo):
        name = " ".join(filter(None, [entrant.name, entrant.label]))
        title = f"[{i + 1}/{len(todo)}] {name}, {probe.size_label.partition(' (')[0]} {size}"
        try:
            with show_progress(console, title, training.steps, probe.measure) as on_update:
                result = run(probe, entrant, size, training, on_update)
        except FloatingPointError as error:
            # The others can still be compared.
            diverged.append(f"{title}: {error}")
            console.print(diverged[-1], soft_wrap=True, markup=False)
            continue
        result = dataclasses.replace(result, ci=interval(probe.measure, result.scores))
        console.print(f"{title}: {in_short(probe.measure, result)}", soft_wrap=True, markup=False)
        yield result


def _help() -> str:
    width = max(map(len, PROBES))
    # The first line of a probe's docstring says what it asks.
    lines = [f"  {name:{width}}  {(probe.__doc__ or '').strip()}" for name, probe in PROBES.items()]
    return "\n".join(
        [
            "usage: memspan probe NAME [--memory MEMORY ...] ...",
            "",
            "Asks memories a question that only memory can answer. Each learns it by supervision.",
            "",
            *lines,
            "",
            "memspan probe NAME --help says more.",
        ]
    )
