"""A run by several processes: stopped, gone on with, failing."""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
from safetensors import safe_open
from shared_runs import FLAGS, N_ENVS, ROLLOUT

from memspan import cli
from memspan.runs.folder import numbered_checkpoints

WORK = "shared_runs:command"
FAULTS = ("interrupt", "nan", "raise", "disk")


def call(args: list[str], **fault: Any) -> processes.Call:
    return WORK, {"args": ["train", *args], **fault}


def start(run_dir: Path, **fault: Any) -> processes.Call:
    return call([*FLAGS, "--run-dir", str(run_dir)], **fault)


def folder_of(run_dir: Path) -> Path:
    return run_dir / "Corridor-v0" / "expire-span" / "0"


def timesteps_of(run_dir: Path) -> list[int]:
    return [int(path.stem) for path in numbered_checkpoints(folder_of(run_dir))]


@pytest.fixture(scope="module")
def differences() -> Iterator[Callable[[Path, Path], list[str]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(processes.ROOT / "benchmarks"))
        yield importlib.import_module("torture").differences
    sys.modules.pop("torture", None)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[dict[str, Any]]]]:
    """A run left alone, and others with a fault in one process, all by two processes; with what they told."""
    base = tmp_path_factory.mktemp("two")
    # The first process writes.
    calls = {fault: start(base / fault, fault=fault, rank=int(fault != "disk")) for fault in FAULTS}
    calls["whole"] = start(base / "whole")
    calls["again"] = call(["--resume", str(folder_of(base / "interrupt"))], fault="nan", rank=0, rollout=2)
    calls["three"] = call([*FLAGS, "--run-dir", str(base / "three"), "--n-envs", "3"])
    calls["exists"] = start(base / "whole")
    calls["copy"] = "shared_runs:copy", {"source": str(base / "nan"), "to": str(base / "one")}
    calls |= {f"resume {fault}": call(["--resume", str(folder_of(base / fault))]) for fault in FAULTS}
    # Last: there is no second process afterwards.
    calls["die"] = start(base / "die", fault="die")
    told = processes.results(processes.start(list(calls.values())), killed=(1,))
    assert [len(one) for one in told] == [len(calls), len(calls) - 1]
    return base, {name: [one[index] for one in told if index < len(one)] for index, name in enumerate(calls)}


def test_whole(two: Any) -> None:
    base, told = two
    assert [one["code"] for one in told["whole"]] == [0, 0]
    assert timesteps_of(base / "whole") == [n * ROLLOUT for n in (4, 6, 7)]
    assert "2 processes" in told["whole"][0]["out"]
    assert told["whole"][1]["out"] == ""
    with safe_open(numbered_checkpoints(folder_of(base / "whole"))[-1], framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(("env.", "memory."))]  # noqa: SIM118
        assert {len(file.get_tensor(name)) for name in names} == {N_ENVS}
    assert len(list(folder_of(base / "whole").glob("events.*"))) == 1


@pytest.mark.parametrize(
    ("fault", "code", "line"),
    [
        ("interrupt", cli.INTERRUPTED, f"Stopped at {4 * ROLLOUT} timesteps"),
        (
            "nan",
            1,
            "process 1 of 2: after 148 timesteps: observation 'previous_reward' of environment 3 is nan",
        ),
        ("raise", 1, "process 1 of 2: after 144 timesteps: ArithmeticError: the corridor has collapsed"),
        ("disk", 1, "No space left on device"),
    ],
)
def test_stopped_together_and_gone_on_with(
    fault: str, code: int, line: str, two: Any, differences: Any
) -> None:
    base, told = two
    first, second = told[fault]
    assert first["code"] == second["code"] == code, first
    assert line in first["out"]
    assert "Stopped" not in second["out"]
    assert told[f"resume {fault}"][0]["code"] == 0, told[f"resume {fault}"]
    assert "anew" not in told[f"resume {fault}"][0]["out"]
    assert differences(folder_of(base / "whole"), folder_of(base / fault)) == []


def test_gone_on_with_by_one_process(two: Any, differences: Any) -> None:
    base, _ = two
    assert timesteps_of(base / "one") == [2 * ROLLOUT, 4 * ROLLOUT]
    assert cli.main(["train", "--resume", str(folder_of(base / "one"))]) == 0
    assert timesteps_of(base / "one") == timesteps_of(base / "whole")
    ends = []
    for run in ("whole", "one"):
        with safe_open(numbered_checkpoints(folder_of(base / run))[-1], framework="pt") as file:
            ends.append({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    # Which actions were drawn, and what became of them.
    for name in ends[0]:
        if name.startswith(("env.", "random.", "agent.", "recent.")):
            assert ends[0][name].tolist() == ends[1][name].tolist(), name


def test_wrong_use_is_told_once(two: Any) -> None:
    base, told = two
    assert [one["code"] for one in told["three"]] == [cli.WRONG_USE] * 2
    line = "memspan: n_envs=3: must be a multiple of the number of processes, 2\n"
    assert [one["errors"] for one in told["three"]] == [line, ""]
    assert not (base / "three").exists()
    assert [one["code"] for one in told["exists"]] == [cli.WRONG_USE] * 2
    assert "this run exists already" in told["exists"][0]["errors"]


def check_it_ended_in_order(out: str, why: str, run_dir: Path) -> None:
    assert "another process has ended, or has not answered" in out
    assert why in out
    assert "Last good checkpoint" in out
    assert "000000000128.safetensors" in out
    assert timesteps_of(run_dir) == [2 * ROLLOUT, 4 * ROLLOUT]


def test_a_process_that_is_gone(two: Any) -> None:
    base, told = two
    (first,) = told["die"]
    assert first["code"] == 1
    check_it_ended_in_order(first["out"] + first["errors"], "has ended", base / "die")


@pytest.mark.slow
def test_a_process_that_does_not_answer(tmp_path: Path) -> None:
    # Less would not do where processes that start side by side take long.
    flags = [*FLAGS, "--run-dir", str(tmp_path), "--process-timeout", "30"]
    first, second = processes.start([call(flags, fault="sleep")])
    try:
        out, errors = first.communicate(timeout=1500)
    finally:
        processes.end(first)
        processes.end(second)
    assert first.returncode == 0, errors
    assert '"code": 1' in out
    check_it_ended_in_order(out, "has not answered for 30 s", tmp_path)


def test_torchrun_and_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    flags = [*FLAGS, "--run-dir", str(tmp_path), "--total-timesteps", str(10**7)]
    run = subprocess.Popen(
        [*command, str(processes.ROOT / "train.py"), *flags],
        env={**os.environ, "PYTHONPATH": str(processes.ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 1500
        while not (tmp_path.is_dir() and timesteps_of(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        out, _ = run.communicate(timeout=600)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    assert "Stopped at" in out
    assert f"Stopped at {timesteps_of(tmp_path)[-1]} timesteps" in out
