"""`memspan play`: keys, terminals and windows, and one clear line for wrong use."""

import io
import os
import re
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pygame
import pytest

from memspan import cli
from memspan.play import Options, Tally, main, parse, play
from memspan.runs.environments import environment_spec
from memspan.show.actions import Commands, action_names, keys_of_actions
from memspan.show.controls import TextControls, controls_for
from memspan.show.environments import TextEnvironment, make_rendered_env
from memspan.show.screen import open_screen
from memspan.show.terminal import TerminalScreen, blocks, fold, plain
from memspan.show.window import WindowScreen

CORRIDOR = "memspan/Corridor-v0"


def piped(keys: str) -> int:
    """A file descriptor from which the keys can be read."""
    read, write = os.pipe()
    os.write(write, keys.encode())
    os.close(write)
    return read


def played(keys: str, options: Options | None = None, **settings) -> tuple[list[str], Tally]:
    """The pictures that a person sees who presses these keys, and the tally."""
    env = gym.make(CORRIDOR, render_mode="ansi", **({"max_length": 3} | settings))
    output, tally = io.StringIO(), Tally()
    with TerminalScreen(output, piped(keys)) as terminal:
        play(env, terminal, controls_for(env), tally, options or Options(seed=0))
    return output.getvalue().split("cue ")[1:], tally


def refused(capsys, *args: str) -> str:
    """Exit code 2, and one line that says why."""
    assert cli.main(["play", *args]) == cli.WRONG_USE
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert not out
    return err


# Playing


def test_an_episode_from_start_to_success_and_on_to_the_next() -> None:
    pictures, tally = played("ll")
    cue = pictures[0].split()[0]
    pictures, tally = played("l\x1b[C" + {"red": "k", "blue": "j"}[cue] + "\nlq")
    assert "episode 1   step 3   reward 1   return 1" in pictures[3]
    assert "Success.   Enter: next episode" in pictures[3]
    assert "episode 2   step 0   reward 0   return 0" in pictures[4]
    assert "episode 2   step 1" in pictures[5]
    assert (tally.returns, tally.lengths, tally.successes) == ([1.0], [3], [True])


def test_failure_time_and_restart_are_told() -> None:
    cue = played("q")[0][0].split()[0]
    wrong = {"red": "j", "blue": "k"}[cue]
    pictures, tally = played("lr" + "ll" + wrong + "llq")
    assert "step 0" in pictures[2]  # restarted: not counted
    assert (tally.lengths, tally.successes) == ([3], [False])
    pictures, tally = played("hhhhhh", options=Options(seed=1))
    assert "Failed: out of time." in pictures[-1]
    assert str(tally) == "1 episode, 0 of 1 solved, mean return 0.00, mean length 6.0 steps."


def test_keys_that_mean_nothing_do_nothing_and_the_end_of_input_quits() -> None:
    pictures, tally = played("xyz")
    assert all("step 0 of" in picture for picture in pictures)
    assert str(tally) == "No episode was finished."


def test_the_same_seed_is_the_same_episode(capsys) -> None:
    first = [played("lll", Options(seed=seed), max_length=200)[0] for seed in (4, 4, 5)]
    assert first[0] == first[1] != first[2]


def test_the_command_plays_keys_piped_in() -> None:
    args = [sys.executable, "-m", "memspan", "play", CORRIDOR, "--render", "ansi", "--env.max-length", "3"]
    done = subprocess.run([*args, "--view", "agent"], input=b"llq", capture_output=True, check=True)
    out = done.stdout.decode()
    assert "cue" not in out  # which the agent's view does not tell
    assert "\x1b" not in out
    assert out.count("▶") == 3
    assert out.endswith("No episode was finished.\n")


@pytest.mark.parametrize("stop", ["", "interrupt", "error"])
def test_a_terminal_is_left_as_it_was(stop: str) -> None:
    termios = pytest.importorskip("termios")
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    output = os.fdopen(os.dup(slave), "w")
    try:
        with TerminalScreen(output, slave) as terminal:
            assert termios.tcgetattr(slave) != before
            os.write(master, b"\x1b[A\x1bOBx \r\t\x7f\x1b")
            keys = [terminal.key() for _ in range(8)]
            assert keys == ["up", "down", "x", "space", "enter", "tab", "backspace", "escape"]
            assert terminal.key(0.01) is None
            terminal.show("world", ["below"])
            if stop:
                raise KeyboardInterrupt if stop == "interrupt" else RuntimeError
    except (KeyboardInterrupt, RuntimeError):
        assert stop
    assert termios.tcgetattr(slave) == before
    shown = ""
    while "?1049l" not in shown:  # a terminal gives what was written in pieces
        shown += os.read(master, 4096).decode()
    assert plain(shown).split() == ["world", "below"]
    assert shown.startswith("\x1b[?1049h")
    assert shown.endswith("\x1b[?25h\x1b[?1049l")
    output.close()
    os.close(master)
    os.close(slave)


def test_a_window_shows_the_picture_and_has_the_keys(monkeypatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with WindowScreen("test") as window:
        picture = np.full((40, 40, 3), 99, np.uint8)
        window.show(picture, ["below"])
        surface = pygame.display.get_surface()
        assert surface.get_width() == 640
        shown = pygame.surfarray.array3d(surface)
        assert (shown[160:480, :320] == 99).all()  # enlarged
        assert window.key(0) is None
        for key, letter in ((pygame.K_LEFT, ""), (pygame.K_x, "x")):
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, unicode=letter))
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        assert [window.key() for _ in range(3)] == ["left", "x", "end"]
        window.show("text alone", [])


def test_the_command_plays_in_a_window(monkeypatch, capsys) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    keys = iter("hhhhhh")
    monkeypatch.setattr(WindowScreen, "key", lambda self: next(keys, "q"))
    assert main([CORRIDOR, "--env.max-length", "3", "--view", "agent"]) == 0
    assert capsys.readouterr().out.startswith("1 episode, 0 of 1 solved")


# Keys and words


def test_keys_follow_the_names_of_actions() -> None:
    corridor = keys_of_actions(action_names(gym.make(CORRIDOR)))
    assert [corridor[key] for key in ("right", "l", "d")] == [0, 0, 0]
    assert (corridor["j"], corridor["left"], corridor["w"]) == (1, 2, 3)
    minigrid = action_names(gym.make("MiniGrid-Empty-5x5-v0"))
    assert minigrid[:3] == ["left", "right", "forward"]
    keys = keys_of_actions(minigrid)
    assert (keys["up"], keys["space"]) == (2, minigrid.index("toggle"))
    assert set(keys.values()) == set(range(7))
    assert keys_of_actions(action_names(gym.make("CartPole-v1"))) == {"0": 0, "1": 1}
    assert not {"q", "r"} & set(keys_of_actions(["quit", "rest", "left", "jump"]))
    assert keys_of_actions(["x", "Y", "yy"]) == {"x": 0, "y": 1, "0": 2}


class ManyActions(gym.Env):
    """Twelve actions without names, and a `decode` that is about something else, as in Taxi."""

    action_space = gym.spaces.Discrete(12)

    def decode(self, state: int) -> tuple[int, int]:
        return divmod(state, 5)


def test_more_actions_than_keys_are_typed() -> None:
    numbers = [str(number) for number in range(12)]
    assert keys_of_actions(numbers[:10]) == {number: int(number) for number in numbers[:10]}
    assert keys_of_actions(numbers) is None
    assert len(keys_of_actions([f"action {i}" for i in range(34)])) == 34
    assert keys_of_actions([f"action {i}" for i in range(35)]) is None
    controls = controls_for(ManyActions())
    assert [controls.press(key) for key in ("1", "enter", "1", "1", "enter")] == [None, 1, None, None, 11]


def test_what_only_looks_like_text_is_not_asked_for_words() -> None:
    assert not isinstance(ManyActions(), TextEnvironment)
    assert isinstance(controls_for(gym.make("memspan/Instruction-v0")), TextControls)
    taxi = max(name for name in gym.registry if name.startswith("Taxi-v"))
    with pytest.raises(ValueError, match=r"^view='agent': Taxi-v\d .* must be 'all'$"):
        make_rendered_env(environment_spec(taxi), {}, "ansi", "agent")


MEANINGS = ["wait", "open the gate", "open the garden", "close the gate", "carry the lamp"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("", 0), ("o gat", 1), ("open gate", 1), ("op the gar", 2), ("cl", 3), ("Ca", 4), ("close ga", 3)],
)
def test_words_may_be_cut_short(typed: str, meant: int) -> None:
    assert Commands(MEANINGS).find(typed) == meant


def test_what_is_not_clear_is_asked_back() -> None:
    commands = Commands(MEANINGS)
    with pytest.raises(ValueError, match=r"^'o': which of open gate, open garden$"):
        commands.find("o")
    with pytest.raises(ValueError, match=r"^'eat': there is no such action$"):
        commands.find("eat")
    expected = {"cl": "close gate", "o": "open ", "open gar": "open garden", "open g": "open ga"}
    expected |= {typed: typed for typed in ("c", "x", "")}
    assert {typed: commands.complete(typed) for typed in expected} == expected


def test_a_line_is_typed() -> None:
    controls = TextControls(MEANINGS, first=10)

    def press(*keys: str):
        return [asked for key in keys if (asked := controls.press(key)) is not None]

    assert controls.lines()[:2] == ["> _", "wait, open gate, open garden, close gate, carry lamp"]
    assert press("o", "space", "g", "a", "t", "tab") == []
    assert controls.lines()[:2] == ["> open gate_", "open gate"]
    assert press("enter", "enter") == [11, 10]
    assert press("x", "backspace", "c", "a", "enter") == [14]
    assert press("o", "enter") == []
    assert controls.lines()[:2] == ["> _", "'o': which of open gate, open garden"]
    for typed, hint in (("q", ""), ("r", ""), ("x", "there is no such action")):
        assert press(typed) == []
        assert controls.lines()[1] == hint
        press("backspace")
    assert press("q", "enter", "r", "enter", "escape") == ["quit", "restart", "quit"]


# Pictures


@pytest.mark.parametrize("view_size", [3, 5, 7])
@pytest.mark.parametrize("length", [10, 34, 36, 37, 72, 111, 120])
def test_a_corridor_as_text(length: int, view_size: int) -> None:
    env = gym.make(CORRIDOR, render_mode="ansi", max_length=200, min_length=10, view_size=view_size)
    env.reset(options={"length": length, "cue": "red"})
    env.step(0)
    coloured = env.render()
    title, *lines = plain(coloured).split("\n")
    assert title.split("    ")[:3] == ["cue red", f"cell 1 of 0-{length - 1}", "step 1 of 400"]
    walls = view_size // 2 + 1
    assert len(lines) == 3 * -(-length // {3: 36, 5: 36, 7: 34}[view_size])
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert [text.count(sign) for sign in ("●r", "▶", "▮r", "▮b")] == [1, 1, 1, 1]
    assert lines[1].startswith("██●r" + "██" * (walls - 2) + "  ▶")
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    assert numbers == [x for x in range(0, length, 10) if x != length - 1]
    assert coloured.count("48;5;239m") >= 2  # the view, lighter


def test_pictures_as_blocks_and_folded_lines() -> None:
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:50] = (255, 0, 0)
    lines = blocks(picture, 60, 40)
    assert len(lines) == 10
    assert lines[0] == "\x1b[38;5;196;48;5;196m▀" * 60 + "\x1b[0m"
    assert lines[-1].startswith("\x1b[38;5;16;48;5;16m")
    assert [len(plain(piece)) for piece in fold(lines[0], 25)] == [25, 25, 10]
    assert "".join(fold(lines[0], 25)) == lines[0]
    assert fold("one line and more of it", 16) == ["one line and", "        more of", "        it"]


def shown_on(height: int, monkeypatch, drawing: str, lines: list[str]) -> list[str]:
    """What stands on a terminal of this height."""
    monkeypatch.setattr("shutil.get_terminal_size", lambda **_: os.terminal_size((80, height)))
    output = io.StringIO()
    output.isatty = lambda: True  # type: ignore[method-assign]
    TerminalScreen(output, piped("")).show(drawing, lines)
    return plain(output.getvalue()).split("\n")


@pytest.mark.parametrize("x", [0, 20, 100, 198])
@pytest.mark.parametrize("n_lines", [3, 11, 30])
def test_a_low_terminal_keeps_title_agent_and_keys(monkeypatch, x: int, n_lines: int) -> None:
    env = gym.make(CORRIDOR, render_mode="ansi", max_length=200)
    env.reset(options={"length": 200, "cue": "red"})
    for _ in range(x):
        env.step(0)
    below = [f"line {i}" for i in range(n_lines)]
    shown = shown_on(24, monkeypatch, env.render(), below)
    assert len(shown) <= 24
    assert shown[0].startswith("cue red")
    agent = next(i for i, row in enumerate(shown) if "▶" in row)
    for wall in (shown[agent - 1], shown[agent + 1]):
        assert "█" in wall
    kept = shown[shown.index("") + 1 :]
    assert len(kept) == min(n_lines, 19)
    assert kept == [*below[: len(kept) - 1], below[-1]]


def test_the_present_sentence_stays(monkeypatch) -> None:
    story = ["title", *(f"  {i:4d}  a sentence" for i in range(30)), ">   30  the present one", "pending: it"]
    shown = shown_on(10, monkeypatch, "\n".join(story), ["keys"])
    assert shown == ["title", *story[-7:], "", "keys"]


def test_terminals_of_windows_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ValueError, match=r"^render='ansi': .* must be 'window'$"):
        open_screen("ansi", "title")


def test_portal_as_text() -> None:
    env = gym.make("memspan/Portal-v0", render_mode="ansi", num_rooms=17)
    env.reset(options={"right_door": ["east"] * 16})
    for action in [0] * 6 + [2] * 3 + [0] * 3:
        env.step(action)
    lines = plain(env.render()).split("\n")
    assert lines[0].startswith("room 1 of 0-16    step 12")
    assert lines[8] == ""
    assert lines[9].split() == ["0", "[1]", "2", *(f".{k}" for k in range(3, 15))]
    assert lines[10].index("x") == lines[9].index("2")
    assert lines[10].split() == ["x"]
    assert lines[11].split() == [".15", ".16"]
    assert all(len(line) <= 80 for line in lines)


# Wrong use


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--seed", "3", "minigrid:MiniGrid-Empty"], ["'minigrid:MiniGrid-Empty'", "before all options"]),
        (["memspan/Coridor-v0"], ["memspan/Coridor-v0", "did you mean memspan/Corridor-v0"]),
        (["Pendulum-v1", "--render", "ansi"], ["Pendulum-v1", "no discrete actions"]),
        (["CartPole-v1", "--view", "agent"], ["view='agent'", "must be 'all'"]),
        ([CORRIDOR, "--seed", "-1"], ["seed=-1", "at least 0"]),
        ([CORRIDOR, "--env.max-length", "2"], ["max_length", "2"]),
    ],
)
def test_wrong_use(capsys, args: list[str], words: list[str]) -> None:
    line = refused(capsys, *args)
    for word in words:
        assert word in line


@pytest.mark.skipif(sys.platform != "linux", reason="displays are told by variables on Linux only")
def test_without_a_display_it_says_so(capsys, monkeypatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    assert "use --render ansi" in refused(capsys, CORRIDOR)


def test_without_an_id_it_is_the_corridor() -> None:
    assert parse([])[0].env == parse(["--seed", "3"])[0].env == CORRIDOR


def test_settings_of_the_environment(capsys) -> None:
    options, settings = parse(["--env.max-length", "20", "--seed", "3", CORRIDOR, "--env.shuffle-doors"])
    assert (options.env, options.seed) == (CORRIDOR, 3)
    assert settings == {"max_length": 20, "shuffle_doors": True}
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for flag in ("ID", "--render", "--view", "--seed", "--env.max-length"):
        assert flag in out
