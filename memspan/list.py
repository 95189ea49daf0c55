"""`memspan list`: the environments and memories that there are."""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import tyro

from memspan.envs.registration import SUMMARIES


@dataclass(frozen=True)
class Options:
    """List the environments and memories that there are, each with what it is about."""

    what: tyro.conf.Positional[Literal["all", "environments", "memories"]] = "all"
    """What to list."""


def main(args: Sequence[str] | None = None) -> int:
    """Prints the list; returns the exit code."""
    args = list(sys.argv[1:] if args is None else args)
    options = tyro.cli(Options, prog="memspan list", args=args)
    if options.what != "memories":
        _print("Environments, and what must be remembered:", SUMMARIES)
        print("Every other Gymnasium id will do, too: MODULE:ID imports MODULE first.")
    if options.what == "all":
        print()
    if options.what != "environments":
        _print("Memories:", memories())
        print("One of your own: MODULE:CLASS, a subclass of memspan.memory.Memory in a file")
        print("MODULE.py in the folder where you are, or installed. Its settings become flags.")
    return 0


def memories() -> dict[str, str]:
    """Name -> the first sentence of its file, without the title."""
    from memspan.memory import MEMORIES

    return {name: _first_sentence(MEMORIES[name]) for name in sorted(MEMORIES)}


def _first_sentence(memory: type) -> str:
    text = inspect.getdoc(inspect.getmodule(memory)) or inspect.getdoc(memory) or ""
    sentence = " ".join(text.split("\n\n")[0].split()).rstrip(".")
    # Files begin with a title that says little more than the name.
    return sentence.partition(": ")[2] or sentence


def _print(title: str, lines: Mapping[str, str]) -> None:
    print(title)
    indent = max(map(len, lines)) + 4
    # In a pipe every entry is one line, for grep.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    for name, text in lines.items():
        first = f"  {name}".ljust(indent)
        print(textwrap.fill(text, width, initial_indent=first, subsequent_indent=" " * indent))
