"""A run that was stopped and gone on with ends with the bits of one that was left alone."""

import dataclasses
import importlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from memspan import cli
from memspan.agents.files import write_atomically
from memspan.agents.random_state import get_random_state, set_random_state
from memspan.agents.snapshot import put_back_learnt, put_back_rest, take_snapshot
from memspan.memory import MEMORIES
from memspan.runs import RunConfig, load_config, load_model, make_model, read_info, save_config
from memspan.runs.callbacks import CheckpointCallback, StopCallback
from memspan.runs.checkpoint import FORMATS, digest
from memspan.runs.folder import numbered_checkpoints

ROOT = Path(__file__).parents[1]
N_ENVS, N_STEPS, N_ROLLOUTS = 3, 8, 7
ROLLOUT = N_ENVS * N_STEPS
FLAGS = [
    *("--n-envs", str(N_ENVS), "--n-steps", str(N_STEPS), "--width", "8", "--n-minibatches", "2"),
    *("--n-epochs", "1", "--total-timesteps", str(N_ROLLOUTS * ROLLOUT), "--checkpoint-every"),
    *(str(2 * ROLLOUT), "--stats-window-size", "3"),
]
ENVS = {
    "Corridor": ["--env.max-length", "5"],
    "Portal": ["--env.num-rooms", "3", "--env.room-size", "3", "--observe-previous"],
    "Instruction": ["--env.num-verbs", "1", "--env.num-objects", "2", "--env.max-gap", "3"],
}
SPANS = [
    *("--memory.max-span", "8", "--memory.ramp", "3", "--memory.n-heads", "2", "--memory.n-layers", "1"),
    *("--memory-loss-coef", "0.1", "--memory-loss-gate", "0.01", "--memory-target", "0.5"),
]
SLOTS = ["--memory.memory-size", "4", "--memory.n-heads", "2", "--memory.n-layers", "1"]
FLAGS_OF = {
    "lstm": [],
    "transformer-xl": SLOTS,
    "expire-span": SPANS,
    "refresh-span": SPANS,
    "summary-tree": [*SLOTS, "--memory.n-levels", "3"],
    "none": [],
}


class Crash(Exception):
    """What goes wrong in a callback."""


def crash() -> None:
    raise Crash


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def differences(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, Path], list[str]]]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module: ModuleType = importlib.import_module("torture")
    yield module.differences
    sys.modules.pop("torture", None)


def start(run_dir: Path, env: str = "Corridor", memory: str = "expire-span", flags: Any = ()) -> int:
    settings = [*FLAGS, *ENVS.get(env, []), *FLAGS_OF[memory], *flags]
    env = env if "/" in env else f"memspan/{env}-v0"
    return cli.main(["train", "--run-dir", str(run_dir), "--env", env, "--memory", memory, *settings])


def resume(folder: Path) -> int:
    return cli.main(["train", "--resume", str(folder)])


def folder_of(run_dir: Path) -> Path:
    (folder,) = run_dir.glob("*/*/0")
    return folder


def timesteps_of(folder: Path) -> list[int]:
    return [int(path.stem) for path in numbered_checkpoints(folder)]


def stopped(act: Callable[[], None], rollout: int, run: Callable[[], int]) -> None:
    """Has `act` called in the fifth step of a rollout, counted from 1."""
    counts = {"rollouts": 0, "steps": 0}
    on_step = StopCallback._on_step

    def begin(self: StopCallback) -> None:
        counts["rollouts"] += 1
        counts["steps"] = 0

    def step(self: StopCallback) -> bool:
        counts["steps"] += 1
        if counts["rollouts"] == rollout and counts["steps"] == 5:
            act()
        return on_step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopCallback, "_on_rollout_start", begin)
        patch.setattr(StopCallback, "_on_step", step)
        if act is crash:
            with pytest.raises(Crash):
                run()
        else:
            assert run() == cli.INTERRUPTED


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run left alone."""
    run_dir = tmp_path_factory.mktemp("whole")
    assert start(run_dir) == 0
    return folder_of(run_dir)


WAYS = itertools.cycle([crash, interrupt, terminate])


@pytest.mark.parametrize(
    ("env", "memory", "act"),
    [(env, memory, next(WAYS)) for memory, env in itertools.product(FLAGS_OF, ENVS)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_same_bits(env: str, memory: str, act: Callable[[], None], tmp_path: Path, differences: Any) -> None:
    assert start(tmp_path / "whole", env, memory) == 0
    stopped(act, 5, lambda: start(tmp_path / "stopped", env, memory))
    whole, again = folder_of(tmp_path / "whole"), folder_of(tmp_path / "stopped")
    # A crash falls back on the schedule; who is asked to stop keeps what the rollout began with.
    last = 4 * ROLLOUT
    assert timesteps_of(again)[-1] == last
    # What else is random in the process is no matter.
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert resume(again) == 0
    assert timesteps_of(again) == timesteps_of(whole) == [n * ROLLOUT for n in (4, 6, 7)]
    assert (again / "checkpoints" / "best.safetensors").exists()
    assert differences(whole, again) == []


def test_killed_for_good(whole: Path, tmp_path: Path, differences: Any) -> None:
    """SIGKILL of a process, in the middle of a rollout."""
    script = """
import os, signal, sys
from memspan import cli
from memspan.runs.checkpoint import FORMATS, digest
from memspan.runs.callbacks import StopCallback
steps = []
def step(self):
    steps.append(1)
    if len(steps) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return True
StopCallback._on_step = step
cli.main(sys.argv[2:])
"""
    flags = ["train", "--run-dir", str(tmp_path), *FLAGS, *ENVS["Corridor"], *FLAGS_OF["expire-span"]]
    command = [sys.executable, "-c", script, str(5 * N_STEPS + 3), *flags]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
    again = folder_of(tmp_path)
    assert timesteps_of(again) == [2 * ROLLOUT, 4 * ROLLOUT]
    assert resume(again) == 0
    assert differences(whole, again) == []


def test_stopped_again_and_again(whole: Path, tmp_path: Path, differences: Any) -> None:
    stopped(crash, 2, lambda: start(tmp_path))
    again = folder_of(tmp_path)
    assert timesteps_of(again) == []  # from the start, though rows have been written
    stopped(interrupt, 2, lambda: resume(again))
    stopped(crash, 3, lambda: resume(again))
    stopped(terminate, 1, lambda: resume(again))
    stopped(crash, 1, lambda: resume(again))
    with open(max(again.glob("events.*"), key=os.path.getsize), "ab") as events:
        events.write(b"half a row")
    stopped(interrupt, 4, lambda: resume(again))
    # Those that were written on request are gone but for the last.
    assert timesteps_of(again) == [n * ROLLOUT for n in (2, 4, 5)]
    assert resume(again) == 0
    assert differences(whole, again) == []


def test_second_request_stops_at_once_and_keeps_the_rollouts_beginning(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differences: Any
) -> None:
    """In the middle of an update, too."""
    descend = torch.optim.Adam.step

    def stop(self: torch.optim.Adam) -> None:
        descend(self)
        if numbered_checkpoints(folder_of(tmp_path)):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", stop)
        assert start(tmp_path) == cli.INTERRUPTED
    again = folder_of(tmp_path)
    assert timesteps_of(again) == [2 * ROLLOUT]
    assert resume(again) == 0
    assert differences(whole, again) == []


def test_the_comparison_sees_every_difference(whole: Path, tmp_path: Path, differences: Any) -> None:
    name = f"{N_ROLLOUTS * ROLLOUT:012d}.safetensors"

    def changed(change: Callable[[dict[str, Any], dict[str, str]], None]) -> list[str]:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(whole, tmp_path / "run")
        rewrite(tmp_path / "run" / "checkpoints" / name, change)
        return differences(whole, tmp_path / "run")

    assert changed(lambda tensors, metadata: None) == []
    assert changed(lambda tensors, metadata: tensors["random.numpy"].add_(1)) == [f"{name}: random.numpy"]
    assert changed(lambda tensors, metadata: tensors.pop("env.lengths")) == [f"{name}: env.lengths"]
    assert changed(lambda tensors, metadata: metadata.update(n_updates="0")) == [f"{name}: n_updates"]
    (events,) = (tmp_path / "run").glob("events.*")
    events.with_suffix(".1").write_bytes(events.read_bytes())  # every row twice
    assert "TensorBoard: train/value_loss" in differences(whole, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / name).unlink()
    assert "checkpoints: " in differences(whole, tmp_path / "run")[0]


# Files


def test_folder_without_config_is_taken_over(whole: Path, tmp_path: Path, differences: Any) -> None:
    folder = tmp_path / whole.relative_to(whole.parents[2])
    folder.mkdir(parents=True)
    (folder / ".config.yaml.abc").write_text("env: half")
    assert start(tmp_path) == 0
    assert not list(folder.glob(".*"))
    assert differences(whole, folder) == []


def test_config_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="disk full"):
            save_config(RunConfig(), tmp_path)
    assert not list(tmp_path.iterdir())
    save_config(RunConfig(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("links", [True, False])
def test_what_exists_may_be_spared(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:

        def unknown(*args: Any) -> None:
            raise OSError("no such operation")

        monkeypatch.setattr(os, "link", unknown)
    path = tmp_path / "one"
    write_atomically(path, lambda name: Path(name).write_text("1"), replace=False)
    with pytest.raises(FileExistsError):
        write_atomically(path, lambda name: Path(name).write_text("2"), replace=False)
    assert path.read_text() == "1"
    write_atomically(path, lambda name: Path(name).write_text("3"))
    assert path.read_text() == "3"
    assert list(tmp_path.iterdir()) == [path]


def test_the_name_is_on_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[bool, bool]] = []
    path = tmp_path / "new" / "one"
    fsync = os.fsync

    def spy(handle: int) -> None:
        synced.append((os.path.isdir(f"/dev/fd/{handle}"), path.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    write_atomically(path, lambda name: Path(name).write_text("1"))
    # The new folder's name, the file before it has its name, and the name.
    assert synced == [(True, False), (False, False), (True, True)]


@pytest.fixture
def left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run that crashed in its sixth rollout, with checkpoints of the second and the fourth."""
    stopped(crash, 6, lambda: start(tmp_path / "left"))
    capsys.readouterr()
    return folder_of(tmp_path / "left")


def test_what_a_killed_writer_left_is_removed(left: Path) -> None:
    leftover = left / "checkpoints" / ".000000000096.safetensors.abc"
    leftover.write_bytes(b"half")
    stopped(crash, 1, lambda: resume(left))
    assert not leftover.exists()
    leftover.write_bytes(b"half")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopCallback, "_on_training_start", lambda self: leftover.write_bytes(b"half"))
        assert resume(left) == 0
    assert not leftover.exists()


@pytest.mark.parametrize("size", [0, 100, -1])
def test_damaged_checkpoint(
    size: int, whole: Path, left: Path, capsys: pytest.CaptureFixture[str], differences: Any
) -> None:
    last = numbered_checkpoints(left)[-1]
    last.write_bytes(last.read_bytes()[:size])
    assert resume(left) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "cut short" in line]
    assert str(last) in line
    assert line.endswith(f"going on from {2 * ROLLOUT:012d}.safetensors")
    assert differences(whole, left) == []


def test_damaged_best_checkpoint(left: Path) -> None:
    best = left / "checkpoints" / "best.safetensors"
    best.write_bytes(b"half")
    assert CheckpointCallback(load_config(left), left).best is None


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, str]], None]) -> None:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    change(tensors, metadata)
    # As if it had been written so.
    save_file(tensors, path, metadata | {"sha256": digest(tensors, metadata)})


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("env.lengths", None, "tensor env.lengths is missing"),
        ("policy.embed.weight", lambda x: x.fill_(torch.nan), "tensor policy.embed.weight holds NaN"),
        ("optimizer.0.exp_avg_sq", None, "tensor optimizer.0.exp_avg_sq is missing"),
        ("optimizer.0.exp_avg", lambda x: x.sum(), "tensor optimizer.0.exp_avg has shape ()"),
        ("env.returns", lambda x: x[:2].clone(), "tensor env.returns has shape (2,): must be (3,)"),
        ("env.lengths", lambda x: x.float(), "tensor env.lengths is torch.float32: must be torch.int64"),
        ("env.state.x", lambda x: x + 99, "state['x'] must be from 0"),
        ("env.state.random_streams", None, "tensor env.state.random_streams is missing"),
        ("agent.observation", lambda x: x[:, :2].clone(), "tensor agent.observation has shape (3, 2, 3, 3)"),
        ("agent.episode_starts", None, "tensor agent.episode_starts is missing"),
        ("memory.hidden.0", lambda x: x[:2].clone(), "tensor memory.hidden.0 has shape (2,"),
        ("memory.age.0", lambda x: x.float(), "tensor memory.age.0 is torch.float32"),
        ("random.torch", lambda x: x[:9].clone(), "tensor random.torch has shape (9,)"),
        ("random.torch", torch.zeros_like, "torch's random generator"),
        ("optimizer.0.exp_avg", lambda x: x[:1].clone(), "tensor optimizer.0.exp_avg has shape"),
        ("policy.embed.weight", None, "tensor policy.embed.weight is missing"),
    ],
)
def test_tensors_that_do_not_fit(
    name: str, change: Any, words: str, left: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        value = tensors.pop(name)
        if change is not None:
            tensors[name] = change(value)

    last = numbered_checkpoints(left)[-1]
    rewrite(last, spoil)
    rows = {path: path.read_bytes() for path in left.glob("events.*")}
    assert resume(left) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert str(last) in line
    assert words in line
    assert rows == {path: path.read_bytes() for path in left.glob("events.*")}
    # Who only evaluates does not read where the episodes were.
    if name.startswith(("env.", "agent.", "memory.", "random.")):
        assert load_model(left)[1].num_timesteps == 4 * ROLLOUT


def test_a_flipped_bit_is_seen(left: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the tensors, where the file as such stays whole; the checkpoint before it is gone on from."""
    last = numbered_checkpoints(left)[-1]
    data = bytearray(last.read_bytes())
    data[-1] ^= 1
    last.write_bytes(data)
    with pytest.raises(ValueError, match="not what was written, its SHA-256 differs"):
        load_model(left)
    assert resume(left) == 0
    assert "its SHA-256 differs; going on from" in capsys.readouterr().out
    assert timesteps_of(left) == timesteps_of(whole)


def test_files_of_format_1(left: Path, capsys: pytest.CaptureFixture[str], whole: Path) -> None:
    def as_before(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        for name in [*tensors]:
            if not name.startswith(("policy.", "optimizer.", "recent.")):
                del tensors[name]
        recent = tensors["recent.episodes"]
        tensors["recent.episodes"] = torch.cat([recent, torch.ones(len(recent), 1).double()], 1)
        metadata["format"] = "memspan checkpoint 1"
        del metadata["counters"]

    for path in (left / "checkpoints").iterdir():
        rewrite(path, as_before)
    _, model = load_model(left)
    assert len(model.ep_info_buffer) == 3
    assert resume(left) == 0
    name = f"{4 * ROLLOUT:012d}.safetensors"
    assert (
        f"{name} is of a format that did not hold the environments: its episodes start anew."
        in capsys.readouterr().out
    )
    assert timesteps_of(left) == timesteps_of(whole)
    assert read_info(numbered_checkpoints(left)[-1]).format == FORMATS[-1]


# What is not ours


@pytest.fixture
def toy_id(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "agents"))
    from toys import Toy

    gym.register("memspan-test/Toy-v0", entry_point=Toy)
    yield "memspan-test/Toy-v0"
    del gym.registry["memspan-test/Toy-v0"]


def test_foreign_environments_start_anew(
    toy_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: Path
) -> None:
    stopped(interrupt, 4, lambda: start(tmp_path, toy_id, "lstm"))
    folder = folder_of(tmp_path)
    twin = tmp_path / "twin"
    shutil.copytree(folder, twin)
    capsys.readouterr()
    assert resume(folder) == 0
    line = f"{toy_id} cannot save where it is: its episodes start anew."
    assert capsys.readouterr().out.splitlines().count(line) == 1
    assert timesteps_of(folder) == timesteps_of(whole)
    # How they start anew is settled by the seed and the checkpoint.
    assert resume(twin) == 0
    assert bits(numbered_checkpoints(folder)[-1]) == bits(numbered_checkpoints(twin)[-1])


def bits(path: Path) -> dict[str, bytes]:
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


# Agents


@pytest.mark.parametrize("memory", sorted(MEMORIES))
def test_agents_of_every_memory_go_on(memory: str) -> None:
    config = RunConfig(
        env_kwargs={"max_length": 5},
        memory=memory,
        memory_kwargs={"n_layers": 1},
        width=8,
        n_envs=3,
        n_steps=8,
        n_epochs=1,
        stats_window_size=3,
        observe_previous=True,
    )
    whole = make_model(config)
    whole.learn(5 * ROLLOUT)
    snapshot = take_snapshot(whole)
    whole.learn(3 * ROLLOUT, reset_num_timesteps=False)
    again = make_model(dataclasses.replace(config, seed=1))
    again.set_logger(whole.logger)
    put_back_learnt(again, snapshot)
    assert put_back_rest(again, snapshot)
    again.learn(3 * ROLLOUT, reset_num_timesteps=False)
    ends = take_snapshot(whole), take_snapshot(again)
    assert ends[0].timesteps == ends[1].timesteps == 8 * ROLLOUT
    assert ends[0].counters == ends[1].counters
    assert ends[0].tensors.keys() == ends[1].tensors.keys()
    for name, value in ends[0].tensors.items():
        assert value.numpy().tobytes() == ends[1].tensors[name].numpy().tobytes(), name


def test_random_generators_go_on() -> None:
    def draw() -> list[Any]:
        return [
            *(np.random.normal(), np.random.normal(), np.random.rand()),  # noqa: NPY002
            *(random.gauss(0, 1), random.gauss(0, 1), random.random(), *torch.rand(2).tolist()),
        ]

    device = torch.device("cpu")
    for spare in (False, True):
        if spare:  # a normal number is drawn in a pair
            np.random.normal()  # noqa: NPY002
            random.gauss(0, 1)
        state = get_random_state(device)
        drawn = draw()
        assert draw() != drawn
        set_random_state(state, device)
        assert draw() == drawn
