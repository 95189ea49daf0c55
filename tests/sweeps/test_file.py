"""A sweep's file: what it may say, what is refused, and which runs follow."""

import os
import re
from pathlib import Path

import pytest

from memspan.runs.flags import parse
from memspan.sweeps import SweepFile, SweepRun, expand, read_sweep

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))

WHOLE = """
envs:
  - memspan/Corridor-v0
  - env: memspan/Portal-v0
    settings: {env.num_rooms: 3, total_timesteps: 7000, memory.n_layers: 2}
seeds: [0, 3]
settings:
  total_timesteps: 5000
  learning_rate: 1e-3
  memory.n_layers: 1
evaluation: {episodes: 20, seed: 5, deterministic: true}
resources: {cpus: 2}
retries: 1
runs:
  - memory: lstm
    settings: {learning_rate: 2e-3}
  - memory: transformer-xl
    grid: {memory.memory_size: [4, 8], gamma: [0.9, 0.99]}
    resources: {gpus: 0.5}
  - memory: transformer-xl
    name: window-{memory_size}
    grid: {memory.memory_size: [16]}
"""
SMALL = "env: memspan/Corridor-v0\nruns:\n  - memory: lstm\n"


def read(tmp_path: Path, text: str) -> SweepFile:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return read_sweep(path)


def runs_of(tmp_path: Path, text: str) -> dict[str, SweepRun]:
    return {run.title: run for run in expand(read(tmp_path, text), tmp_path / "runs")}


def test_runs_are_environments_times_memories_times_grid_times_seeds(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, WHOLE)
    names = ["lstm"]
    names += [f"transformer-xl-memory_size={m},gamma={g}" for m in (4, 8) for g in (0.9, 0.99)]
    names += ["window-16"]
    assert list(runs) == [
        f"{env}/{name}/{seed}" for env in ("Corridor-v0", "Portal-v0") for name in names for seed in (0, 3)
    ]
    for title, run in runs.items():
        assert run.folder == tmp_path / "runs" / title
        assert run.config.seed == int(title[-1])
        assert run.cpus == 2
        assert run.gpus == (0.5 if ",gamma" in title else 0)


def test_settings_go_over_each_other(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, WHOLE)
    corridor, portal = (runs[f"{env}-v0/lstm/0"].config for env in ("Corridor", "Portal"))
    assert (corridor.total_timesteps, portal.total_timesteps) == (5000, 7000)
    assert corridor.learning_rate == portal.learning_rate == 2e-3
    assert (corridor.env_kwargs, portal.env_kwargs) == ({}, {"num_rooms": 3})
    window = runs["Portal-v0/window-16/3"].config
    assert window.learning_rate == 1e-3
    assert (window.memory_kwargs["memory_size"], window.memory_kwargs["n_layers"]) == (16, 2)
    assert runs["Corridor-v0/window-16/3"].config.memory_kwargs["n_layers"] == 1
    grid = runs["Corridor-v0/transformer-xl-memory_size=8,gamma=0.9/0"].config
    assert (grid.memory_kwargs["memory_size"], grid.gamma) == (8, 0.9)


def test_a_run_has_the_settings_that_train_would_give_it(tmp_path: Path) -> None:
    text = SMALL.replace("memory: lstm", "memory: expire-span") + "settings: {env.max_length: 20, gamma: 0.9}"
    (run,) = runs_of(tmp_path, text).values()
    flags = ["--memory", "expire-span", "--env.max-length", "20", "--gamma", "0.9"]
    assert run.config == parse([*flags, "--run-dir", str(tmp_path / "runs")], "memspan train")


def test_evaluation_has_the_options_of_evaluate(tmp_path: Path) -> None:
    sweep = read(tmp_path, WHOLE)
    options = sweep.evaluation_options(tmp_path)
    assert (options.episodes, options.seed, options.deterministic, options.n_envs) == (20, 5, True, 64)
    assert sweep.retries == 1
    assert read(tmp_path, SMALL).evaluation_options(tmp_path).episodes == 1000


def test_a_cpu_for_each_thread(tmp_path: Path) -> None:
    (run,) = runs_of(tmp_path, SMALL + "settings: {threads: 3}").values()
    assert run.cpus == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1\n", ["must be fields by name", "runs"]),
        ("env: [", ["not YAML"]),
        ("env: a\nenv: b\n", ["line 2, column 1", "env stands twice"]),
        (SMALL + "settings: {total_timestep: 1}\n", ["did you mean total_timesteps?"]),
        (SMALL + "seed: 1\n", ["seed=1", "no such field", "did you mean seeds?"]),
        (SMALL + "seeds: 3\n", ["seeds=3", "list of different integers"]),
        (SMALL + "seeds: [0, 0]\n", ["seeds=[0, 0]", "different"]),
        (SMALL + "seeds: [true]\n", ["seeds=[True]"]),
        (SMALL + "seeds: [-1]\n", ["seeds=[-1]", "at least 0"]),
        (SMALL + "envs: [memspan/Portal-v0]\n", ["either env or envs"]),
        ("runs:\n  - memory: lstm\n", ["either env or envs"]),
        ("env: memspan/Corridor-v0\n", ["runs is missing"]),
        ("env: memspan/Corridor-v0\nruns: []\n", ["runs=[]", "with a memory"]),
        ("env: memspan/Corridor-v0\nruns: [lstm]\n", ["runs[0]", "'lstm'", "fields by name"]),
        ("env: memspan/Corridor-v0\nruns: [{name: x}]\n", ["runs[0]", "memory is missing"]),
        ("envs: [{settings: {}}]\nruns: [{memory: lstm}]\n", ["envs[0]", "env is missing"]),
        (SMALL + "    grids: {gamma: [1]}\n", ["runs[0]", "grids", "did you mean grid?"]),
        (SMALL + "    grid: {gamma: 0.9}\n", ["runs[0]", "gamma=0.9", "list of values"]),
        (SMALL + "    grid: {gamma: []}\n", ["gamma=[]", "list of values"]),
        (SMALL + "retries: -1\n", ["retries=-1", "at least 0"]),
        (SMALL + "report: 1\n", ["report=1", "true or false"]),
        (SMALL + "resources: {cpu: 1}\n", ["resources: cpu=1", "did you mean cpus?"]),
        (SMALL + "resources: {cpus: 0}\n", ["cpus=0", "above 0"]),
        (SMALL + "    resources: {gpus: -1}\n", ["runs[0]: resources: gpus=-1", "at least 0"]),
        (SMALL + "resources: {gpus: 1.5}\n", ["gpus=1.5", "above 1 a whole one"]),
        (SMALL + "    name: x-{gamma.real}\n    grid: {gamma: [1]}\n", ["name='x-{gamma.real}'", "{gamma}"]),
        (SMALL + "evaluation: {episodes: 0}\n", ["evaluation: episodes=0", "at least 1"]),
        (SMALL + "evaluation: {checkpoint: first}\n", ["checkpoint='first'", "last or best"]),
        (SMALL + "evaluation: {figure: x.png}\n", ["evaluation: figure='x.png'", "no such field"]),
        (SMALL + "settings: [1]\n", ["settings=[1]", "settings by name"]),
        (SMALL + "settings: {gama: 0.9}\n", ["runs[0] (lstm on memspan/Corridor-v0)", "gama=0.9", "gamma"]),
        (SMALL + "settings: {gamma: '0.9'}\n", ["gamma='0.9'", "from 0 to 1"]),
        (SMALL + "settings: {total_timesteps: 1e5}\n", ["total_timesteps=100000.0", "integer"]),
        (SMALL + "settings: {seed: 1}\n", ["seed=1", "field of the file, seeds"]),
        (SMALL + "settings: {env_kwargs: {}}\n", ["env_kwargs={}", "env.NAME"]),
        (SMALL + "settings: {env.max_len: 5}\n", ["env.max_len=5", "max_length"]),
        (SMALL + "settings: {env.max_length: '5'}\n", ["env.max_length='5'", "type int"]),
        (SMALL + "settings: {env.max_length: 2}\n", ["max_length", "2"]),
        (SMALL + "settings: {memory.ramp: 4}\n", ["settings: memory.ramp=4", "none of the runs' memories"]),
        (SMALL + "    settings: {memory.ramp: 4}\n", ["ramp=4", "'lstm' has no such setting"]),
        (SMALL + "settings: {device: cuda}\n", ["device='cuda'", "no gpus"]),
        (SMALL + "    name: a/b\n", ["name='a/b'", "folder"]),
        (SMALL + "    name: x-{gamma}\n", ["name='x-{gamma}'", "braces", "none"]),
        (SMALL + "  - memory: lstm\n", ["runs[1]", "name='lstm'", "runs[0] (lstm on", "another one"]),
        (SMALL + "    name: x\n    grid: {gamma: [0.9, 0.9]}\n", ["name='x-gamma=0.9'", "another one"]),
        (SMALL.replace("lstm", "lstn"), ["memory='lstn'", "lstm"]),
        (SMALL.replace("Corridor", "Coridor"), ["env='memspan/Coridor-v0'", "Corridor-v0"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"sweep\.yaml") as error:
        expand(read(tmp_path, text), tmp_path / "runs")
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_seeds_of_the_evaluation_that_training_has_had_are_refused(tmp_path: Path) -> None:
    from memspan.runs import spread_seed

    with pytest.raises(ValueError, match="must be clear of the training's seeds"):
        runs_of(tmp_path, SMALL + f"evaluation: {{seed: {spread_seed(0)}}}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}{os.sep}no.yaml: no such file")):
        read_sweep(tmp_path / "no.yaml")


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_can_be_run(path: Path, tmp_path: Path) -> None:
    runs = expand(read_sweep(path), tmp_path)
    assert runs
    # They are named in the file's own first lines as they are started.
    assert f"memspan sweep examples/{path.name}" in path.read_text()
