"""The same seed, machine and number of threads: the same bits, in one process and in a fresh one."""

import subprocess
import sys
from pathlib import Path

import pytest

from memspan import cli
from memspan.runs.folder import CHECKPOINTS

ROOT = Path(__file__).parents[1]
FLAGS = [
    *("--env.max-length", "5", "--n-envs", "3", "--n-steps", "8", "--width", "8", "--n-epochs", "2"),
    *(
        "--total-timesteps",
        "96",
        "--stats-window-size",
        "3",
        "--memory.n-heads",
        "2",
        "--memory",
        "expire-span",
    ),
]


def checkpoints(run_dir: Path) -> dict[str, dict[str, bytes]]:
    """All tensors of all checkpoints, by their bytes."""
    from safetensors.numpy import load_file

    files = (run_dir / "Corridor-v0" / "expire-span" / "0" / CHECKPOINTS).iterdir()
    return {path.name: {name: value.tobytes() for name, value in load_file(path).items()} for path in files}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("first")
    assert cli.main(["train", "--run-dir", str(folder), *FLAGS]) == 0
    return checkpoints(folder)


def test_in_one_process(first: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    assert len(first) == 2
    assert cli.main(["train", "--run-dir", str(tmp_path / "again"), *FLAGS]) == 0
    assert checkpoints(tmp_path / "again") == first


def test_in_a_fresh_process(first: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "memspan", "train", "--run-dir", str(tmp_path / "fresh"), *FLAGS]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    assert checkpoints(tmp_path / "fresh") == first


def test_another_seed_gives_other_bits(first: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    assert cli.main(["train", "--run-dir", str(tmp_path), *FLAGS, "--seed", "1"]) == 0
    (tmp_path / "Corridor-v0" / "expire-span" / "1").rename(tmp_path / "Corridor-v0" / "expire-span" / "0")
    assert checkpoints(tmp_path) != first
