"""memspan in a terminal: what is imported, what fits a screen, what a shell completes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from memspan import cli
from memspan.envs import ENVIRONMENTS
from memspan.envs.registration import SUMMARIES
from memspan.memory import MEMORIES
from memspan.runs.config import COMMON, FIELDS

HEAVY = {
    *("torch", "stable_baselines3", "minigrid", "pygame", "numba", "networkx", "scipy", "matplotlib"),
    *("tensorboard", "tyro", "rich", "ray", "plotly", "imageio", "pandas"),
}
"""Packages that take long to import."""
LINES, COLUMNS = 48, 80
"""A screen."""


def run_python(code: str, *args: str, **env: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **env},
    )
    return done.stdout


def loaded(statement: str) -> set[str]:
    """Top-level packages in memory after a statement, in a fresh interpreter."""
    report = "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    return set(json.loads(run_python(f"import json, sys\n{statement}\n{report}").splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import memspan",
        "import memspan; dir(memspan)",
        "from memspan.envs import ENVIRONMENTS",
        "from memspan.cli import main; main(['--help'])",
        "from memspan.cli import main; main(['--version'])",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement: str) -> None:
    assert loaded(statement) & HEAVY == set()


def test_environments_need_no_torch() -> None:
    code = "import memspan, gymnasium; gymnasium.make('memspan/Corridor-v0').reset()"
    assert loaded(code) & {"torch", "stable_baselines3"} == set()


def test_lazy_names_are_there() -> None:
    import memspan
    from memspan import envs

    for module in (memspan, envs):
        assert set(module.__all__) <= set(dir(module))
        for name in module.__all__:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError, match="no_such_name"):
            _ = module.no_such_name


def help_of(command: str, capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    try:
        code = cli.main([command, *args])
    except SystemExit as exit_:
        code = exit_.code
    assert code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    "args", [[], *[[command, "--help"] for command in cli.COMMANDS], ["probe", "recall", "-h"]]
)
def test_help_fits_a_screen(
    args: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    lines = help_of(args[0], capsys, *args[1:]) if args else help_of("--help", capsys)
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    assert not any("\x1b" in line for line in lines)


def test_help_of_train_shows_the_common_settings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(help_of("train", capsys, "--memory", "lstm", "--help"))
    for name in FIELDS:
        assert (f"--{name.replace('_', '-')} " in text) == (name in COMMON), name
    assert "--help-all" in text
    assert "lstm on memspan/Corridor-v0" in " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_output_is_plain_without_colour(env: dict[str, str]) -> None:
    code = "import sys; from memspan.cli import main; sys.exit(main(sys.argv[1:]))"
    assert "\x1b" not in run_python(code, "list", **env)


def test_list_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in (*ENVIRONMENTS, *MEMORIES):
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert len(line.split()) > 3
        # In a pipe lines are not broken, and should not have to be.
        assert len(line) <= COLUMNS
    assert any("MODULE:CLASS" in line for line in lines)
    assert set(SUMMARIES) == set(ENVIRONMENTS)


def test_list_wraps_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert cli.main(["list"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= COLUMNS


def test_list_one_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "memories"]) == 0
    out = capsys.readouterr().out
    assert "lstm" in out
    assert "Portal" not in out


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "memspan.bash"
    code = "from memspan.cli import main; raise SystemExit(main(['--print-completion', 'bash']))"
    path.write_text(run_python(code))
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["memspan", "tr"], "train"),
        (["memspan", "train", "--mem"], "--memory"),
        (["memspan", "train", "--res"], "--resume"),
        (["memspan", "train", "--memory.long"], "--memory.longest-dependency"),
        (["memspan", "train", "--env.max-le"], "--env.max-length"),
        (["memspan", "evaluate", "--fig"], "--figure"),
        (["memspan", "probe", "rec"], "recall"),
    ],
)
def test_bash_completes(words: list[str], expected: str, bash_script: Path) -> None:
    program = (
        f"source {bash_script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        "$(complete -p memspan | sed 's/.*-F \\([^ ]*\\).*/\\1/'); printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    assert expected in done.stdout.split(), done.stderr


@pytest.mark.parametrize("args", [["--print-completion"], ["--print-completion", "fish"]])
def test_completion_for_another_shell_is_one_line(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(args) == cli.WRONG_USE
    assert "must be one of bash, zsh, tcsh" in capsys.readouterr().err
