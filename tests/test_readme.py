"""The README's examples run as they stand, but for the length of their trainings."""

import os
import re
import shlex
from pathlib import Path

import pytest

from memspan import cli

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = re.findall(
    r"^(memspan .*?)(?:\s+#.*)?$", "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)), re.M
)
SMALL = "--total-timesteps 64 --n-envs 4 --n-steps 8 --width 8"


def test_there_are_examples() -> None:
    assert len(PYTHON) == 2
    assert [line.split()[1] for line in SHELL] == ["list"] + ["train"] * 3 + [
        "evaluate",
        "play",
        "compare",
        "horizon",
        "watch",
        "report",
        "probe",
        "sweep",
        "push",
    ]


@pytest.mark.parametrize("code", PYTHON)
@pytest.mark.filterwarnings("ignore:Evaluation environment is not wrapped")
def test_python(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("20_000", "64"), "README.md", "exec"), {})


def test_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listed, train, other, resume, evaluate, play, compare, horizon, watch, report, probe, sweep, push = SHELL
    assert cli.main(shlex.split(listed)[1:]) == 0
    assert cli.main(shlex.split(f"{train} {SMALL} --env.max-length 5")[1:]) == 0
    assert cli.main(shlex.split(f"{other} {SMALL} --seed 1")[1:]) == 0
    # A finished run has nothing to resume, and says so.
    assert cli.main(shlex.split(resume)[1:]) == 2
    assert cli.main([*shlex.split(evaluate)[1:], "--episodes", "4", "--n-envs", "2"]) == 0
    assert (tmp_path / "figure.png").exists()
    assert (tmp_path / "figure.svg").exists()
    assert cli.main([*shlex.split(compare)[1:], "--logdir", "comparison", "--write-only"]) == 0
    assert (tmp_path / "comparison" / "cost").is_dir()
    assert cli.main([*shlex.split(horizon)[1:], "--episodes", "4", "--n-envs", "2"]) == 0
    with open(os.devnull) as nothing:  # nobody presses a key
        monkeypatch.setattr("sys.stdin", nothing)
        assert cli.main(shlex.split(play)[1:]) == 0
    assert cli.main([*shlex.split(watch)[1:], "--episodes", "1"]) == 0
    assert (tmp_path / "agent.gif").exists()
    assert cli.main(shlex.split(report)[1:]) == 0
    assert "expire-span" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert cli.main([*shlex.split(probe)[1:], "--steps", "2", "--gaps", "10"]) == 0
    assert (tmp_path / "probes" / "recall" / "results.json").exists()
    file = shlex.split(sweep)[-1]
    assert cli.main(["sweep", str(Path(__file__).parents[1] / file), "--dry-run"]) == 0
    assert cli.main([*shlex.split(push)[1:], "--no-replay"]) == 0
    assert (tmp_path / "passed-on" / "README.md").exists()
