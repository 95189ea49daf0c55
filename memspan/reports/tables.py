"""The page's tables, as rows of text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from memspan.evaluation import success_interval
from memspan.evaluation.groups import interval, score
from memspan.evaluation.order import against_best
from memspan.reports.data import ReportRun, by_name, evaluations

Rows = list[list[str]]

MEANS = [
    "memory and settings",
    "seeds",
    "score",
    "95 % interval",
    "effective memory",
    "peak",
    "capacity",
    "bytes",
]
RUNS = ["run", "steps", "score", "95 % interval", "effective memory", "peak", "steps/s", "horizon"]
ORDER = ["memory and settings", "pairs", "gain", "95 % interval", "p(better)", "p-value", "verdict"]
MADE = ["run", "commit", "memspan", "torch", "episodes", "command"]


def means(runs: Sequence[ReportRun]) -> Rows:
    """A row for each group of seeds, the best first, of equals the one that needs less."""
    rows: list[tuple[float, float, list[str]]] = []
    for name, members in by_name(runs).items():
        own = evaluations(members)
        if not own:
            continue
        mean = fmean(map(score, own))
        memory = fmean(run.effective_memory for run in own)
        cells = [
            name,
            str(len(own)),
            f"{mean:.3f}",
            _ends(success_interval(own)),
            f"{memory:.1f}",
            f"{max(run.peak_memory for run in own):.3g}",
            f"{max(run.capacity for run in own):.3g}",
            f"{max(run.state_bytes for run in own):,}",
        ]
        rows.append((-round(mean, 3), memory, cells))
    return [cells for *_, cells in sorted(rows)]


def single(runs: Sequence[ReportRun]) -> Rows:
    """A row for each run; of one that was not evaluated, what there is."""
    rows: Rows = []
    for members in by_name(runs).values():
        for run in members:
            e = run.evaluation
            horizon = "" if run.horizon is None else str(run.horizon.horizon).lower()
            if e is None:
                last = run.curves.get("success_rate", [])
                rows.append(
                    [run.label, f"{last[-1][0] / 1e6:.2f} M" if last else "", "not evaluated", *[""] * 5]
                )
                continue
            rows.append(
                [
                    run.label,
                    f"{e.timesteps / 1e6:.2f} M",
                    f"{score(e):.3f}",
                    _ends(interval(e)),
                    f"{e.effective_memory:.1f}",
                    f"{e.peak_memory:.3g}",
                    f"{e.steps_per_second:,.0f}",
                    horizon,
                ]
            )
    return rows


def order(runs: Sequence[ReportRun]) -> dict[str, Any]:
    """How sure it is that others are not as good as the best: its name, rows, and what the test needs."""
    groups = {name: own for name, members in by_name(runs).items() if (own := evaluations(members))}
    names, found = list(groups), against_best(list(groups.values()))
    return {
        "best": names[found.best],
        "rows": [[names[i], *cells] for i, cells in found.rows],
        "comparisons": found.n_comparisons,
        "fewest_pairs": found.fewest_pairs,
    }


def made(runs: Sequence[ReportRun]) -> Rows:
    """How each number was made."""
    rows: Rows = []
    for members in by_name(runs).values():
        for run in members:
            e = run.evaluation
            told = (
                ["", "", "", "not evaluated"]
                if e is None
                else [
                    (e.git_commit or "unknown")[:10],
                    e.memspan_version,
                    e.torch_version,
                    f"{e.episodes:,} from seed {e.evaluation_seed:,}"
                    + (", deterministic" if e.deterministic else ""),
                ]
            )
            rows.append([run.label, *told, run.command])
    return rows


def _ends(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"
