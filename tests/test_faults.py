"""`memspan train` when the disk is full, a writer is killed, an environment fails or numbers go bad."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from memspan import cli
from memspan.agents import files
from memspan.agents.files import write_atomically
from memspan.agents.vec_env import VecEnvAdapter
from memspan.runs import load_model, read_info
from memspan.runs.folder import numbered_checkpoints

ROLLOUT = 3 * 8
FLAGS = [
    *("--env.max-length", "5", "--n-envs", "3", "--n-steps", "8", "--width", "8", "--n-epochs", "1"),
    *("--checkpoint-every", str(ROLLOUT), "--stats-window-size", "3", "--memory", "lstm"),
]


def train(run_dir: Path, *flags: str, rollouts: int = 5) -> int:
    steps = ["--total-timesteps", str(rollouts * ROLLOUT)]
    return cli.main(["train", "--run-dir", str(run_dir), *FLAGS, *steps, *flags])


def folder_of(run_dir: Path) -> Path:
    (folder,) = run_dir.glob("*/*/0")
    return folder


def checkpoints(run_dir: Path) -> list[int]:
    return [int(path.stem) // ROLLOUT for path in numbered_checkpoints(folder_of(run_dir))]


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_the_last_ones_and_the_best_are_kept(kept: int, tmp_path: Path) -> None:
    assert train(tmp_path, "--keep-checkpoints", str(kept)) == 0
    assert checkpoints(tmp_path) == [1, 2, 3, 4, 5][-kept:]
    assert (folder_of(tmp_path) / "checkpoints" / "best.safetensors").is_file()


def test_none_kept_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "--keep-checkpoints", "0") == 2
    assert "keep_checkpoints=0: must be an integer of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_full_disk(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stops in words and leaves what there was; once there is room, the run goes on to the same end."""
    assert train(tmp_path / "whole") == 0
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if f"{3 * ROLLOUT:012d}" in self.name:
            write(self, data[: int(share * len(data))])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert train(tmp_path / "full") == 1
    said = capsys.readouterr().out
    assert "Stopped: [Errno 28] No space left on device" in said
    assert f"Last good checkpoint: {numbered_checkpoints(folder_of(tmp_path / 'full'))[-1]}" in said
    assert checkpoints(tmp_path / "full") == [1, 2]
    folder = folder_of(tmp_path / "full")
    assert not [path for path in (folder / "checkpoints").iterdir() if path.name.startswith(".")]
    assert cli.main(["train", "--resume", str(folder)]) == 0
    ours, theirs = (load_model(folder_of(tmp_path / name))[1] for name in ("full", "whole"))
    for name, value in theirs.policy.state_dict().items():
        assert value.equal(ours.policy.state_dict()[name])


def test_a_writer_killed_at_any_byte(tmp_path: Path) -> None:
    """The file has the old content or the new one; what is left beside it goes with the next run."""
    path, old, new = tmp_path / "file.x", b"old" * 50, b"new!" * 60
    path.write_bytes(old)
    rename = os.replace
    for byte in [*range(0, len(new), 13), len(new), "synced", "renamed"]:
        child = os.fork()
        if child == 0:

            def write(name: str, byte: Any = byte) -> None:
                with open(name, "wb") as file:
                    file.write(new[: byte if isinstance(byte, int) else None])
                    file.flush()
                    if isinstance(byte, int):
                        os.kill(os.getpid(), signal.SIGKILL)

            def renamed(*names: Any, byte: Any = byte) -> None:
                if byte == "renamed":
                    rename(*names)
                os.kill(os.getpid(), signal.SIGKILL)

            os.replace = renamed  # type: ignore[assignment]
            write_atomically(path, write)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert path.read_bytes() == (new if byte == "renamed" else old)
    files.remove_leftovers(tmp_path, ".x")
    assert [one.name for one in tmp_path.iterdir()] == ["file.x"]


def at_step(number: int, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `change` called with what the environments answer in one step, counted from 1."""
    steps = {"made": 0}
    wait = VecEnvAdapter.step_wait

    def step_wait(self: VecEnvAdapter) -> Any:
        steps["made"] += 1
        answer = wait(self)
        return change(*answer) if steps["made"] == number else answer

    monkeypatch.setattr(VecEnvAdapter, "step_wait", step_wait)


def bad_reward(observations: Any, rewards: np.ndarray, dones: Any, infos: Any) -> Any:
    rewards = rewards.copy()
    rewards[1] = np.nan
    return observations, rewards, dones, infos


def fail(*_: Any) -> Any:
    raise gym.error.Error("out of order")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (bad_reward, f"Stopped: after {20 * 3} timesteps: reward of environment 1 is nan"),
        (fail, f"Stopped: after {19 * 3} timesteps: Error: out of order"),
    ],
)
def test_faults_stop_in_words_and_keep_the_last_good_checkpoint(
    change: Any,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    at_step(20, change, monkeypatch)
    assert train(tmp_path, "--checkpoint-every", str(100 * ROLLOUT)) == 1
    said = capsys.readouterr().out
    assert words in said
    # What the rollout had begun with.
    assert checkpoints(tmp_path) == [2]
    assert f"Go on with: memspan train --resume {folder_of(tmp_path)}" in said
    monkeypatch.undo()
    assert cli.main(["train", "--resume", str(folder_of(tmp_path))]) == 0
    assert checkpoints(tmp_path)[-1] == 5


def test_skipped_updates_are_counted_in_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    at_step(20, bad_reward, monkeypatch)
    assert train(tmp_path, "--on-nan", "skip") == 0
    events = EventAccumulator(str(folder_of(tmp_path))).Reload()
    counts = [(event.step // ROLLOUT, event.value) for event in events.Scalars("train/skipped_updates")]
    assert counts[:3] == [(1, 0), (2, 0), (3, 3)] or counts[:3] == [(2, 0), (3, 0), (4, 3)]
    assert read_info(numbered_checkpoints(folder_of(tmp_path))[-1]).counters["skipped_updates"] == 3
