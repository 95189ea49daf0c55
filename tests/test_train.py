"""`memspan train`, end to end on corridors of a few cells."""

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from memspan import cli
from memspan.agents import MemoryPPO
from memspan.runs import load_config, load_model, read_info
from memspan.runs.callbacks import CheckpointCallback
from memspan.runs.folder import numbered_checkpoints

ROLLOUT = 4 * 16
FLAGS = [
    *("--env.max-length", "5", "--n-envs", "4", "--n-steps", "16", "--width", "16", "--memory.n-heads", "2"),
    *("--memory.n-layers", "1", "--stats-window-size", "10", "--checkpoint-every", str(2 * ROLLOUT)),
]


def train(run_dir: Path, *flags: str, rollouts: int = 10) -> int:
    return cli.main(
        ["train", "--run-dir", str(run_dir), *FLAGS, "--total-timesteps", str(rollouts * ROLLOUT), *flags]
    )


def folder_of(run_dir: Path, memory: str = "expire-span", seed: int = 0) -> Path:
    return run_dir / "Corridor-v0" / memory / str(seed)


def scalars(folder: Path) -> dict[str, list[int]]:
    """Steps at which each tag was recorded, as often as it was."""
    steps: dict[str, list[int]] = {}
    # File by file: those that one process writes in one second have no order by name.
    for file in folder.glob("events.out.tfevents.*"):
        events = EventAccumulator(str(file)).Reload()
        for tag in events.Tags()["scalars"]:
            steps.setdefault(tag, []).extend(event.step for event in events.Scalars(tag))
    return {tag: sorted(found) for tag, found in steps.items()}


def at_rollout(number: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `act` called in the middle of a rollout, counted from 1."""
    counts = {"rollouts": 0, "steps": 0}
    on_start = CheckpointCallback._on_rollout_start

    def start(self: CheckpointCallback) -> None:
        counts["rollouts"] += 1
        counts["steps"] = 0
        on_start(self)

    def step(self: CheckpointCallback) -> bool:
        counts["steps"] += 1
        if counts["rollouts"] == number and counts["steps"] == 5:
            act()
        return True

    monkeypatch.setattr(CheckpointCallback, "_on_rollout_start", start)
    monkeypatch.setattr(CheckpointCallback, "_on_step", step)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs")
    assert train(run_dir) == 0
    return folder_of(run_dir)


def test_run_folder(finished: Path) -> None:
    names = {path.name for path in finished.iterdir() if not path.name.startswith("events.out.tfevents.")}
    assert names == {"config.yaml", "checkpoints"}
    assert len(list(finished.iterdir())) == 3
    # The last three of those due at every second rollout; training ended on the last one.
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == [
        *(f"{rollouts * ROLLOUT:012d}.safetensors" for rollouts in (6, 8, 10)),
        "best.safetensors",
    ]


def test_config_tells_every_setting(finished: Path) -> None:
    config = load_config(finished)
    assert config.total_timesteps == 10 * ROLLOUT
    assert config.env_kwargs == {"max_length": 5}
    assert config.memory_kwargs["n_heads"] == 2
    assert config.memory_kwargs["max_span"] == 256
    assert config.gamma == 0.99  # the preset's


def test_tensorboard_tags(finished: Path) -> None:
    recorded = scalars(finished)
    for tag in ("rollout/success_rate", "rollout/ep_rew_mean", "memory/effective_memory", "memory/capacity"):
        assert recorded[tag][-1] == 10 * ROLLOUT
    assert recorded["memory/effective_memory"] == [i * ROLLOUT for i in range(1, 11)]


def test_best_checkpoint_has_its_score(finished: Path) -> None:
    info = read_info(finished / "checkpoints" / "best.safetensors")
    assert 0 <= info.score["success_rate"] <= 1
    assert 0 < info.score["effective_memory"] < 10
    assert info.timesteps % ROLLOUT == 0


@pytest.mark.parametrize("which", ["last", "best"])
def test_trained_models_load(finished: Path, which: str) -> None:
    config, model = load_model(finished, which)
    assert model.get_env().num_envs == 1
    action, _ = model.predict(model.get_env().reset())
    assert action.shape == (1,)
    assert config.memory == "expire-span"


def test_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("memspan.runs.progress.SECONDS_BETWEEN_LINES", 0.0)
    assert train(tmp_path, rollouts=2) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    title, *lines, summary, where, command = captured.out.splitlines()
    folder = folder_of(tmp_path)
    assert title == f"expire-span on memspan/Corridor-v0, seed 0 -> {folder}"
    assert len(lines) > 10
    for part in (
        "100%",
        "128 of 128 steps",
        "steps/s",
        "0:00 left",
        "success 0.",
        "of 271",
        "mean return 0.",
    ):
        assert part in lines[-1]
    assert "success rate 0." in summary
    assert "effective memory" in summary
    assert str(folder) in where
    assert command == f"Evaluate: memspan evaluate {folder}"


def test_live_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None, _environ={})
    monkeypatch.setattr("memspan.train.Console", lambda **_: console)
    assert train(tmp_path, rollouts=2) == 0
    shown = screen.getvalue()
    assert "  0%  0 of 128 steps" in shown
    assert "100%  128 of 128 steps" in shown
    assert "\x1b[?25h" in shown  # the cursor is back
    assert shown.rstrip().endswith(f"Evaluate: memspan evaluate {folder_of(tmp_path)}")


def test_existing_run_is_refused_and_left_alone(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}

    before = content()
    assert train(finished.parents[2], rollouts=1) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for word in (str(finished), "--resume", "--run-dir", "--name", "--seed"):
        assert word in line
    assert content() == before


def test_name_and_seed_choose_the_folder(tmp_path: Path) -> None:
    assert train(tmp_path, "--name", "short-spans", "--seed", "3", rollouts=1) == 0
    assert (tmp_path / "Corridor-v0" / "short-spans" / "3" / "config.yaml").is_file()


def test_finished_run_says_so(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--resume", str(finished)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "finished already, at 640 of 640" in line


def test_interrupt_saves_and_resume_goes_on(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path)
    with monkeypatch.context() as patch:
        at_rollout(6, interrupt, patch)
        assert train(tmp_path) == 130
    assert f"memspan train --resume {folder}" in capsys.readouterr().out
    # Five updates have been made: what the sixth rollout had begun is not counted.
    assert read_info(numbered_checkpoints(folder)[-1]).timesteps == 5 * ROLLOUT

    rates: list[float] = []
    train_once = MemoryPPO.train

    def spy(self: MemoryPPO) -> None:
        train_once(self)
        rates.append(self.policy.optimizer.param_groups[0]["lr"])

    with monkeypatch.context() as patch:
        patch.setattr(MemoryPPO, "train", spy)
        assert cli.main(["train", "--resume", str(folder)]) == 0
    # The schedule of the learning rate goes on: 0.001 at the start, 0 after ten rollouts.
    assert rates == pytest.approx([1e-3 * (1 - i / 10) for i in range(6, 11)])
    whole, resumed = scalars(finished), scalars(folder)
    assert resumed["memory/effective_memory"] == whole["memory/effective_memory"]
    last = [read_info(numbered_checkpoints(one)[-1]) for one in (finished, folder)]
    assert last[0].timesteps == last[1].timesteps
    assert last[0].n_updates == last[1].n_updates


def test_resume_has_policy_optimizer_and_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path)
    with monkeypatch.context() as patch:
        at_rollout(4, interrupt, patch)
        assert train(tmp_path) == 130
    before = load_file(numbered_checkpoints(folder)[-1])
    # Stopped once more before it learns anything: all is as it was loaded.
    with monkeypatch.context() as patch:
        at_rollout(1, interrupt, patch)
        assert cli.main(["train", "--resume", str(folder)]) == 130
    after = load_file(numbered_checkpoints(folder)[-1])
    parts = {"policy", "optimizer", "recent", "agent", "memory", "env", "random"}
    assert {name.partition(".")[0] for name in before} == parts
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    assert len(before["recent.success"]) == 10


def test_resume_knows_the_best_so_far(finished: Path) -> None:
    best = CheckpointCallback(load_config(finished), finished).best
    assert best is not None
    assert best._asdict() == read_info(finished / "checkpoints" / "best.safetensors").score


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_and_save(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signal.getsignal(number)
    at_rollout(2, lambda: os.kill(os.getpid(), number), monkeypatch)
    assert train(tmp_path) == 130
    assert [int(path.stem) for path in numbered_checkpoints(folder_of(tmp_path))] == [ROLLOUT]
    assert signal.getsignal(number) == handler


def test_killed_run_takes_back_what_was_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path)
    with monkeypatch.context() as patch:
        at_rollout(5, interrupt, patch)
        assert train(tmp_path) == 130
    numbered_checkpoints(folder)[-1].unlink()
    assert [int(path.stem) for path in numbered_checkpoints(folder)] == [2 * ROLLOUT]
    assert cli.main(["train", "--resume", str(folder)]) == 0
    assert scalars(folder)["memory/effective_memory"] == [i * ROLLOUT for i in range(1, 11)]


def test_resume_takes_no_other_flags(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--resume", str(finished), "--n-envs", "8"]) == 2
    assert "--n-envs: --resume takes no other flag" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--memory", "lstm", "--memory.max-span", "9"],
            ["--memory.max-span: memory 'lstm'", "--memory.units"],
        ),
        (["--memory.max_spam=9"], ["--memory.max-spam: memory 'expire-span'", "--memory.max-span"]),
        (["--env.maxlength=9"], ["--env.maxlength: memspan/Corridor-v0", "--env.max-length"]),
    ],
)
def test_flags_of_others_are_refused(
    flags: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "--run-dir", str(tmp_path), *flags]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert all(word in line for word in words)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    with monkeypatch.context() as patch:
        at_rollout(2, interrupt, patch)
        assert train(tmp_path) == 130
    capsys.readouterr()
    return folder_of(tmp_path)


def refusal(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["train", "--resume", str(folder)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


@pytest.mark.parametrize("size", [0, 5, 300, -1])
def test_truncated_checkpoint(size: int, stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = numbered_checkpoints(stopped)[-1]
    path.write_bytes(path.read_bytes()[:size])
    line = refusal(stopped, capsys)
    assert str(path) in line
    assert "cut short" in line


def test_foreign_safetensors(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import save_file

    path = numbered_checkpoints(stopped)[-1]
    save_file({"weight": torch.zeros(1)}, path)
    line = refusal(stopped, capsys)
    assert str(path) in line
    assert "format=None" in line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("width: 16", "width: 32", ["width=16", "here 32"]),
        ("max_span: 256", "max_span: 128", ["memory_kwargs.max_span=256", "here 128"]),
        ("max_length: 5", "max_length: 6", ["env_kwargs.max_length=5", "here 6"]),
        ("memory: expire-span", "memory: tent", ["memory='tent'"]),
        ("seed: 0", "sed: 0", ["config.yaml", "sed=0", "no such setting"]),
        ("gamma: 0.99", "gamma: high", ["gamma='high'"]),
    ],
)
def test_config_that_was_edited(
    old: str, new: str, words: list[str], stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = stopped / "config.yaml"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    line = refusal(stopped, capsys)
    for word in words:
        assert word in line


def test_checkpoints_hold_tensors_and_text_alone(finished: Path) -> None:
    with safe_open(numbered_checkpoints(finished)[-1], framework="pt") as file:
        assert set(file.metadata()) == {
            *("format", "timesteps", "n_updates", "config", "score", "counters", "sha256"),
        }


def test_errors_while_learning_keep_their_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: MemoryPPO) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(MemoryPPO, "train", broken)
    with pytest.raises(RuntimeError, match="training failed"):
        train(tmp_path)
