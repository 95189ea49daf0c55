"""Settings, presets, folders and checkpoints of runs."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from memspan.agents import VecEnvAdapter
from memspan.memory import MEMORIES
from memspan.runs import (
    RunConfig,
    checkpoint_path,
    load_checkpoint,
    load_config,
    load_model,
    make_env,
    make_model,
    preset,
    preset_blocks,
    run_folder,
    save_checkpoint,
    save_config,
    spread_seed,
)
from memspan.runs.callbacks import Score
from memspan.runs.checkpoint import digest
from memspan.runs.checks import check_config
from memspan.runs.config import FIELDS
from memspan.runs.environments import environment_settings, environment_spec
from memspan.runs.flags import find_flag, parse
from memspan.runs.presets import read_presets
from memspan.runs.progress import short_count, short_time

torch.set_num_threads(1)

TINY = RunConfig(
    env_kwargs={"max_length": 5}, memory_kwargs={"n_layers": 1, "n_heads": 2}, width=16, n_envs=2, n_steps=8
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_envs": 0}, "n_envs=0"),
        ({"n_envs": 2.0}, r"n_envs=2\.0"),
        ({"n_envs": True}, "n_envs=True"),
        ({"seed": -1}, "seed=-1"),
        ({"learning_rate": "1e-3"}, "learning_rate='1e-3'"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"algorithm": "dqn"}, "algorithm='dqn'"),
        ({"env": ""}, "env=''"),
        ({"env_kwargs": {"size": 3}}, "size=3.*min_length, max_length"),
        ({"env_kwargs": {"max_length": 2}}, "max_length.*2"),
        ({"env_kwargs": None}, "env_kwargs=None"),
        ({"memory_kwargs": {"spam": 3}}, "spam=3.*max_span"),
        ({"memory_kwargs": {"ramp": 0}}, "ramp=0"),
        ({"memory_kwargs": {"n_heads": 3}}, "n_heads=3.*16"),
        ({"memory": "os:Path"}, "memory='os:Path'"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_config(dataclasses.replace(TINY, **change))


def test_every_field_is_checked() -> None:
    from memspan.runs import checks

    assert set(checks._RULES) == set(FIELDS)


def test_good_settings() -> None:
    check_config(TINY)
    check_config(RunConfig())


@pytest.mark.parametrize(
    ("config", "folder"),
    [
        (RunConfig(), "runs/Corridor-v0/expire-span/0"),
        (RunConfig(name="short", seed=4, run_dir=Path("x")), "x/Corridor-v0/short/4"),
        (RunConfig(env="some.module:CartPole-v1", memory="mine:Window"), "runs/CartPole-v1/Window/0"),
    ],
)
def test_run_folder(config: RunConfig, folder: str) -> None:
    assert run_folder(config) == Path(folder)


def test_config_comes_back_from_its_folder(tmp_path: Path) -> None:
    save_config(TINY, tmp_path)
    loaded = load_config(tmp_path)
    assert dataclasses.replace(loaded, memory_kwargs=TINY.memory_kwargs) == TINY
    assert loaded.memory_kwargs["max_span"] == 256  # spelt out, so that a new default changes no old run
    with pytest.raises(ValueError, match="exists already"):
        save_config(TINY, tmp_path)


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a run folder: no config\.yaml in it"):
        load_config(tmp_path)
    for text in ("[1, 2]", "{", "gamma: 0.9\nlearning_rat: 1.0"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"config\.yaml"):
            load_config(tmp_path)


def test_missing_checkpoints(tmp_path: Path) -> None:
    save_config(TINY, tmp_path)
    with pytest.raises(ValueError, match="no checkpoint yet"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="no best checkpoint"):
        checkpoint_path(tmp_path, "best")
    with pytest.raises(ValueError, match="which='first'"):
        checkpoint_path(tmp_path, "first")  # type: ignore[arg-type]


# Presets


@pytest.mark.parametrize("env", preset_blocks())
def test_presets_are_valid(env: str) -> None:
    assert set(preset_blocks()[env]) <= {"default", *MEMORIES}
    for memory in MEMORIES:
        config = RunConfig(**preset(env, memory))
        check_config(config)
        assert config.env == env
        assert config.memory == memory


def test_presets_override_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = {
        "X-v0": {
            "default": {"gamma": 0.5, "n_steps": 7, "env_kwargs": {"a": 1, "b": 1}},
            "lstm": {"n_steps": 9, "env_kwargs": {"b": 2}},
        }
    }
    monkeypatch.setattr("memspan.runs.presets.preset_blocks", lambda: blocks)
    settings = preset("module:X-v0", "lstm")
    assert (settings["gamma"], settings["n_steps"], settings["n_epochs"]) == (0.5, 9, RunConfig.n_epochs)
    assert settings["env_kwargs"] == {"a": 1, "b": 2}
    assert preset("X-v0", "none")["n_steps"] == 7
    assert RunConfig(**preset("Other-v0", "none")) == RunConfig(env="Other-v0", memory="none")
    assert blocks["X-v0"]["default"]["env_kwargs"] == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("E-v0: {lstm: {learning_rat: 1.0}}", "E-v0: lstm: learning_rat=1.0"),
        ("E-v0: {default: {seed: 1}}", "E-v0: default: seed=1"),
    ],
)
def test_bad_presets_are_named(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_presets(tmp_path)


def test_one_file_per_environment(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("E-v0: {default: {gamma: 0.9}}")
    with pytest.raises(ValueError, match="another file"):
        read_presets(tmp_path)


# Flags


def test_find_flag() -> None:
    assert find_flag(["--a", "1", "--b=2", "--a=3"], "--a", "0") == "3"
    assert find_flag(["--b=2", "--a"], "--a", "0") == "0"


def test_flags_start_from_the_preset() -> None:
    config = parse(["--memory", "expire-span"], prog="memspan train")
    start = RunConfig(**preset("memspan/Corridor-v0", "expire-span"))
    assert dataclasses.replace(config, memory_kwargs=start.memory_kwargs) == start
    assert config.memory_kwargs.items() >= start.memory_kwargs.items()


def test_flags_of_environment_and_memory() -> None:
    flags = "--env=memspan/CorridorShuffled-v0 --memory=transformer-xl --memory.memory-size 9"
    more = "--env.max-length=7 --env.no-shuffle-doors --env.max-steps 30"
    config = parse(f"{flags} {more}".split(), prog="memspan train")
    assert config.env_kwargs == {"max_length": 7, "shuffle_doors": False, "max_steps": 30}
    assert config.memory_kwargs["memory_size"] == 9


# Environments


def test_own_environments_are_vector_engines() -> None:
    env = make_env(TINY, n_envs=3, seed=5)
    assert isinstance(env, VecEnvAdapter)
    assert type(env.env).__name__ == "CorridorVectorEnv"
    assert (env.num_envs, env.env.max_length) == (3, 5)


def test_foreign_environments_are_copies(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, env="MiniGrid-MemoryS7-v0", env_kwargs={})
    check_config(config)
    model = make_model(config, make_env(config))
    # The mission is text, and left out.
    assert set(model.observation_space.spaces) == {"image", "direction"}
    model.learn(2 * 8)
    path = tmp_path / "one.safetensors"
    save_checkpoint(model, config, path)
    assert load_checkpoint(make_model(config), config, path).timesteps == 16


def test_settings_of_environments() -> None:
    settings = environment_settings(environment_spec("minigrid:MiniGrid-MemoryS7-v0"))
    assert settings["size"].default == 7  # as registered, not as in the signature
    assert "render_mode" not in settings
    assert "CorridorShuffled-v0" in environment_spec("memspan/CorridorShuffled-v0").id


def test_id_in_a_module() -> None:
    config = dataclasses.replace(TINY, env="memspan:memspan/Corridor-v0")
    check_config(config)
    assert make_env(config).num_envs == 2


def test_near_ids_are_named() -> None:
    with pytest.raises(ValueError, match=r"env='CartPole-v9'.*CartPole-v1"):
        environment_spec("CartPole-v9")
    with pytest.raises(ValueError, match="memspan/Corridor-v0"):
        environment_spec("zzzzzzz")


def test_runs_with_seeds_side_by_side_share_no_episode() -> None:
    seeds = np.sort([spread_seed(seed) for seed in range(20)])
    assert np.diff(seeds).min() > 1000
    assert spread_seed(0) != spread_seed(0, 128)


# Checkpoints


@pytest.fixture(scope="module")
def learnt() -> Any:
    model = make_model(TINY)
    model.learn(2 * 8)
    return model


@pytest.mark.parametrize("memory", sorted(MEMORIES))
def test_checkpoints_come_back_equal(memory: str, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, memory=memory, memory_kwargs={"n_layers": 1}, width=8)
    model = make_model(config)
    model.learn(2 * 8)
    path = tmp_path / "a" / "one.safetensors"
    save_checkpoint(model, config, path, timesteps=8, score={"success_rate": 0.5})
    again = make_model(dataclasses.replace(config, seed=1))
    info = load_checkpoint(again, config, path)
    assert (info.timesteps, info.score) == (8, {"success_rate": 0.5})
    assert again.num_timesteps == 8
    for name, value in model.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], value), name
    old, new = (one.policy.optimizer.state_dict()["state"] for one in (model, again))
    assert old.keys() == new.keys()
    for index, values in old.items():
        for name, value in values.items():
            assert torch.equal(new[index][name], value)
    assert again.ep_success_buffer == model.ep_success_buffer
    assert [one["r"] for one in again.ep_info_buffer] == [one["r"] for one in model.ep_info_buffer]


def test_failed_write_leaves_the_old_file(
    learnt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one.safetensors"
    save_checkpoint(learnt, TINY, path)
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> None:
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(learnt, TINY, path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"memory": "lstm", "memory_kwargs": {}}, "memory='expire-span', here 'lstm'$"),
        ({"memory_kwargs": {"n_layers": 2, "n_heads": 2}}, "memory_kwargs.n_layers=1, here 2$"),
        ({"env": "memspan/CorridorShuffled-v0"}, "env='memspan/Corridor-v0', here"),
        ({"env_kwargs": {}}, "env_kwargs.max_length=5, here None"),
        ({"width": 32}, "width=16, here 32$"),
    ],
)
def test_checkpoint_of_other_settings(
    learnt: Any, change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "one.safetensors"
    save_checkpoint(learnt, TINY, path)
    other = dataclasses.replace(TINY, **change)
    with pytest.raises(ValueError, match=f"{path}.*{words}"):
        load_checkpoint(make_model(other), other, path)


def test_checkpoint_from_before_a_setting(learnt: Any, tmp_path: Path) -> None:
    """A memory's setting that it does not know had its default in effect."""
    path = tmp_path / "one.safetensors"

    def save_without(setting: str) -> None:
        save_checkpoint(learnt, TINY, path)
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        config = json.loads(metadata["config"])
        del config["memory_kwargs"][setting]
        metadata["config"] = json.dumps(config)
        save_file(tensors, path, metadata | {"sha256": digest(tensors, metadata)})

    save_without("copy_at_first")
    assert load_checkpoint(make_model(TINY), TINY, path).timesteps == learnt.num_timesteps
    save_without("n_layers")  # of which TINY has fewer than usual
    with pytest.raises(ValueError, match=r"made with other settings: memory_kwargs\.n_layers=2, here 1"):
        load_checkpoint(make_model(TINY), TINY, path)


def test_checkpoint_of_other_shapes(learnt: Any, tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save_checkpoint(learnt, TINY, path)
    # As if the environment had got another view since.
    model = make_model(
        dataclasses.replace(TINY, env_kwargs={"min_length": 4, "max_length": 5, "view_size": 5})
    )
    with pytest.raises(ValueError, match=r"features_extractor\.average has shape"):
        load_checkpoint(model, TINY, path)


def test_score() -> None:
    assert Score(0.5, 9.0).better_than(None)
    assert Score(0.6, 9.0).better_than(Score(0.5, 1.0))
    assert Score(0.5, 8.0).better_than(Score(0.5, 9.0))
    assert not Score(0.5, 9.0).better_than(Score(0.5, 9.0))


def test_numbers_on_the_display() -> None:
    assert [short_count(n) for n in (0, 12, 3450, 1.2e6)] == ["0", "12", "3.45k", "1.20M"]
    assert [short_time(s) for s in (None, 5, 65.9, 7265)] == ["-", "0:05", "1:05", "2:01:05"]


def test_gymnasium_without_vector_form_steps() -> None:
    class Two(gym.Env[Any, Any]):
        observation_space = gym.spaces.Box(-1, 1, (2,))
        action_space = gym.spaces.Discrete(2)

        def reset(self, **kwargs: Any) -> Any:
            return np.zeros(2, np.float32), {}

        def step(self, action: Any) -> Any:
            return np.zeros(2, np.float32), 1.0, True, False, {}

    gym.register("memspan-test/Two-v0", entry_point=Two)
    try:
        config = dataclasses.replace(TINY, env="memspan-test/Two-v0", env_kwargs={})
        model = make_model(config)
        model.learn(16)
        assert {one["r"] for one in model.ep_info_buffer} == {1.0}
    finally:
        del gym.registry["memspan-test/Two-v0"]
