"""`memspan watch`: what is shown of an agent's memory, videos, and one clear line for wrong use."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import numpy as np
import pygame
import pytest
import torch
from PIL import Image

from memspan import cli
from memspan.evaluation.looks import look_of
from memspan.memory import Remembered
from memspan.runs import RunConfig, load_model, make_model, run_folder, save_checkpoint, save_config
from memspan.runs.environments import environment_spec
from memspan.show.environments import make_rendered_env
from memspan.show.frames import Frame, Player
from memspan.show.memory_picture import by_step, draw_frame, summary
from memspan.show.memory_text import memory_lines
from memspan.show.terminal import plain
from memspan.show.video import Recorder
from memspan.show.window import WindowScreen
from memspan.watch import Options, main

torch.set_num_threads(1)


def make_run(run_dir: Path, memory: str = "expire-span", **settings) -> Path:
    """A run folder with an untrained agent as its checkpoint."""
    config = RunConfig(
        **{"memory": memory, "n_envs": 4, "width": 16, "env_kwargs": {"max_length": 4}, "run_dir": run_dir}
        | settings
    )
    folder = run_folder(config)
    save_config(config, folder)
    save_checkpoint(make_model(config), config, folder / "checkpoints" / "000000000512.safetensors", 512)
    return folder


def frames_of(folder: Path, n_episodes: int = 2, render: str = "window") -> list[Frame]:
    config, model = load_model(folder, device="cpu")
    env = make_rendered_env(environment_spec(config.env), config.env_kwargs, render)
    torch.manual_seed(0)
    return list(Player(config, model.policy, env, seed=3).frames(n_episodes, deterministic=False))


def frame(
    memory: str = "expire-span", seen: int = 100, layers: tuple[Remembered, ...] = (), **changes
) -> Frame:
    drawing = np.zeros((64, 64, 3), np.uint8)
    plain_frame = Frame(
        drawing=drawing,
        episode=1,
        step=seen - 1,
        action="right",
        reward=0.0,
        total=0.0,
        value=0.5,
        outcome="",
        success=None,
        memory=memory,
        capacity=100.0,
        effective=2.0,
        seen=seen,
        layers=layers,
    )
    return dataclasses.replace(plain_frame, **changes)


def slots(*held: tuple[int, float, float]) -> Remembered:
    """A layer with slots of given age, strength and steps left, and a free one."""
    age, strength, left = zip((-1, 0.0, 0.0), *held, strict=True)
    return Remembered(torch.tensor([age]), torch.tensor([strength]), torch.tensor([left]))


def refused(capsys, *args) -> str:
    """Exit code 2, and one line that says why."""
    assert cli.main(["watch", *map(str, args)]) == cli.WRONG_USE
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert not out
    return err


# Episodes


@pytest.mark.parametrize("observe_previous", [False, True])
def test_every_step_and_the_end_of_each_episode(tmp_path, observe_previous) -> None:
    shown = frames_of(make_run(tmp_path, observe_previous=observe_previous), render="ansi")
    ends = [i for i, one in enumerate(shown) if one.outcome]
    assert len(ends) == 2
    assert ends[-1] == len(shown) - 1
    first = 0
    for episode, end in enumerate(ends, start=1):
        steps = shown[first : end + 1]
        assert [one.step for one in steps] == list(range(len(steps)))
        assert {one.episode for one in steps} == {episode}
        for one in steps:
            # What is drawn is this step, also at the end, before the environment starts anew.
            assert f"step {one.step} of 8" in plain(one.drawing)
            assert one.effective == np.mean([layer.readable.sum() for layer in one.layers])
        for one in steps[:-1]:
            assert one.action in ("right", "down", "left", "up")
            assert one.seen == one.step + 1
        last = steps[-1]
        assert (last.total, last.success) == ((1.0, True) if "correct door" in last.drawing else (0.0, False))
        assert last.outcome in ("success", "failed", "failed: out of time")
        first = end + 1


@pytest.mark.parametrize("memory", ["none", "lstm", "transformer-xl", "expire-span"])
def test_every_memory_has_a_picture_of_one_shape(tmp_path, memory) -> None:
    shown = frames_of(make_run(tmp_path, memory), n_episodes=1)
    assert len({draw_frame(one, 8).shape for one in shown}) == 1
    lines = memory_lines(shown[-1])
    assert lines[1].startswith(f"{memory}: ")
    assert ("nothing is kept" in lines[1]) == (memory == "none")
    assert all(len(plain(line)) <= 80 for line in lines)


def test_long_words_fit_into_80_columns() -> None:
    lines = memory_lines(
        frame(action="polish the kettle", step=12, reward=1 / 3, total=123.6666, value=-12.34, episode=123)
    )
    assert len(lines) == 3
    assert all(len(line) <= 80 for line in lines)
    assert " ".join(" ".join(lines[:2]).split()) == (
        "episode 123 step 12 action polish the kettle reward 0.33 return 123.67 value -12.34"
    )


def test_an_environment_without_success_or_discrete_actions(tmp_path) -> None:
    folder = make_run(tmp_path, "lstm", env="Pendulum-v1", env_kwargs={}, n_minibatches=1)
    shown = frames_of(folder, n_episodes=1)
    assert shown[-1].success is None
    assert shown[-1].outcome == "out of time"
    assert re.fullmatch(r"\[-?\d.*\]", shown[0].action)
    assert draw_frame(shown[0]).shape[1] == 640


# Pictures


def count(picture: np.ndarray, colour: str) -> int:
    """Pixels of exactly this colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((picture == wanted).all(-1).sum())


def test_slots_are_placed_by_their_step() -> None:
    layer = slots((0, 1.0, 9.0), (3, 0.5, 6.0), (9, 1.0, 7.0))
    assert by_step(layer, layer.steps_left[0], 10).tolist() == [7, 0, 0, 0, 0, 0, 6, 0, 0, 9]


def test_bars_are_as_high_as_a_memory_lasts_and_as_strong_as_it_is_read() -> None:
    colour = look_of("expire-span").colour

    def drawn(*held: tuple[int, float, float]) -> int:
        return count(draw_frame(frame(layers=(slots((0, 1.0, 50.0), *held),))), colour)

    text = drawn()
    assert drawn((5, 1.0, 50.0)) > drawn((5, 1.0, 20.0)) > drawn((5, 1.0, 0.0)) > text
    assert drawn((5, 0.5, 50.0)) == text  # paler
    assert drawn((5, 0.0, 50.0)) == text  # a dash
    assert drawn((5, 1.0, 50.0), (9, 1.0, 50.0)) - text == 2 * (drawn((5, 1.0, 50.0)) - text)


@pytest.mark.parametrize("longest", [8, 400, None])
@pytest.mark.parametrize("seen", [1, 9, 200, 1000, 3000])
def test_long_episodes_fit(longest, seen) -> None:
    held = [(age, 1.0, 100.0) for age in range(min(seen, 90))]
    pictures = [
        draw_frame(frame(layers=layers, seen=n), longest)
        for n, layers in ((1, (slots((0, 1.0, 100.0)),)), (seen, (slots(*held),)))
    ]
    assert pictures[0].shape == pictures[1].shape
    if seen > 1:
        colour = look_of("expire-span").colour
        assert count(pictures[1], colour) > count(pictures[0], colour) + (len(held) - 1) * 20
    lines = memory_lines(frame(layers=(slots(*held),), seen=seen))
    assert len(lines) <= 10
    strip = "".join(plain(line) for line in lines[2:])
    assert strip.endswith("█" * (len(held) - 1) + "|")
    assert set(strip) <= set("·█|")


def test_summary_says_how_much_is_remembered() -> None:
    layers = (slots((0, 1.0, 9.0), (3, 0.5, 6.0), (9, 1.0, 7.0)),)
    assert summary(frame(layers=layers)) == "expire-span: 2 of 99 past steps can be read, at most 100"
    assert summary(frame("none", capacity=0.0)) == "none: nothing is kept"
    assert summary(frame("x")) == "x: does not tell what it keeps"


# The command


def test_recording_a_gif(tmp_path, capsys) -> None:
    folder, video = make_run(tmp_path), tmp_path / "videos" / "agent.gif"
    assert main([str(folder), "--episodes", "2", "--record", str(video), "--fps", "10"]) == 0
    out = capsys.readouterr().out
    lengths = [int(n) for n in re.findall(r"(\d+) steps", out)]
    assert len(lengths) == 2
    assert f"Video: {video}" in out
    with Image.open(video) as gif:
        milliseconds = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            milliseconds.append(gif.info["duration"])
        assert gif.info["loop"] == 0
    assert sum(milliseconds) == 100 * (sum(lengths) + 2) + 2 * 1500
    assert [path.name for path in video.parent.iterdir()] == ["agent.gif"]
    before = video.read_bytes()
    assert "exists already" in refused(capsys, folder, "--record", video)
    assert video.read_bytes() == before


@pytest.mark.skipif(importlib.util.find_spec("imageio_ffmpeg") is None, reason="needs memspan[video]")
def test_recording_an_mp4(tmp_path) -> None:
    assert main([str(make_run(tmp_path)), "--episodes", "1", "--record", str(tmp_path / "agent.mp4")]) == 0
    assert (tmp_path / "agent.mp4").stat().st_size > 1000


def test_a_recording_that_fails_leaves_nothing(tmp_path) -> None:
    def interrupted() -> None:
        with Recorder(tmp_path / "a.gif", 5) as recorder:
            recorder.add(np.zeros((8, 8, 3), np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_watching_in_a_terminal_that_is_none(tmp_path, capsys, monkeypatch) -> None:
    with open("/dev/null") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert main([str(make_run(tmp_path)), "--episodes", "2", "--render", "ansi"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "expire-span: 0 of 0 past steps can be read" in out
    assert out.count("effective memory") == 2


def test_watching_in_a_window_until_one_has_enough(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    keys = iter([" ", "right", "space", "+", "q"])
    monkeypatch.setattr(WindowScreen, "key", lambda self, seconds=None: next(keys))
    assert main([str(make_run(tmp_path, "transformer-xl"))]) == 0
    assert capsys.readouterr().out == "No episode was finished.\n"
    pygame.quit()


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--episodes", "0"], "episodes=0: must be at least 1"),
        (["--seed", "-1"], "seed=-1: must be from 0"),
        (["--fps", "0"], "fps=0: must be above 0"),
        (["--record", "a.avi"], "record='a.avi': must be a file name that ends in .gif or .mp4"),
        (["--record", "a.gif", "--render", "ansi"], "render='ansi'"),
        (["--checkpoint", "best"], "has no best checkpoint"),
    ],
)
def test_wrong_use(tmp_path, capsys, args, why) -> None:
    assert why in refused(capsys, make_run(tmp_path), *args)


def test_no_run_and_no_ffmpeg(tmp_path, capsys, monkeypatch) -> None:
    assert "is not a run folder" in refused(capsys, tmp_path)
    monkeypatch.setattr("memspan.show.video.can_write_mp4", lambda: False)
    assert "pip install 'memspan[video]'" in refused(capsys, tmp_path, "--record", tmp_path / "a.mp4")


def test_help_says_something_of_every_option(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for field in dataclasses.fields(Options)[1:]:
        assert f"--{field.name}" in out
