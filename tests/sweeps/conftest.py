"""A sweep so small that it trains in a second, and its runs."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from memspan.sweeps import SweepFile, SweepRun, expand, read_sweep
from memspan.sweeps.worker import Job, do, mark

TINY = (Path(__file__).parent / "tiny.yaml").read_text()


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFile:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return read_sweep(tmp_path / "tiny.yaml")


@pytest.fixture
def runs(sweep: SweepFile, tmp_path: Path) -> list[SweepRun]:
    return expand(sweep, tmp_path / "runs")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the first run, left alone until it was done."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(TINY)
    sweep = read_sweep(folder / "tiny.yaml")
    run = expand(sweep, folder / "runs")[0]
    options = sweep.evaluation_options(run.folder)
    assert not do(Job(run.config, run.folder, folder, mark(folder), options, folder)).error
    return run.folder


@pytest.fixture
def done(trained: Path, runs: list[SweepRun]) -> SweepRun:
    """The first run, done."""
    shutil.copytree(trained, runs[0].folder)
    return runs[0]


@pytest.fixture
def differences(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Path], list[str]]:
    """What differs between two run folders: checkpoints and TensorBoard."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("torture").differences


@pytest.fixture
def job_of(sweep: SweepFile, tmp_path: Path) -> Callable[[SweepRun], Job]:
    run_dir = tmp_path / "runs"
    run_dir.mkdir(exist_ok=True)
    options = sweep.evaluation_options(tmp_path)
    return lambda run: Job(run.config, run.folder, run_dir, mark(run_dir), options, tmp_path)
