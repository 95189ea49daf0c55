"""The package as others get it: built, installed elsewhere, imported, typed."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from memspan import cli

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSUMER = """
import gymnasium as gym
import memspan
from memspan import MemoryPPO
from memspan.memory import MemoryConfig

SETTINGS = {"max_length": 5}
assert gym.make("memspan/Corridor-v0", **SETTINGS).reset(seed=0)[0].shape == (3, 3, 3)
envs = gym.make_vec(
    "memspan:memspan/Corridor-v0", num_envs=4, vectorization_mode="vector_entry_point", **SETTINGS
)
model = MemoryPPO("MlpPolicy", envs, memory="lstm", n_steps=16, seed=0)
model.learn(total_timesteps=64)
print(memspan.__file__, model.num_timesteps)
"""
TYPED = """
from memspan import MemoryPPO, VecEnvAdapter
from memspan.memory import Memory, make_memory
from memspan.envs import CorridorEnv

memory: Memory = make_memory("lstm", 8)
reveal_type(CorridorEnv)
reveal_type(MemoryPPO.learn)
wrong: int = make_memory("lstm", 8)
"""
CHECKED = """
import torch
from memspan import MemoryPPO
from memspan.envs import CorridorEnv
from memspan.memory import Memory, MemoryConfig, MemoryOutput, make_memory
from memspan.runs import RunConfig


class Nothing(Memory):
    def __init__(self, width: int, config: MemoryConfig | None = None) -> None:
        super().__init__(width)

    def initial_state(
        self, batch_size: int, device: torch.device | str = "cpu"
    ) -> dict[str, torch.Tensor]:
        return {"nothing": torch.zeros(batch_size, 0, device=device)}

    def forward(
        self,
        x: torch.Tensor,
        state: dict[str, torch.Tensor],
        episode_starts: torch.Tensor,
        keep_state: bool = True,
    ) -> MemoryOutput:
        return MemoryOutput(x, state)

    @property
    def capacity(self) -> float:
        return 0.0


memory: Memory = make_memory("lstm", 8)
observation, info = CorridorEnv(max_length=5).reset(seed=0)
steps: int = RunConfig(memory="lstm").total_timesteps
model: MemoryPPO = MemoryPPO("MlpPolicy", "CartPole-v1", memory="lstm").learn(total_timesteps=64)
again: MemoryPPO = MemoryPPO.load("agent")
wrong: int = make_memory("lstm", 8)
MemoryPPO("MlpPolicy", "CartPole-v1", memroy="lstm")
"""
STRICT = {"typeCheckingMode": "strict", "reportUnknownMemberType": False}
"""What pyright checks in another project; Stable-Baselines3 leaves the types of callbacks open."""


def run(command: list[str | Path], where: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command elsewhere, as somebody would who has no checkout."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=False, env=env)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    done = run([sys.executable, "-m", "hatchling", "build", "-d", folder], ROOT)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel; what it depends on is borrowed from ours."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder)
    interpreter = folder / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    done = run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            interpreter,
            "install",
            "-q",
            "--no-deps",
            "--no-index",
            wheel,
        ],
        folder,
    )
    assert done.returncode == 0, done.stderr
    (own,) = (folder / "lib").glob("python*/site-packages")
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return interpreter


def test_wheel_holds_the_package_alone(built: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0] for name in names} == {"memspan", f"memspan-{PROJECT['version']}.dist-info"}
    here = {str(one.relative_to(ROOT)) for one in (ROOT / "memspan").rglob("*") if one.is_file()}
    assert {name for name in here if "__pycache__" not in name} <= set(names)
    assert "memspan/py.typed" in names


def test_sdist_holds_what_the_checks_need(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    for name in ("Makefile", "constraints.txt", "mkdocs.yml", "CITATION.cff", "LICENSE", "docs/index.md"):
        assert name in names
    assert "tests/test_packaging.py" in names
    assert "results/corridor/README.md" in names


@pytest.mark.slow
def test_another_project_trains_on_the_environments(python: Path, tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(CONSUMER)
    done = run([python, "project.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    where, steps = done.stdout.split()
    assert Path(where).is_relative_to(python.parents[1])
    assert steps == "64"


@pytest.mark.slow
def test_the_command_works_where_it_is_installed(python: Path, tmp_path: Path) -> None:
    flags = "--memory lstm --total-timesteps 64 --n-envs 4 --n-steps 16 --width 8 --env.max-length 5"
    done = run([python.parent / "memspan", "train", *flags.split()], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "Corridor-v0" / "lstm" / "0" / "config.yaml").is_file()


@pytest.mark.slow
def test_types_are_there_for_other_projects(python: Path, tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    cache = tmp_path / "cache"
    done = run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            cache,
            "--python-executable",
            python,
            "typed.py",
        ],
        tmp_path,
    )
    assert "memspan.envs.corridor.CorridorEnv" in done.stdout
    assert "total_timesteps: int" in done.stdout
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(errors) == 1, done.stdout
    assert "typed.py:9" in errors[0]


@pytest.mark.slow
def test_pyright_reads_the_types(python: Path, tmp_path: Path) -> None:
    """In strict mode it complains of a package without py.typed, whatever it could infer from its source."""
    (tmp_path / "checked.py").write_text(CHECKED)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(STRICT))
    command: list[str | Path] = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", python]
    report = json.loads(run([*command, "checked.py"], tmp_path).stdout)
    found = {
        (CHECKED.splitlines()[one["range"]["start"]["line"]], one.get("rule"))
        for one in report["generalDiagnostics"]
    }
    assert found == {
        ('wrong: int = make_memory("lstm", 8)', "reportAssignmentType"),
        ('MemoryPPO("MlpPolicy", "CartPole-v1", memroy="lstm")', "reportCallIssue"),
    }


def test_extras() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras) >= {"dev", "docs", "examples", "hub", "ray", "report", "video", "wandb", "zoo"}
    assert set(cli.EXTRAS.values()) <= set(extras)
    for name, needed in extras.items():
        # The tests use all of them; `make test-zoo` uses the zoo, which wants other versions of the rest.
        assert name == "zoo" or set(needed) <= set(extras["dev"]), name
    for package, extra in cli.EXTRAS.items():
        assert any(re.match(rf"{package}\b", one) for one in extras[extra])
        assert not any(re.match(rf"{package}\b", one) for one in PROJECT["dependencies"])


def test_everything_imports_without_extras() -> None:
    modules = (
        "agents, evaluation, runs, train, evaluate, compare, horizon, play, probe, pull, push, report, watch"
    )
    program = f"import sys; sys.modules.update(dict.fromkeys({list(cli.EXTRAS)!r}))\n" + "".join(
        f"import memspan.{name}\n" for name in modules.split(", ")
    )
    done = run([sys.executable, "-c", program], ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", cli.EXTRAS)
def test_a_missing_extra_is_named(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(command: str, args: list[str]) -> int:
        raise ModuleNotFoundError(f"No module named '{package}.sub'", name=f"{package}.sub")

    monkeypatch.setattr(cli, "_run", fails)
    assert cli.main(["train"]) == cli.WRONG_USE
    assert capsys.readouterr().err == (
        f"memspan: {package} is missing: pip install 'memspan[{cli.EXTRAS[package]}]'\n"
    )


def test_another_missing_module_is_no_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(command: str, args: list[str]) -> int:
        raise ModuleNotFoundError("No module named 'nonsense'", name="nonsense")

    monkeypatch.setattr(cli, "_run", fails)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["train"])


def test_citation_agrees_with_the_package() -> None:
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["title"].startswith(PROJECT["name"])
    assert citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "authors"} <= set(citation)


def test_workflow_runs_what_is_run_here() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    commands = re.findall(r"^make \w+$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
    assert commands == re.findall(r"run: (make \w+)", workflow)
    for version in ("3.11", "3.12", "3.13"):
        assert f'"{version}"' in workflow
