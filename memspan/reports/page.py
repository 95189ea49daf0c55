"""Puts the page together: one file that needs no network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from memspan import __version__
from memspan.agents.files import write_atomically
from memspan.evaluation import Evaluation
from memspan.evaluation.groups import by_task, score, task_title
from memspan.reports import charts, tables
from memspan.reports.data import ReportRun, by_name, evaluations
from memspan.reports.lens import Lens

MARK = '<meta name="generator" content="memspan report">'
"""By which a report is known, so that no other file is ever replaced by one."""
EQUAL = 0.98
"""Success from which on memories are compared by what they cost."""


def check_report_path(path: Path) -> None:
    """Refuses, before long work, a path that a report must not or cannot be written to.

    Raises:
        ValueError: no folder for it, or something else is there.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"output={str(path)!r}: must end in .html")
    if not path.parent.is_dir():
        raise ValueError(f"output={str(path)!r}: must be in a folder that exists")
    if path.exists():
        if not path.is_file():
            raise ValueError(f"output={str(path)!r}: must be a file's name")
        with path.open(encoding="utf-8", errors="replace") as file:
            if MARK not in file.read(2000):
                raise ValueError(f"output={str(path)!r}: there is another file already, which is no report")


def write_page(
    path: Path, runs: Sequence[ReportRun], left_out: Mapping[Path, str], lenses: Sequence[Lens] = ()
) -> None:
    """Writes the report, whole or not at all.

    Args:
        path: of the file.
        runs: one or more.
        left_out: folders that are damaged or foreign, and why.
        lenses: episodes to replay.

    Raises:
        ValueError: as `check_report_path`.
    """
    check_report_path(path)
    text = render(runs, left_out, lenses)
    # Names of folders may hold what is no text.
    write_atomically(path, lambda name: Path(name).write_text(text, encoding="utf-8", errors="replace"))


def render(runs: Sequence[ReportRun], left_out: Mapping[Path, str], lenses: Sequence[Lens] = ()) -> str:
    """The page's HTML."""
    figures: dict[str, Any] = {}
    tasks = [_task(i, own, figures) for i, own in enumerate(_tasks(runs))]
    files = {name: (resources.files(__package__) / name).read_text("utf-8") for name in ASSETS}
    # Names of runs and folders come from outside: they are escaped wherever they are put.
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(files["page.html.j2"])
    return template.render(
        mark=Markup(MARK),
        style=Markup(files["page.css"]),
        script=Markup(files["page.js"]),
        plotly=Markup(get_plotlyjs()),
        data=Markup(_for_script({"figures": figures, "lenses": [dataclasses.asdict(one) for one in lenses]})),
        tasks=tasks,
        lenses=lenses,
        left_out={str(folder): " ".join(why.split()) for folder, why in left_out.items()},
        heads={"means": tables.MEANS, "runs": tables.RUNS, "order": tables.ORDER, "made": tables.MADE},
        n_runs=len(runs),
        version=__version__,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


ASSETS = ("page.html.j2", "page.css", "page.js")


def _for_script(data: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _tasks(runs: Sequence[ReportRun]) -> list[list[ReportRun]]:
    """Runs of the same environment with the same settings, those without evaluation with the others."""
    found: dict[tuple[str, str], list[ReportRun]] = {}
    for run in runs:
        env = run.config.env.rpartition(":")[2]
        found.setdefault((env, json.dumps(run.config.env_kwargs, sort_keys=True, default=str)), []).append(
            run
        )
    return list(found.values())


def _task(i: int, runs: list[ReportRun], figures: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of one task; its charts go to `figures`."""
    own = evaluations(runs)
    title = task_title(by_task(own)[0][0]) if own else runs[0].config.env
    shown: dict[str, Any] = {
        "id": f"task{i}",
        "title": title,
        "sentence": sentence(runs)
        if own
        else "None of these runs was evaluated yet: memspan evaluate does it.",
        "means": tables.means(runs),
        "runs": tables.single(runs),
        "made": tables.made(runs),
        "order": tables.order(runs) if len(by_name(r for r in runs if r.evaluation)) > 1 else None,
        "charts": [],
    }
    drawn = {
        "cost": charts.cost(runs) if own else None,
        "curves": charts.curves(runs),
        "difficulty": charts.difficulty([run for run in runs if run.evaluation]) if own else None,
        "beyond": charts.beyond(runs),
        "horizons": charts.horizons(runs),
        "resources": charts.resources(runs) if own else None,
    }
    for name, figure in drawn.items():
        if figure is not None:
            figures[f"task{i}-{name}"] = json.loads(figure.to_json())
            shown["charts"].append(name)
    return shown


def sentence(runs: Sequence[ReportRun]) -> str:
    """The task's answer to how much memory success costs, in words."""
    groups = {name: own for name, members in by_name(runs).items() if (own := evaluations(members))}
    if any(run.success_rate is None for own in groups.values() for run in own):
        return "This environment does not tell success: the chart shows the mean return."

    def means(own: Sequence[Evaluation]) -> tuple[float, float]:
        return sum(map(score, own)) / len(own), sum(run.effective_memory for run in own) / len(own)

    good = {name: means(own) for name, own in groups.items() if means(own)[0] >= EQUAL}
    if not good:
        name = max(groups, key=lambda name: means(groups[name])[0])
        rate, memory = means(groups[name])
        return (
            f"Nothing succeeds in {EQUAL:.0%} of the episodes; best is {name} with {rate:.3f}, "
            f"at {memory:.1f} memory vectors."
        )
    ranked = sorted(good, key=lambda name: good[name][1])
    told = ", ".join(f"{name} {good[name][1]:.1f}" for name in ranked[:6])
    more = f" and {len(ranked) - 6} more" if len(ranked) > 6 else ""
    return (
        f"What success in at least {EQUAL:.0%} of the episodes costs, "
        f"in memory vectors that a step can read: {told}{more}."
    )
