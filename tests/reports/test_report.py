"""`memspan report`: numbers on the page are those in the files, and what is wrong is named."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from memspan import cli
from memspan.reports import tables
from memspan.reports.data import by_name, read_report_run
from memspan.reports.page import sentence
from memspan.runs import RunConfig, make_model, run_folder, save_checkpoint, save_config
from memspan.runs.checkpoint import as_plain
from memspan.runs.flags import parse

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
    ("file", "change", "why"),
    [
        ("evaluation.json", {"success_rate": "good"}, "success_rate='good'"),
        ("evaluation.json", {"env": "memspan/Portal-v0"}, "lstm on memspan/Portal-v0, seed 1: another run"),
        ("evaluation.json", {"memory": "gru"}, "gru on memspan/Corridor-v0, seed 1: another run"),
        ("evaluation.json", {"seed": 0}, "seed 0: another run"),
        ("config.yaml", {"name": 3}, "name=3"),
        ("config.yaml", {"name": "a/b"}, "name='a/b'"),
        ("config.yaml", {"total_timesteps": "many"}, "total_timesteps='many'"),
    ],
)
def test_what_others_wrote_is_not_trusted(
    runs: Path,
    tmp_path: Path,
    file: str,
    change: dict[str, Any],
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = tmp_path / "runs"
    shutil.copytree(runs / "Corridor-v0" / "lstm", copy)
    path = copy / "1" / file
    path.write_text(json.dumps(yaml.safe_load(path.read_text()) | change))
    assert cli.main(["report", str(copy), "-o", str(tmp_path / "report.html"), "--no-lens"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert why in line


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


def figures_of(page: Path) -> dict[str, Any]:
    return dict(data_of(page)["figures"])


def test_the_same_name_with_other_settings_is_another_group(runs: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    shutil.copytree(runs / "Corridor-v0" / "lstm", others)
    for seed in "01":
        path = others / seed / "config.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"gamma": 0.5, "n_epochs": 7}))
    found = by_name(
        read_report_run(path.parent) for path in [*runs.rglob("config.yaml"), *others.rglob("config.yaml")]
    )
    assert {name: [run.config.seed for run in own] for name, own in found.items()} == {
        "expire-span": [0, 1],
        "lstm (n_epochs=3, gamma=0.99)": [0, 1],
        "lstm (n_epochs=7, gamma=0.5)": [0, 1],
    }


HOSTILE = "</script><img src=x onerror=alert(1)>%{x}"


def make_hostile(folder: Path, source: Path) -> None:
    """A run all of whose texts are code; its memory and its environment are not at hand."""
    shutil.copytree(source, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config |= {"memory": f"m:{HOSTILE}", "env": HOSTILE, "env_kwargs": {HOSTILE: HOSTILE}, "device": HOSTILE}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    told = json.loads((folder / "evaluation.json").read_text())
    told |= {"memory": f"m:{HOSTILE}", "env": HOSTILE, "name": HOSTILE, "env_kwargs": {HOSTILE: HOSTILE}}
    told |= {"difficulty": HOSTILE, "git_commit": HOSTILE[:10], "torch_version": HOSTILE}
    (folder / "evaluation.json").write_text(json.dumps(told))
    shutil.copytree(source, folder / "beyond" / HOSTILE[2:8], ignore=shutil.ignore_patterns("*.yaml"))


def test_texts_of_others_are_shown_and_not_run(runs: Path, tmp_path: Path) -> None:
    make_hostile(tmp_path / "<b>", runs / "Corridor-v0" / "lstm" / "0")
    page = tmp_path / "report.html"
    assert cli.main(["report", str(tmp_path / "<b>"), "-o", str(page), "--no-lens"]) == 0
    text = page.read_text(encoding="utf-8")
    for code in "<img", "</script><":
        assert code not in text.replace("</script><script>", "")
    shown = json.dumps(figures_of(page))
    # Plotly makes tags of a text's own, and fills templates in.
    assert "<img" not in shown
    assert re.findall(r"%[{](?!x|y|text)", shown) == []
    assert "&lt;img src=x" in shown
    # As are commands: they can be copied into a shell.
    command = read_report_run(tmp_path / "<b>").command
    assert HOSTILE in shlex.split(command)
    assert f"m:{HOSTILE}" in shlex.split(command)


def test_commands_train_the_same_again() -> None:
    for path in sorted(PUBLISHED.glob("*/0/config.yaml")):
        run = read_report_run(path.parent)
        words = shlex.split(run.command)
        assert words[:2] == ["memspan", "train"]
        again = as_plain(parse(words[2:], "memspan train"))
        assert again | {"run_dir": ""} == as_plain(run.config) | {"run_dir": "", "threads": again["threads"]}


def test_returns_have_intervals_too(runs: Path, tmp_path: Path) -> None:
    """Over seeds and episodes, as the page says."""
    copy = tmp_path / "runs"
    shutil.copytree(runs / "Corridor-v0" / "lstm", copy)
    for seed in "01":
        path = copy / seed / "evaluation.json"
        told = {"success_rate": None, "success_ci": None, "mean_return": 5.0, "return_ci": [4.0, 6.0]}
        path.write_text(json.dumps(json.loads(path.read_text()) | told))
    own = [read_report_run(copy / seed) for seed in "01"]
    ((_, _, mean, ends, *_),) = tables.means(own)
    low, high = map(float, ends.split(" to "))
    assert mean == "5.000"
    assert 4 < low < 4.6
    assert 5.4 < high < 6
