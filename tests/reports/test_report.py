"""`memspan report`: numbers on the page are those in the files, and what is wrong is named."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from memspan import cli
from memspan.reports.data import by_name, read_report_run
from memspan.reports.page import sentence
from memspan.runs import RunConfig, make_model, run_folder, save_checkpoint, save_config

PUBLISHED = Path(__file__).parents[2] / "results" / "corridor" / "Corridor-v0"


def make_run(run_dir: Path, memory: str, seed: int = 0, **settings: Any) -> Path:
    """An untrained agent, evaluated on a few episodes."""
    config = RunConfig(
        memory=memory, seed=seed, run_dir=run_dir, n_envs=2, width=8, env_kwargs={"max_length": 5}, **settings
    )
    folder = run_folder(config)
    save_config(config, folder)
    save_checkpoint(make_model(config), config, folder / "checkpoints" / "000000000512.safetensors", 512)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "runs"
    for memory in ("lstm", "expire-span"):
        for seed in (0, 1):
            make_run(folder, memory, seed)
    assert cli.main(["evaluate", str(folder), "--episodes", "8", "--n-envs", "4"]) == 0
    return folder


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def test_the_page_has_the_numbers_of_the_files(runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert cli.main(["report", str(runs), "-o", str(page)]) == 0
    data = data_of(page)
    traces = data["figures"]["task0-cost"]["data"]
    points = {
        (x, y)
        for trace in traces
        if not trace.get("name")
        for x, y in zip(trace["x"], trace["y"], strict=True)
    }
    told = [json.loads(path.read_text()) for path in runs.rglob("evaluation.json")]
    assert points == {(run["effective_memory"], run["success_rate"]) for run in told}
    assert {trace["name"] for trace in traces if trace.get("name")} == {"lstm", "expire-span"}
    text = page.read_text(encoding="utf-8")
    for run in told:
        assert f"{run['success_rate']:.3f}" in text
        assert str(run["git_commit"])[:10] in text
    assert "memspan train --env memspan/Corridor-v0 --memory expire-span --seed 1" in text
    assert "--env.max-length 5" in text


def test_the_lens_shows_what_is_remembered(runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert cli.main(["report", str(runs), "-o", str(page)]) == 0
    lenses = {lens["memory"]: lens for lens in data_of(page)["lenses"]}
    assert lenses["lstm"]["vectors"]
    spans = lenses["expire-span"]
    assert not spans["vectors"]
    assert len(spans["pictures"]) > 1
    for i, step in enumerate(spans["steps"][:-1]):
        for flat in step["l"]:
            slots = [flat[k : k + 3] for k in range(0, len(flat), 3)]
            # Of a few steps none is forgotten yet, and all attention goes to them.
            assert [slot[0] for slot in slots] == list(range(i + 1))
            assert sum(slot[2] for slot in slots) == pytest.approx(1000, abs=len(slots))
            assert slots[-1][1] > 0


def test_nothing_is_fetched(runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert cli.main(["report", str(runs), "-o", str(page), "--no-lens"]) == 0
    head = page.read_text(encoding="utf-8").split('<script type="application/json"')[0]
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", head)
    assert "url(" not in head
    assert "@import" not in head
    assert not data_of(page)["lenses"]


def test_damaged_and_foreign_runs_are_named_and_left_out(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    damaged = copy / "Corridor-v0" / "lstm" / "1"
    (damaged / "evaluation.json").write_text('{"env": 3')
    foreign = copy / "somebody's"
    foreign.mkdir()
    (foreign / "config.yaml").write_text("<script>alert(1)</script>: 1\n")
    weights = copy / "Corridor-v0" / "expire-span" / "0" / "checkpoints" / "000000000512.safetensors"
    weights.write_bytes(b"nothing")
    other = copy / "Corridor-v0" / "expire-span" / "1" / "checkpoints" / "000000000512.safetensors"
    other.write_bytes(b"nothing")
    page = tmp_path / "report.html"
    assert cli.main(["report", str(copy), "-o", str(page)]) == 1
    err = capsys.readouterr().err
    for folder, why in ((damaged, "not of this version"), (foreign, "no such setting"), (weights, "damaged")):
        assert [line for line in err.splitlines() if str(folder) in line and why in line]
    text = page.read_text(encoding="utf-8")
    assert 'id="left-out"' in text
    assert "<script>alert" not in text
    assert "expire-span/1" in text
    assert "<td>lstm/1" not in text


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("report.pdf", "must end in .html"),
        ("no/report.html", "must be in a folder that exists"),
        ("thesis.html", "which is no report"),
        ("folder.html", "must be a file's name"),
    ],
)
def test_where_no_report_can_go(
    runs: Path, tmp_path: Path, name: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.html").write_text("years of work")
    (tmp_path / "folder.html").mkdir()
    assert cli.main(["report", str(runs), "-o", str(tmp_path / name), "--no-lens"]) == 2
    assert why in capsys.readouterr().err
    assert (tmp_path / "thesis.html").read_text() == "years of work"


def test_a_report_is_replaced(runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    for folder in (runs / "Corridor-v0" / "lstm", runs):
        assert cli.main(["report", str(folder), "-o", str(page), "--no-lens"]) == 0
    assert "expire-span" in page.read_text(encoding="utf-8")


def test_a_run_that_was_not_evaluated_is_listed(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "lstm")
    page = tmp_path / "report.html"
    assert cli.main(["report", str(tmp_path / "runs"), "-o", str(page), "--no-lens"]) == 0
    assert "not evaluated" in page.read_text(encoding="utf-8")


def test_published_results_can_be_reported(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert cli.main(["report", str(PUBLISHED), "-o", str(page), "--no-lens"]) == 0
    figures = data_of(page)["figures"]
    assert {"task0-cost", "task0-curves", "task0-difficulty", "task0-resources"} <= figures.keys()
    runs = [read_report_run(path.parent) for path in sorted(PUBLISHED.glob("*/*/config.yaml"))]
    assert len(by_name(runs)["lstm"]) == 3
    assert "98%" in sentence(runs)
    assert "lstm 2.0" in sentence(runs)
