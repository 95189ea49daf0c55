"""`memspan sweep` from its command line, and on a real Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from memspan import cli
from memspan.sweeps import expand, read_sweep
from memspan.sweeps.worker import MARK, SWEEP_LOCK, Job, do, mark

ROOT = Path(__file__).parents[1]
TINY = (ROOT / "tests" / "sweeps" / "tiny.yaml").read_text()
LONGER = TINY.replace("total_timesteps: 320", "total_timesteps: 19200")


def start(folder: Path, *flags: str) -> subprocess.Popen[str]:
    """A sweep in a process of its own, of `tiny.yaml` in a folder to `runs` beside it."""
    # Its workers get as much of a busy machine as the other tests.
    env = os.environ | {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}
    env["OMP_NUM_THREADS"] = "1"
    return subprocess.Popen(
        [sys.executable, "-m", "memspan", "sweep", "tiny.yaml", "--run-dir", "runs", *flags],
        cwd=folder,
        env=env,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for(found: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """What `found` returns, once that is something."""
    while not (value := found()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return value


def status(folder: Path) -> dict[str, Any]:
    """Of a run that trains and has a checkpoint; empty if it does not."""
    try:
        told: dict[str, Any] = json.loads((folder / ".status.json").read_text())
    except (OSError, ValueError):
        return {}
    at_work = told["state"] == "training" and any((folder / "checkpoints").glob("0*.safetensors"))
    return told if at_work else {}


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


@pytest.fixture
def wrong_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., str]:
    """The line that a sweep which is refused prints."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)

    def wrong_use(*args: str) -> str:
        assert cli.main(["sweep", *args]) == 2
        out, err = capsys.readouterr()
        assert not out
        assert err.count("\n") == 1
        return str(err)

    return wrong_use


def test_wrong_use_is_one_line(wrong_use: Callable[..., str], tmp_path: Path) -> None:
    assert "no.yaml: no such file" in wrong_use("no.yaml")
    assert "processes=0: must be at least 1" in wrong_use("tiny.yaml", "--processes", "0")
    assert "--address" in wrong_use("tiny.yaml", "--processes", "2", "--address", "auto")
    (tmp_path / "bad.yaml").write_text(TINY + "seed: 1\n")
    assert "bad.yaml: seed=1: no such field; did you mean seeds?" in wrong_use("bad.yaml")
    assert not (tmp_path / "runs").exists()


def test_two_sweeps_of_one_folder_are_kept_apart(wrong_use: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with FileLock(tmp_path / "runs" / SWEEP_LOCK):
        assert "runs: another sweep is at work here" in wrong_use("tiny.yaml", "--run-dir", "runs")


def test_a_run_that_is_there_with_other_settings_is_refused(
    wrong_use: Callable[..., str], tmp_path: Path
) -> None:
    from memspan.runs import save_config

    run = expand(read_sweep(tmp_path / "tiny.yaml"), tmp_path / "runs" / "tiny")[1]
    save_config(run.config, run.folder)
    (tmp_path / "tiny.yaml").write_text(TINY.replace("width: 8", "width: 16"))
    line = wrong_use("tiny.yaml")
    assert "lstm/1: this run was made with other settings: width=8, in the file 16" in line


def test_dry_run_shows_the_runs_and_begins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    assert cli.main(["sweep", "tiny.yaml", "--dry-run"]) == 0
    assert "2 runs: 0 done, 2 waiting" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize("args", [[], ["train", "--help"]])
def test_ray_is_left_alone_by_other_commands(args: list[str]) -> None:
    program = (
        "import sys, memspan.cli\n"
        f"try: memspan.cli.main({args})\n"
        "except SystemExit: pass\n"
        "import memspan\n"
        "sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_end_to_end_and_a_second_start_does_nothing(tmp_path: Path) -> None:
    # The run was killed before its config was written.
    (tmp_path / "tiny.yaml").write_text(TINY.replace("seeds: [0, 1]", "seeds: [1]"))
    begun = tmp_path / "runs" / "Corridor-v0" / "lstm" / "1" / "checkpoints"
    begun.mkdir(parents=True)
    process = start(tmp_path)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "1 run: 0 done, 1 waiting" in out
    assert "Corridor-v0/lstm/1: done" in out
    assert "1 run: 1 done" in out
    assert "memspan/Corridor-v0 (max_length=5)" in out
    assert max(map(len, out.splitlines())) <= 100
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    figures = {
        f"success-{kind}.{end}" for kind in ("against-memory", "by-difficulty") for end in ("png", "svg")
    }
    assert names == {"Corridor-v0", SWEEP_LOCK, MARK, *figures}
    before = files_of(tmp_path / "runs" / "Corridor-v0")
    assert sum(name.endswith("evaluation.json") for name in before) == 1
    assert sum(name.endswith("log.txt") for name in before) == 1

    # All is done: it needs no Ray, and touches no run.
    program = (
        "import sys; sys.modules['ray'] = None\n"
        "from memspan import cli; sys.exit(cli.main(['sweep', 'tiny.yaml', '--run-dir', 'runs']))"
    )
    again = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=False)
    assert (again.returncode, again.stderr) == (0, b"")
    assert files_of(tmp_path / "runs" / "Corridor-v0") == before


def terminate(process: subprocess.Popen[str]) -> None:
    process.terminate()


def interrupt(process: subprocess.Popen[str]) -> None:
    """As Ctrl-C does on a terminal: the process and those that it has started."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [terminate, interrupt])
def test_who_stops_it_loses_nothing(stop: Any, tmp_path: Path, differences: Any) -> None:
    (tmp_path / "tiny.yaml").write_text(LONGER.replace("seeds: [0, 1]", "seeds: [0]"))
    process = start(tmp_path)
    folder = tmp_path / "runs" / "Corridor-v0" / "lstm" / "0"
    wait_for(lambda: status(folder), process)
    stop(process)
    out, err = process.communicate()
    assert (process.returncode, err) == (130, "")
    assert "Go on with: memspan sweep tiny.yaml --run-dir runs" in out
    assert "Stopped at" in (folder / "log.txt").read_text()
    process = start(tmp_path)
    process.communicate()
    assert process.returncode == 0
    assert differences(undisturbed(tmp_path, 0), folder) == []


@pytest.fixture
def differences(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import torture

    return torture.differences


def undisturbed(tmp_path: Path, seed: int) -> Path:
    """The folder of a run of `tiny.yaml` that was left alone."""
    folder = tmp_path / "undisturbed"
    folder.mkdir(exist_ok=True)
    sweep = read_sweep(tmp_path / "tiny.yaml")
    run = expand(sweep, folder)[seed]
    options = sweep.evaluation_options(run.folder)
    assert not do(Job(run.config, run.folder, folder, mark(folder), options, folder)).error
    return run.folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_on_a_cluster_of_two_machines(
    tmp_path: Path, differences: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    from ray.cluster_utils import Cluster

    (tmp_path / "tiny.yaml").write_text(LONGER)
    folders = [tmp_path / "runs" / "Corridor-v0" / "lstm" / seed for seed in "01"]
    node = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(num_cpus=1, num_gpus=0)
        process = start(tmp_path, "--address", cluster.address)
        first = wait_for(lambda: status(folders[0]), process)
        os.kill(first["pid"], signal.SIGKILL)
        out, err = process.communicate()
    finally:
        cluster.shutdown()
    assert (process.returncode, err) == (0, "")
    assert "Corridor-v0/lstm/0: its process died" in out
    assert "1 of 2" in out
    assert "2 runs: 2 done" in out
    alone = undisturbed(tmp_path, 0)
    assert differences(alone, folders[0]) == []
    one, other = (json.loads((run / "evaluation.json").read_text()) for run in (alone, folders[0]))
    apart = {"steps_per_second": 0, "git_commit": ""}
    assert one | apart == other | apart
    assert (folders[1] / "evaluation.json").exists()
