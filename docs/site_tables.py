"""A hook of MkDocs: tables of the site that are made from published results, so that they cannot go stale.

In a page, `<!-- runs portal/Portal-v0 -->` becomes a table of the runs in that folder of results/, and
`<!-- cost lstm -->` what results/cost/past.json says of that memory.
"""

import json
import re
from pathlib import Path
from typing import Any

from memspan.memory import MEMORIES

RESULTS = Path(__file__).resolve().parents[1] / "results"
MARK = re.compile(r"^<!-- (runs|cost) (\S+) -->$", re.M)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts a table in the place of each mark."""
    return MARK.sub(lambda match: {"runs": runs_table, "cost": cost_table}[match[1]](match[2]), markdown)


def runs_table(folder: str) -> str:
    """A row for each memory that was trained with its preset: means over seeds.

    Raises:
        FileNotFoundError: results/ has no evaluated run there.
    """
    rows = []
    for name in MEMORIES:
        files = sorted((RESULTS / folder / name).glob("*/evaluation.json"))
        runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        if runs:
            cells = [
                name,
                str(len(runs)),
                _mean([run["success_rate"] for run in runs], 3),
                _mean([run["effective_memory"] for run in runs], 1),
                f"{max(run['timesteps'] for run in runs) / 1e6:.1f} M",
            ]
            rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        raise FileNotFoundError(f"{folder}: no evaluation.json under {RESULTS}")
    head = "| memory, preset | seeds | success | effective memory | steps |\n|---|--:|--:|--:|--:|"
    return "\n".join([head, *rows])


def _mean(values: list[float], digits: int) -> str:
    """The mean, and the least and the most where they differ."""
    told = [f"{value:.{digits}f}" for value in (sum(values) / len(values), min(values), max(values))]
    return told[0] if told[1] == told[2] else f"{told[0]} ({told[1]} to {told[2]})"


def cost_table(memory: str) -> str:
    """What a step of one environment takes and holds, over the length of the past.

    Raises:
        ValueError: the memory was not measured.
    """
    measured = json.loads((RESULTS / "cost" / "past.json").read_text(encoding="utf-8"))
    rows = []
    for point in measured["points"]:
        if point["memory"] == memory:
            cells = [
                f"{point['past']:,}" + (f", {point['label']}" if point["label"] else ""),
                f"{1e6 * point['act_seconds']:,.0f}&nbsp;us",
                f"{1e6 * point['train_seconds']:,.0f}&nbsp;us",
                f"{point['state_bytes']:,}",
                f"{point['effective_memory']:,.1f}",
            ]
            rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        raise ValueError(
            f"cost={memory!r}: must be one of {sorted({one['memory'] for one in measured['points']})}"
        )
    head = "| past, steps | acting, a step | training, a step | bytes a row | vectors read |"
    machine = (
        f"{measured['processor']}, one core, width {measured['width']}, commit {measured['git_commit'][:7]}"
    )
    source = f"{machine}; how it was measured: [cost](../../results/cost/README.md)."
    return "\n".join([head, "|---|--:|--:|--:|--:|", *rows, "", source])
