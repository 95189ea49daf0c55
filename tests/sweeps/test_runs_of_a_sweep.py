"""One run of a sweep, in this process: what it leaves, what it goes on from, what is left alone."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from filelock import FileLock

from memspan import cli
from memspan.evaluation import Evaluation
from memspan.runs.folder import numbered_checkpoints
from memspan.sweeps import SweepFile, SweepRun, worker
from memspan.sweeps.driver import Driver, without_a_place
from memspan.sweeps.found import find_finished
from memspan.sweeps.status import FILE_NAME, Status, StatusCallback, forget_status, read_status
from memspan.sweeps.worker import LOCK, Job, Outcome, do
from memspan.train import main as train

torch.set_num_threads(1)
JobOf = Callable[[SweepRun], Job]
Differences = Callable[[Path, Path], list[str]]
TINY = (Path(__file__).parent / "tiny.yaml").read_text()


class Crash(Exception):
    """A fault of the machine."""


@pytest.fixture
def crash_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has trainings crash, a number of times, when they have made so many steps."""
    on_step = StatusCallback._on_step

    def crash_after(steps: int, times: int = 1) -> None:
        left = [times]

        def crash(self: StatusCallback) -> bool:
            if left[0] and self.num_timesteps >= steps:
                left[0] -= 1
                raise Crash("the machine is on fire")
            return on_step(self)

        monkeypatch.setattr(StatusCallback, "_on_step", crash)

    return crash_after


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All files of a folder and when they were written, but for the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def evaluation(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text()) | {"steps_per_second": None}


def test_a_run_trains_and_evaluates(sweep: SweepFile, done: SweepRun, runs: list[SweepRun]) -> None:
    run, other = runs
    options = sweep.evaluation_options(run.folder)
    found = find_finished(run, options)
    assert found is not None
    assert (found.timesteps, found.episodes, found.seed) == (320, 8, 0)
    assert len([*run.folder.glob("events.out.tfevents.*")]) == 2
    assert not [*run.folder.glob(".*json*")]
    assert find_finished(other, options) is None


def test_it_is_the_run_that_train_makes(trained: Path, tmp_path: Path, differences: Differences) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    settings = yaml.safe_load(TINY)["settings"]
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
    assert train(["--memory", "lstm", "--run-dir", str(tmp_path), *flags]) == 0
    alone = tmp_path / "Corridor-v0" / "lstm" / "0"
    found = differences(trained, alone)
    # But for what the evaluation has added.
    assert all("evaluation/" in line or "_hparams_" in line for line in found), found


def test_a_run_that_crashed_goes_on_from_its_checkpoint(
    runs: list[SweepRun], job_of: JobOf, crash_after: Any, trained: Path, differences: Differences
) -> None:
    run = runs[0]
    job = job_of(run)
    crash_after(200)
    with pytest.raises(Crash):
        do(job)
    assert numbered_checkpoints(run.folder)
    assert not (run.folder / "evaluation.json").exists()
    assert read_status(run.folder) is None
    steps: list[int] = []
    on_training_start = StatusCallback._on_training_start

    def note(self: StatusCallback) -> None:
        steps.append(self.model.num_timesteps)
        on_training_start(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StatusCallback, "_on_training_start", note)
        assert do(job).result == Evaluation.load(run.folder)
    assert steps == [192]
    assert differences(trained, run.folder) == []
    assert evaluation(run.folder) == evaluation(trained)


def test_a_run_that_is_trained_is_only_evaluated(done: SweepRun, job_of: JobOf) -> None:
    run = done
    before = content(run.folder / "checkpoints")
    (run.folder / "evaluation.json").unlink()
    assert do(job_of(run)).result == Evaluation.load(run.folder)
    assert content(run.folder / "checkpoints") == before
    assert evaluation(run.folder)["episodes"] == 8
    assert len([*run.folder.glob("*.evaluation")]) == 1


def test_an_evaluation_from_before_the_end_is_made_again(
    sweep: SweepFile, done: SweepRun, job_of: JobOf
) -> None:
    run = done
    path = run.folder / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"timesteps": 64}))
    assert find_finished(run, sweep.evaluation_options(run.folder)) is None
    # That of the best weights, where better ones came later.
    best = dataclasses.replace(sweep.evaluation_options(run.folder), checkpoint="best")
    numbered = numbered_checkpoints(run.folder)[-1]
    (run.folder / "checkpoints" / "best.safetensors").write_bytes(numbered.read_bytes())
    for timesteps, finished in (64, False), (320, True):
        told = json.loads(path.read_text()) | {"timesteps": timesteps, "checkpoint": "best"}
        path.write_text(json.dumps(told))
        assert (find_finished(run, best) is not None) == finished
    assert do(job_of(run)).result == Evaluation.load(run.folder)
    assert evaluation(run.folder)["timesteps"] == 320


def test_other_settings_are_refused_and_named(sweep: SweepFile, done: SweepRun) -> None:
    run = done
    before = content(run.folder)
    options = sweep.evaluation_options(run.folder)
    kwargs = run.config.memory_kwargs | {"longest_dependency": 7}
    other = dataclasses.replace(
        run, config=dataclasses.replace(run.config, gamma=0.5, memory_kwargs=kwargs, env_kwargs={})
    )
    with pytest.raises(ValueError, match="made with other settings") as error:
        find_finished(other, options)
    for word in (str(run.folder), "in the file 0.5", "memory.longest_dependency=", "env.max_length=5, in"):
        assert word in str(error.value)
    with pytest.raises(ValueError, match=r"evaluation\.json.*episodes=8, in the file 9"):
        find_finished(run, dataclasses.replace(options, episodes=9))
    assert content(run.folder) == before


def test_a_folder_in_which_someone_works_is_left_alone(
    runs: list[SweepRun], job_of: JobOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs[0]
    run.folder.mkdir(parents=True)
    monkeypatch.setattr(worker, "PATIENCE", 0.05)
    with FileLock(run.folder / LOCK):
        outcome = do(job_of(run))
    assert outcome.again
    assert "another process" in outcome.error
    assert [path.name for path in run.folder.iterdir()] == [LOCK]


def test_a_folder_that_is_not_shared_is_refused(
    runs: list[SweepRun], job_of: JobOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(runs[0])
    assert worker.mark(job.run_dir) == job.mark  # the same whenever the sweep is started
    monkeypatch.setattr(worker, "SECONDS_TO_APPEAR", 0.05)
    # None is there, or one of the same name in which this machine has had a sweep of its own.
    for other in [], ["another"]:
        (job.run_dir / worker.MARK).unlink()
        for text in other:
            (job.run_dir / worker.MARK).write_text(text)
        outcome = worker.work(job)
        assert not outcome.again
        assert "must be a folder that all machines share" in outcome.error
        assert not runs[0].folder.exists()
        (job.run_dir / worker.MARK).touch()


@pytest.mark.parametrize(("code", "what"), [(1, "training failed"), (130, "training was stopped")])
def test_a_training_that_ends_early_is_gone_on_with(
    runs: list[SweepRun], job_of: JobOf, monkeypatch: pytest.MonkeyPatch, code: int, what: str
) -> None:
    """As where a disk is full for a while, or the machine of a cluster is wanted back."""
    monkeypatch.setattr(worker, "train", lambda *_: code)
    outcome = do(job_of(runs[0]))
    assert outcome.again
    assert what in outcome.error


def test_status_is_told_and_forgotten(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    Status("training", 0.5, 0.25).write(tmp_path)
    found = read_status(tmp_path)
    assert found is not None
    assert (found.state, found.done, found.score) == ("training", 0.5, 0.25)
    (tmp_path / f".{FILE_NAME}.12").touch()
    forget_status(tmp_path)
    assert not any(tmp_path.iterdir())
    (tmp_path / FILE_NAME).write_text("{")
    assert read_status(tmp_path) is None


class DeadError(Exception):
    """As Ray's, when a process was killed."""


class FakeRay:
    """Ray's functions that a driver calls; tasks run in this process when they are waited for."""

    class exceptions:
        RayError = DeadError

    def __init__(self) -> None:
        self.resources: list[tuple[float, float]] = []

    def remote(self, max_calls: int, max_retries: int) -> Any:
        # A process for each, and no retries but the driver's.
        assert (max_calls, max_retries) == (1, 0)

        def decorate(function: Any) -> Any:
            self.function = function
            return self

        return decorate

    def options(self, num_cpus: float, num_gpus: float, name: str) -> Any:
        self.resources.append((num_cpus, num_gpus))
        ray = self

        class Task:
            def remote(self, job: Job) -> Callable[[], Outcome]:
                return lambda: ray.function(job)

        return Task()

    def wait(self, tasks: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return tasks[:1], tasks[1:]

    def get(self, task: Callable[[], Outcome]) -> Outcome:
        return task()


def drive(driver: Driver, runs: list[SweepRun]) -> list[tuple[str, int]]:
    for run in runs:
        driver.start(run)
    events: list[tuple[str, int]] = []
    while driver.under_way:
        events += [(event.kind, event.run.config.seed) for event in driver.look()]
    return events


@pytest.fixture
def driver(sweep: SweepFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Driver]:
    def make(work: Any) -> Driver:
        monkeypatch.setattr("memspan.sweeps.driver.work", work)
        (tmp_path / "runs").mkdir()
        return Driver(FakeRay(), tmp_path / "runs", sweep.retries, sweep.evaluation_options(tmp_path))  # type: ignore[arg-type]

    return make


def test_a_dead_process_is_replaced(runs: list[SweepRun], driver: Any) -> None:
    alive = iter([False, True, False, True])

    def dies(job: Job) -> Outcome:
        if not next(alive):
            raise DeadError
        return Outcome()

    assert drive(driver(dies), runs) == [("again", 0), ("done", 1), ("again", 0), ("done", 0)]


def test_a_run_is_given_up_after_so_many_retries(runs: list[SweepRun], driver: Any) -> None:
    called: list[int] = []

    def fails(job: Job) -> Outcome:
        called.append(job.config.seed)
        return Outcome("on fire", again=True) if job.config.seed == 0 else Outcome()

    events = drive(driver(fails), runs)
    assert sorted(events) == [("again", 0), ("again", 0), ("done", 1), ("failed", 0)]
    assert sorted(called) == [0, 0, 0, 1]


def test_wrong_files_are_not_tried_again(runs: list[SweepRun], driver: Any) -> None:
    assert drive(driver(lambda job: Outcome("damaged")), runs) == [("failed", 0), ("failed", 1)]


def test_runs_ask_for_what_they_need(runs: list[SweepRun], driver: Any) -> None:
    made = driver(lambda job: Outcome())
    drive(made, [dataclasses.replace(runs[0], cpus=2, gpus=0.5), runs[1]])
    assert made.ray.resources == [(2, 0.5), (1, 0)]


def test_runs_that_fit_no_machine_are_found(runs: list[SweepRun]) -> None:
    class Ray:
        def nodes(self) -> list[dict[str, Any]]:
            return [
                {"Alive": True, "Resources": {"CPU": 2.0}},
                {"Alive": True, "Resources": {"CPU": 1.0, "GPU": 1.0}},
                {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
            ]

    def homeless(cpus: float, gpus: float) -> bool:
        return without_a_place(Ray(), [dataclasses.replace(runs[0], cpus=cpus, gpus=gpus)]) is not None  # type: ignore[arg-type]

    assert not homeless(2, 0)
    assert not homeless(1, 0.5)
    assert homeless(2, 1)
    assert homeless(3, 0)


@pytest.fixture
def finished(sweep: SweepFile, done: SweepRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepRun:
    """The only run of `one.yaml` in the present folder, done."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text(TINY.replace("seeds: [0, 1]", "seeds: [0]") + "report: true\n")
    return done


def test_a_report_is_asked_for_where_there_is_one_to_be_had(
    finished: SweepRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("memspan.sweep.PAGES", "no_such_package")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        cli.main(["sweep", "one.yaml", "--run-dir", "runs"])
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    before = content(finished.folder)
    assert cli.main(["sweep", "one.yaml", "--run-dir", "runs"]) == 0
    assert "Report: runs/report.html" in capsys.readouterr().out
    assert "lstm" in (tmp_path / "runs" / "report.html").read_text(encoding="utf-8")
    assert content(finished.folder) == before
    assert (tmp_path / "runs" / "success-against-memory.png").exists()


def test_without_ray_it_says_what_to_install(
    runs: list[SweepRun], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(["sweep", "tiny.yaml"]) == 2
    assert "pip install 'memspan[ray]'" in capsys.readouterr().err
