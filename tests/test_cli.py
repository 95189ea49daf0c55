"""The command line as a whole: dispatch, help, and one clear line for wrong use."""

import subprocess
import sys
from pathlib import Path

import pytest

from memspan import __version__, cli


def wrong_use(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that wrong use gives."""
    assert cli.main(args) == cli.WRONG_USE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_has_a_line_per_command(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(args) == 0
    out = capsys.readouterr().out
    for command, (_, what) in cli.COMMANDS.items():
        assert f"  {command} " in out
        assert what in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"memspan {__version__}\n"


def test_help_is_quick_because_torch_is_left_alone() -> None:
    program = "import sys, memspan.cli; memspan.cli.main([]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_scripts_hand_over_to_their_command(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(cli, "_run", lambda command, args: called.append([command, *args]) or 7)
    path = Path(__file__).parent.parent / script
    monkeypatch.setattr(sys, "argv", [str(path), "--some", "flag"])
    with pytest.raises(SystemExit) as exit_:
        exec(compile(path.read_text(), path, "exec"), {"__name__": "__main__"})
    assert exit_.value.code == 7
    assert called == [[path.stem, "--some", "flag"]]


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean train?" in wrong_use(["trian"], capsys)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--env", "memspan/Coridor-v0"], ["env='memspan/Coridor-v0'", "memspan/Corridor-v0"]),
        (["--env=nowhere:X-v0"], ["env='nowhere:X-v0'", "cannot be imported"]),
        (["--memory", "expire"], ["memory='expire'", "expire-span", "transformer-xl"]),
        (["--memory", "averages.py"], ["memory='averages.py'", "averages:MyMemory"]),
        (["--memory.ramp", "0"], ["ramp=0", "at least 1"]),
        (["--memory.ramp=-3"], ["ramp=-3", "at least 1"]),
        (["--memory.n-heads", "5"], ["n_heads=5", "64"]),
        (["--env.min-length", "30", "--env.max-length", "20"], ["max_length", "20", "30"]),
        (["--n-envs", "0"], ["n_envs=0", "at least 1"]),
        (["--seed", "-1"], ["seed=-1", "at least 0"]),
        (["--total-timesteps", "0"], ["total_timesteps=0"]),
        (["--learning-rate", "0"], ["learning_rate=0.0", "above 0"]),
        (["--gamma", "1.5"], ["gamma=1.5", "0 to 1"]),
        (["--final-ent-coef", "-1"], ["final_ent_coef=-1.0", "at least 0"]),
        (["--memory-loss-gate", "1"], ["memory_loss_gate=1.0", "1 excluded"]),
        (["--memory-target", "0"], ["memory_target=0.0", "above 0"]),
        (["--device", "abacus"], ["device='abacus'"]),
        (["--name", "../x"], ["name='../x'"]),
        (["--resume", "no/such/run"], ["no/such/run is not a run folder", "config.yaml"]),
    ],
)
def test_wrong_use_of_train_is_one_line(
    args: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [] if "--resume" in args else ["--run-dir", str(tmp_path)]
    line = wrong_use(["train", *where, *args], capsys)
    for word in words:
        assert word in line
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("args", [["--no-such-flag", "1"], ["--n-envs", "many"]])
def test_wrong_flags_are_refused_with_code_2(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "--run-dir", str(tmp_path), *args])
    assert exit_.value.code == cli.WRONG_USE
    assert args[0] in capsys.readouterr().err


def test_a_file_in_the_way_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").write_text("no folder")
    assert str(tmp_path / "runs") in wrong_use(["train", "--run-dir", str(tmp_path / "runs")], capsys)


def test_interrupt_outside_training_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(command: str, args: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert cli.main(["train"]) == cli.INTERRUPTED
    assert capsys.readouterr().err == ""


def test_errors_of_several_lines_become_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(command: str, args: list[str]) -> int:
        raise ValueError("first\n  second")

    monkeypatch.setattr(cli, "_run", fails)
    assert wrong_use(["train"], capsys) == "memspan: first second\n"


@pytest.mark.parametrize("memory", ["expire-span", "lstm", "none", "transformer-xl"])
def test_help_of_train_has_help_for_every_flag(memory: str, capsys: pytest.CaptureFixture[str]) -> None:
    import dataclasses

    from memspan.memory import memory_class
    from memspan.runs.config import FIELDS

    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "--memory", memory, "--help-all"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    settings = [one.name for one in dataclasses.fields(memory_class(memory).Config)]
    names = [name for name in FIELDS if not name.endswith("_kwargs")]
    names += [f"memory.{name}" for name in settings]
    names += [
        f"env.{name}" for name in ("min_length", "max_length", "view_size", "shuffle_doors", "max_steps")
    ]
    lines = [line.strip("│ ") for line in out.splitlines()]
    for name in names:
        flag = f"--{name.replace('_', '-')}"
        at = next(i for i, line in enumerate(lines) if line.split(" ")[0].rstrip(",") == flag)
        # After flag and type there is help, on this line or the next, before the default.
        text = " ".join(lines[at : at + 2]).partition("(default")[0].split()
        assert len(text) > 2, flag
    assert "--memory NAME --env ID --help-all" in " ".join(out.split())
    assert "--resume FOLDER" in out
