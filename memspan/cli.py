"""The command `memspan`: finds the subcommand, and says in one line what was wrong with its use."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": ("memspan.train", "train an agent and leave a run folder behind"),
    "evaluate": ("memspan.evaluate", "measure trained agents"),
    "compare": ("memspan.compare", "open TensorBoard on runs, side by side"),
    "horizon": ("memspan.horizon", "measure how far back trained agents remember"),
    "play": ("memspan.play", "play a task yourself"),
    "probe": ("memspan.probe", "ask memories a question that they learn to answer in a minute"),
    "report": ("memspan.report", "write a page about runs: success against memory, and what agents remember"),
    "sweep": ("memspan.sweep", "train and evaluate many runs that a file describes, here or on a cluster"),
    "watch": ("memspan.watch", "watch a trained agent and what it remembers"),
}
"""Name -> (module with a `main(args) -> int`, what it does)."""

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
    except (ValueError, OSError) as error:
        print(f"memspan: {' '.join(str(error).split())}", file=sys.stderr)
        return WRONG_USE


def _run(command: str, args: list[str]) -> int:
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"must be one of {', '.join(COMMANDS)}"
        raise ValueError(f"command={command!r}: unknown; {hint}")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if os.getcwd() not in sys.path:
        # Where a memory or an environment of one's own lies. At the end, so that it hides no package.
        sys.path.append(os.getcwd())
    code: int = importlib.import_module(COMMANDS[command][0]).main(args)
    return code


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: memspan [--version] COMMAND ...",
            "",
            "How much memory does success cost? A benchmark of memory in reinforcement learning.",
            "",
            *lines,
            "",
            "memspan COMMAND --help says more.",
        ]
    )
