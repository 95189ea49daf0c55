"""memspan in the RL Zoo: presets in its form, its own commands, its own files."""

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import pytest
import yaml
from stable_baselines3.common.vec_env import DummyVecEnv

from memspan import MemoryPPO
from memspan.memory import MEMORIES
from memspan.runs import RunConfig, make_model, preset, preset_blocks

HAS_ZOO = importlib.util.find_spec("rl_zoo3") is not None
needs_zoo = pytest.mark.skipif(not HAS_ZOO, reason="needs memspan[zoo]; `make test-zoo` installs it apart")
PAGE = Path(__file__).parents[1] / "docs" / "zoo.md"


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`memspan.zoo`, beside a stand-in for the zoo: what is tested with it is ours."""
    stand_in = ModuleType("rl_zoo3.utils")
    stand_in.ALGOS = {"ppo": object}
    package = ModuleType("rl_zoo3")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "rl_zoo3", package)
    monkeypatch.setitem(sys.modules, "rl_zoo3.utils", stand_in)
    monkeypatch.delitem(sys.modules, "memspan.zoo", raising=False)
    yield importlib.import_module("memspan.zoo")
    sys.modules.pop("memspan.zoo", None)


NOT_ARGUMENTS = ("n_timesteps", "n_envs", "env_kwargs", "env_wrapper", "vec_env_wrapper")


def as_the_zoo_does(settings: dict) -> dict:
    """Arguments of the algorithm, as rl_zoo3's ExperimentManager makes them of hyper-parameters."""
    made = {name: value for name, value in settings.items() if name not in NOT_ARGUMENTS}
    if isinstance(made["learning_rate"], str):
        _, initial = made["learning_rate"].split("_")
        made["learning_rate"] = lambda left: float(initial) * left
    return made


@pytest.mark.parametrize("env", [*preset_blocks(), "default"])
@pytest.mark.parametrize("memory", MEMORIES)
def test_presets_say_the_same_in_the_zoos_form(zoo: ModuleType, env: str, memory: str) -> None:
    config = RunConfig(**preset(env, memory))
    # Through the file, as the zoo reads it.
    settings = yaml.safe_load(yaml.safe_dump(zoo.zoo_settings(config)))
    assert (settings["n_timesteps"], settings["n_envs"]) == (config.total_timesteps, config.n_envs)
    assert ("vec_env_wrapper" in settings) == config.observe_previous
    assert settings.get("env_kwargs", {}) == config.env_kwargs
    cart = DummyVecEnv([lambda: gym.make("CartPole-v1")] * 8)
    ours, theirs = make_model(config, cart), MemoryPPO(env=cart, **as_the_zoo_does(settings))
    own = {"lr_schedule", "learning_rate", "seed", "action_noise", "start_time"}
    for name, value in vars(ours).items():
        if isinstance(value, bool | int | float | str | dict | None) and name not in own:
            assert vars(theirs)[name] == value, name
    for left in (1.0, 0.5, 0.0):
        assert theirs.lr_schedule(left) == pytest.approx(ours.lr_schedule(left))
        assert theirs.clip_range(left) == ours.clip_range(left)
        assert theirs.ent_coef == ours.ent_coef == config.ent_coef


def test_what_the_zoo_cannot_say_is_refused(zoo: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"final_learning_rate=0.0001: must be 0 or 0.001"):
        zoo.zoo_settings(RunConfig(learning_rate=1e-3, final_learning_rate=1e-4))
    with pytest.raises(ValueError, match=r"final_ent_coef=0.0: must be None"):
        zoo.zoo_settings(RunConfig(final_ent_coef=0.0))
    assert zoo.zoo_settings(RunConfig(final_learning_rate=RunConfig.learning_rate))["learning_rate"] == 3e-4


def test_there_is_an_algorithm_for_each_memory(zoo: ModuleType) -> None:
    known = sys.modules["rl_zoo3.utils"].ALGOS
    assert known["ppo"] is object
    assert set(zoo.ALGORITHMS.values()) == set(MEMORIES)
    assert all(known[name] is MemoryPPO for name in zoo.ALGORITHMS)
    assert all(re.fullmatch("memory_ppo_[a-z_]+", name) for name in zoo.ALGORITHMS)


def test_hyperparams_as_a_file(zoo: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo.main(["hyperparams", "--algo", "memory_ppo_expire_span"]) == 0
    told = yaml.safe_load(capsys.readouterr().out)
    assert set(told) == {*preset_blocks(), "default"}
    assert told["memspan/Corridor-v0"]["memory_kwargs"]["max_span"] == 256
    assert told["memspan/Corridor-v0"]["learning_rate"] == "lin_0.001"


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["hyperparams", "--algo", "ppo"], "algo='ppo': must be one of memory_ppo_"),
        (["tain"], "python -m memspan.zoo train"),
        ([], "python -m memspan.zoo train"),
        (["../x"], "python -m memspan.zoo train"),
    ],
)
def test_wrong_use(zoo: ModuleType, args: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo.main(args) == zoo.WRONG_USE
    assert why in capsys.readouterr().err


def test_success_is_told_as_others_look_for_it(zoo: ModuleType) -> None:
    env = zoo.TellSuccess(gym.make("memspan/Corridor-v0", max_length=3))
    env.reset(seed=0)
    done = False
    while not done:
        *_, terminated, truncated, info = env.step(env.action_space.sample())
        done = terminated or truncated
        assert ("is_success" in info) == done
    assert info["is_success"] == bool(info["success"])


@pytest.mark.skipif(HAS_ZOO, reason="the extra is installed")
def test_without_the_zoo_the_extra_is_named() -> None:
    done = run_python("-m", "memspan.zoo", "train")
    assert done.returncode != 0
    assert "rl_zoo3 is missing: pip install 'memspan[zoo]'" in done.stderr


def run_python(*args: str, where: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the interpreter; the zoo's modules are no place for our warnings to be errors."""
    path = os.pathsep.join([str(PAGE.parents[1]), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *args], cwd=where, capture_output=True, text=True, check=False, env=env
    )


SMALL = (
    "-n 128 --eval-freq 64 --num-threads 1 --env-kwargs max_length:3 --hyperparams n_envs:4 n_steps:16"
).split(" ")
"""Less to do; of two equal flags the last counts."""


@needs_zoo
def test_the_pages_commands_in_their_order(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    code = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)).replace("\\\n", " ")
    for content, name in re.findall(r'^```python\n("""(\w+\.py): .*?)^```', text, re.M | re.S):
        (tmp_path / name).write_text(content)
    said: list[str] = []
    for line in code.splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] == "pip":
            continue
        into = words[words.index(">") + 1] if ">" in words else None
        words = words[1 : words.index(">")] if into else words[1:]
        if any(word.endswith("train") for word in words):
            words += SMALL
        elif any(word.endswith("enjoy") for word in words):
            words += ["-n", "30", "--no-render"]
        done = run_python(*words, where=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
        if into:
            (tmp_path / into).write_text(done.stdout)
        said.append(done.stdout)
    assert len(said) == 5
    assert "New best mean reward!" in said[0]
    assert "Success rate" in said[1]
    assert "Mean reward" in said[1]
