"""The memory of docs/write-your-own-memory.md runs as it stands and keeps to the rules stated there."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from memspan import cli
from memspan.memory import Memory, make_memory

PAGE = (Path(__file__).parents[1] / "docs" / "write-your-own-memory.md").read_text(encoding="utf-8")
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SHELL = re.findall(r"^(memspan .*?)(?:\s+#.*)?$", PAGE, re.M)
NAME = "averages:Averages"


@pytest.fixture(autouse=True)
def its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "averages.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def memory() -> Memory:
    torch.manual_seed(0)
    return make_memory(NAME, 8, {"longest": 9})


def test_it_is_short() -> None:
    assert len(CODE.splitlines()) < 60


@torch.no_grad()
def test_rules() -> None:
    one, x = memory(), torch.randn(7, 3, 8)
    starts = torch.zeros(7, 3, dtype=torch.bool)
    starts[4, 1] = True
    whole = one(x, one.initial_state(3), starts)
    state = one.initial_state(3)
    for t in range(7):
        out = one.step(x[t], state, starts[t])
        torch.testing.assert_close(out.features, whole.features[t])
        state = out.state
    torch.testing.assert_close(state["averages"], whole.state["averages"])
    poisoned = {"averages": torch.full((3, 8), float("nan"))}
    starts[0] = True
    assert one(x, poisoned, starts).features.isfinite().all()


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"^longest=1: must be at least 2$"):
        make_memory(NAME, 8, {"longest": 1})


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An installed command does not search the folder that it runs in by itself.
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    monkeypatch.delitem(sys.modules, "averages", raising=False)
    probe, train, evaluate = (shlex.split(line)[1:] for line in SHELL)
    assert cli.main([*probe, "--steps", "1", "--gaps", "5", "--batch-size", "2"]) == 0
    small = "--total-timesteps 64 --n-envs 4 --n-steps 8 --width 8 --env.max-length 5"
    assert cli.main([*train, *small.split()]) == 0
    assert cli.main([*evaluate, "--episodes", "4", "--n-envs", "2"]) == 0
