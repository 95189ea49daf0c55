"""`memspan train --wandb`: Weights & Biases sees what TensorBoard does, and the run stays what it was."""

import json
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from memspan import cli
from memspan.evaluation.curves import SUCCESS, Curves
from memspan.runs.folder import numbered_checkpoints
from memspan.runs.tracking import FILE

SIZES = "--env.max-length 5 --n-envs 4 --n-steps 8 --width 8"
FLAGS = f"--memory lstm {SIZES} --total-timesteps 128 --checkpoint-every 64"


def train(run_dir: Path, *more: str) -> Path:
    assert cli.main(["train", *FLAGS.split(), "--run-dir", str(run_dir), *more]) == 0
    return run_dir / "Corridor-v0" / "lstm" / "0"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Weights & Biases keeps what it would send."""
    if "wandb" in sys.modules:
        # A process reads its settings once, and others may have shown a run in it.
        sys.modules["wandb"].teardown()
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "wandb"


def rows(folder: Path) -> dict[int, float]:
    curves = Curves(folder)
    curves.read()
    return {step: point.value for step, point in curves.points[SUCCESS].items()}


def test_the_run_is_the_same_and_is_shown(tmp_path: Path, offline: Path) -> None:
    pytest.importorskip("wandb")
    alone, shown = train(tmp_path / "alone"), train(tmp_path / "shown", "--wandb", "cues")
    assert {path.name for path in shown.iterdir() if path.name[:6] != "events"} == {
        *(path.name for path in alone.iterdir() if path.name[:6] != "events"),
        FILE,
    }
    assert (shown / "config.yaml").read_text().replace("shown", "alone") == (
        alone / "config.yaml"
    ).read_text()
    same_weights(alone, shown)
    assert rows(shown) == rows(alone)
    told = json.loads((shown / FILE).read_text())
    assert told["project"] == "cues"
    # Gone on with from half-way, it is the same run there, and ends with the same weights here.
    numbered_checkpoints(shown)[-1].unlink()
    assert cli.main(["train", "--resume", str(shown)]) == 0
    same_weights(alone, shown)
    assert json.loads((shown / FILE).read_text()) == told
    kept = sorted(offline.glob("offline-run-*/*.wandb"))
    assert [file.stem for file in kept] == [f"run-{told['id']}"] * 2
    for file in kept:
        data = file.read_bytes()
        assert SUCCESS.encode() in data
        assert b"longest_dependency" in data


def same_weights(one: Path, other: Path) -> None:
    ours, theirs = (load_file(numbered_checkpoints(folder)[-1]) for folder in (one, other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.numpy().tobytes() == theirs[name].numpy().tobytes(), name


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert cli.main(["train", *args]) == cli.WRONG_USE
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("project", ["", " ", "a/b", "a?b"])
def test_names_that_no_project_has(project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"wandb={project!r}: must be" in refused(capsys, f"--wandb={project}", "--run-dir", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_without_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "pip install 'memspan[wandb]'" in refused(capsys, "--wandb", "cues", "--run-dir", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_when_it_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb = pytest.importorskip("wandb")

    def refuse(**told: object) -> None:
        assert told["resume"] == "allow"
        raise wandb.errors.UsageError("no API key\nconfigured")

    monkeypatch.setattr(wandb, "init", refuse)
    line = refused(capsys, *FLAGS.split(), "--wandb", "cues", "--run-dir", str(tmp_path))
    folder = tmp_path / "Corridor-v0" / "lstm" / "0"
    assert "no API key configured. Once this is mended, or with WANDB_MODE=offline: " in line
    assert f"memspan train --resume {folder}" in line
    (folder / FILE).write_text("[]")
    assert "must tell project and id" in refused(capsys, "--resume", str(folder))
    # Without the file it goes on, and is not shown.
    (folder / FILE).unlink()
    assert cli.main(["train", "--resume", str(folder)]) == 0
