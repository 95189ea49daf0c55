"""How long a start takes, each in a new process: importing memspan, and the command's help."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from side_by_side import Row, Size, Table, Target, Turn, in_turns

IMPORT = "import time; at = time.perf_counter(); import {}; print(time.perf_counter() - at)"
TORCH = "import sys, memspan; print('torch' in sys.modules)"
IMPORT_LIMIT, HELP_LIMIT = 0.3, 0.5


def output_of(*command: str) -> str:
    """What a new Python prints."""
    return subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True).stdout


def importing(module: str) -> Turn:
    """Seconds that the import takes by itself."""
    return lambda: {"seconds": float(output_of("-c", IMPORT.format(module)))}


def command(*arguments: str) -> Turn:
    """Seconds of a whole process."""

    def turn() -> dict[str, float]:
        begun = time.perf_counter()
        output_of(*arguments)
        return {"seconds": time.perf_counter() - begun}

    return turn


def tables(size: Size, tell: Callable[[str], None]) -> list[Table]:
    """All of this file."""
    contestants = {
        "import memspan": importing("memspan"),
        "import gymnasium": importing("gymnasium"),
        "memspan --help": command("-m", "memspan", "--help"),
        "python -c pass": command("-c", "pass"),
    }
    for turn in contestants.values():
        turn()  # the disk has the files from here on
    found = {name: each["seconds"] for name, each in in_turns(contestants, 2 * size.turns, tell).items()}
    loaded = output_of("-c", TORCH).strip() == "True"
    return [
        Table(
            "Seconds of a start",
            "seconds",
            [
                Row(ours, found[ours], theirs, found[theirs], Target("ours", at_most=limit))
                for ours, theirs, limit in (
                    ("import memspan", "import gymnasium", IMPORT_LIMIT),
                    ("memspan --help", "python -c pass", HELP_LIMIT),
                )
            ],
            notes=[
                f"After `import memspan` torch is {'' if loaded else 'not '}loaded.",
                f"{2 * size.turns} turns.",
            ],
        )
    ]
