"""Prints the results of probes as Markdown, one table a folder.

    python results/probe_tables.py results/probes/*/

`*` stands where training ended early, because nothing was left to learn.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def table(told: dict[str, Any]) -> str:
    """A row per memory with its settings, a column per size; in brackets the 95 % interval."""
    lines: dict[str, dict[int, str]] = {}
    for one in told["results"]:
        name = ", ".join(filter(None, (one["memory"], one["label"])))
        low, high = one["ci"]
        end = "*" if one["solved"] else ""
        lines.setdefault(name, {})[one["size"]] = f"{one['score']:.3f}{end} ({low:.3f} to {high:.3f})"
    sizes = sorted({size for cells in lines.values() for size in cells})
    rows = [
        f"| {told['measure']} by {told['size_label']} | " + " | ".join(f"{size:,}" for size in sizes) + " |",
        "|---" + len(sizes) * "|--:" + "|",
    ]
    for name, cells in lines.items():
        rows.append(f"| {name} | " + " | ".join(cells.get(size, "") for size in sizes) + " |")
    chance = " | ".join(len(sizes) * [f"{told['chance']:g}"])
    return "\n".join([*rows, f"| chance | {chance} |"])


def main() -> None:
    """Reads and prints."""
    if len(sys.argv) < 2:
        sys.exit("usage: python results/probe_tables.py FOLDER...")
    for folder in map(Path, sys.argv[1:]):
        told = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        minutes = sum(one["seconds"] for one in told["results"]) / 60
        print(f"\n`{told['command']}`, {minutes:.0f} minutes, commit {str(told['git_commit'])[:7]}\n")
        print(table(told))


if __name__ == "__main__":
    main()
