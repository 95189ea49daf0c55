"""Every example runs, on a budget of a few rollouts, and prints what its README says."""

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from memspan import cli
from memspan.memory import check_rules

FOLDER = Path(__file__).parents[1] / "examples"
FILES = sorted(FOLDER.glob("*.py"))
README = (FOLDER / "README.md").read_text(encoding="utf-8")
LONGEST, LONGEST_SINGLE_FILE = 65, 110

# Tensors here are tiny: more threads would only wait for each other.
torch.set_num_threads(1)


def load(name: str) -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_is_short_and_says_how_long_it_takes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text), clean=False)
    assert docstring is not None
    assert f"python examples/{path.name}" in docstring
    assert re.search(r"\d+ (second|minute)s?", docstring), "says how long it takes"
    longest = LONGEST_SINGLE_FILE if path.stem == "single_file_ppo" else LONGEST
    assert len(text.replace(docstring, "").splitlines()) <= longest


def test_the_readme_lists_them_all() -> None:
    assert set(re.findall(r"\]\((\w+\.py)\)", README)) == {path.name for path in FILES}


@pytest.mark.parametrize("pixels", [False, True])
def test_minigrid_memory(pixels: bool, capsys: pytest.CaptureFixture[str]) -> None:
    mean = load("minigrid_memory").main(timesteps=256, pixels=pixels, n_envs=2)
    assert 0 <= mean <= 1
    assert ("NatureCNN" if pixels else "SymbolExtractor") in capsys.readouterr().out


def test_popgym(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("popgym", reason="popgym is not installed: pip install 'memspan[examples]'")
    mean = load("popgym_repeat_first").main(timesteps=416, n_envs=2)
    assert -1 <= mean <= 1
    assert "mean return" in capsys.readouterr().out


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, package in ("popgym_repeat_first", "popgym"), ("recurrent_ppo", "sb3_contrib"):
        for module in [one for one in sys.modules if one.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(SystemExit, match=re.escape("pip install 'memspan[examples]'")):
            load(name).main(timesteps=1)


def test_own_environment() -> None:
    """The agent with a memory learns it, the one without does not."""
    main = load("own_environment").main
    assert main(timesteps=8_000) > 0.8
    assert main(timesteps=2_000, memory="none") < 0.6


@pytest.mark.parametrize("frames", [1, 4])
def test_frame_stack(frames: int) -> None:
    assert 0 <= load("frame_stack").main(timesteps=1_024, frames=frames) <= 1


def test_recurrent_ppo() -> None:
    pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed: pip install 'memspan[examples]'")
    assert 0 <= load("recurrent_ppo").main(timesteps=1_024) <= 1


@pytest.mark.parametrize("memory", ["gru", "expire-span"])
def test_single_file_ppo(memory: str) -> None:
    assert 0 <= load("single_file_ppo").main(timesteps=1_024, memory=memory) <= 1


def test_single_file_ppo_learns() -> None:
    assert load("single_file_ppo").main(timesteps=10_000) > 0.65


@pytest.mark.slow
@pytest.mark.parametrize("through", ["async", "subproc"])
def test_processes(through: str) -> None:
    assert load("processes").main(timesteps=256, through=through) == 256


def test_look_inside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = load("look_inside").main
    flags = f"--run-dir {tmp_path} --total-timesteps 64 --n-envs 4 --n-steps 8 --width 8 --env.max-length 5"
    for memory, shown in ("lstm", "hidden of length"), ("transformer-xl", "reads 1, back to 1 steps ago"):
        assert cli.main(["train", "--memory", memory, *flags.split()]) == 0
        capsys.readouterr()
        effective = main(tmp_path / "Corridor-v0" / memory / "0")
        printed = capsys.readouterr().out
        assert shown in printed
        assert len([line for line in printed.splitlines() if line.startswith("step ")]) == len(effective)
        if memory == "lstm":
            assert set(effective) == {2.0}
        else:
            np.testing.assert_allclose(np.diff(effective), 1)


def test_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "own_memory", raising=False)
    assert 0 <= load("own_memory").main(timesteps=2_048, max_length=5) <= 1
    assert check_rules(sys.modules.pop("own_memory").FirstStep(4)) is None


def test_action_masks() -> None:
    """Without masks its environment would refuse actions."""
    module = load("action_masks")
    assert 0 <= module.main(timesteps=1_024) <= 2
    env = module.Pairs()
    env.reset(seed=0)
    env.step(0)
    with pytest.raises(AssertionError):
        env.step(0)
