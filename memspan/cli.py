"""The command `memspan`: finds the subcommand, and says in one line what was wrong with its use."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence

COMMANDS = {
    "train": ("memspan.train", "train an agent and leave a run folder behind"),
    "evaluate": ("memspan.evaluate", "measure trained agents"),
    "compare": ("memspan.compare", "open TensorBoard on runs, side by side"),
    "horizon": ("memspan.horizon", "measure how far back trained agents remember"),
    "list": ("memspan.list", "list environments and memories"),
    "play": ("memspan.play", "play a task yourself"),
    "probe": ("memspan.probe", "ask memories a question that takes a minute to learn"),
    "pull": ("memspan.pull", "get a run from the Hugging Face Hub, or from a folder"),
    "push": ("memspan.push", "put a run on the Hugging Face Hub, or into a folder"),
    "report": ("memspan.report", "write a page about runs, with an episode of each memory"),
    "sweep": ("memspan.sweep", "train and evaluate the runs that a file describes"),
    "watch": ("memspan.watch", "watch a trained agent and what it remembers"),
}
"""Name -> (module with a `main(args) -> int`, what it does)."""

EXTRAS = {
    **{"filelock": "ray", "huggingface_hub": "hub", "imageio": "video", "plotly": "report", "ray": "ray"},
    **{"rl_zoo3": "zoo", "wandb": "wandb"},
}
"""Package that is not always installed -> the extra that brings it."""
WRONG_USE = 2
INTERRUPTED = 130


def main(args: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns the exit code: 0 done, 2 wrong use, 130 interrupted."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(_help())
        return 0
    if args[0] in ("-V", "--version"):
        from memspan import __version__

        print(f"memspan {__version__}")
        return 0
    try:
        return _run(args[0], args[1:])
    except KeyboardInterrupt:
        return INTERRUPTED
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        print(f"memspan: {package} is missing: pip install 'memspan[{EXTRAS[package]}]'", file=sys.stderr)
        return WRONG_USE
    except (ValueError, OSError) as error:
        if os.environ.get("RANK", "0") == "0":  # of several processes one tells
            print(f"memspan: {' '.join(str(error).split())}", file=sys.stderr)
        return WRONG_USE


def _run(command: str, args: list[str]) -> int:
    flag, _, told = command.partition("=")
    if flag == "--print-completion":
        from memspan.completion import print_completion

        return print_completion([*told.split(), *args], COMMANDS)
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"must be one of {', '.join(COMMANDS)}"
        raise ValueError(f"command={command!r}: unknown; {hint}")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if os.getcwd() not in sys.path:
        # Where a memory or an environment of one's own lies. At the end, so that it hides no package.
        sys.path.append(os.getcwd())
    command_main = importlib.import_module(COMMANDS[command][0]).main
    if {"-h", "--help", "--help-all"} & set(args):
        with _wrapped_output():
            return int(command_main(args))
    return int(command_main(args))


@contextlib.contextmanager
def _wrapped_output() -> Iterator[None]:
    """Breaks lines that are too long for the terminal; descriptions come as one line each."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    out.isatty = sys.stdout.isatty  # type: ignore[method-assign]  # colour where there would be
    try:
        with contextlib.redirect_stdout(out):
            yield
    finally:
        width = shutil.get_terminal_size().columns
        out.seek(0)
        for line in out.read().splitlines():
            plain = line.startswith(("│", "╭", "╰", "\x1b")) or len(line) <= width
            print(line if plain else textwrap.fill(line, width, break_on_hyphens=False))


EXAMPLES = """\
examples:
  memspan list                                 environments and memories
  memspan train --memory lstm                  train on Corridor
  memspan train --env MODULE:ID                your environment
  memspan train --memory MODULE:CLASS          your memory
  memspan evaluate runs --figure figure.png    success against memory
  memspan watch runs/Corridor-v0/lstm/0        what the agent does and remembers
  memspan play memspan/Portal-v0               play a task yourself

memspan COMMAND --help says more.
memspan --print-completion SHELL: completion for bash, zsh or tcsh."""


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: memspan [--version] [--print-completion SHELL] COMMAND ...",
            "",
            "How much memory does success cost?",
            "A benchmark of memory in reinforcement learning.",
            "",
            *lines,
            "",
            EXAMPLES,
        ]
    )
