"""What Stable-Baselines3 promises of its on-policy algorithms; docs/stable-baselines3.md has the table.

`test_sb3_interface.py` has the rest: predict, spaces, wrappers, what is refused.
"""

import io
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import CSVOutputFormat, HumanOutputFormat, Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecExtractDictObs,
    VecNormalize,
    VecTransposeImage,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from toys import Toy

from memspan.agents import MemoryA2C, MemoryPolicy, MemoryPPO
from memspan.agents.base import MemoryAlgorithm

SMALL = {"width": 16, "net_arch": [8]}
AGENTS = [MemoryPPO, MemoryA2C]


def toys(n_envs: int, **kwargs: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: Monitor(Toy(**kwargs))] * n_envs)


def ppo(env: Any, memory: str = "lstm", **kwargs: Any) -> MemoryPPO:
    settings: dict[str, Any] = {"n_steps": 8, "seed": 0, "policy_kwargs": SMALL, "device": "cpu"}
    return MemoryPPO("MultiInputPolicy", env, memory, **(settings | kwargs))


def parameters(model: MemoryAlgorithm) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in model.policy.parameters()])


def test_every_row_of_the_page_names_tests_that_there_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "stable-baselines3.md").read_text(encoding="utf-8")
    files = {
        name: (Path(__file__).parents[2] / path).read_text(encoding="utf-8")
        for name, path in re.findall(r"\*(\w+)\*[^`*]*`(tests/[\w/]+\.py)`", page)
    }
    assert set(files) == {"interface", "parity", "masks", "rollouts"}
    rows = [
        line
        for line in page.splitlines()
        if line.startswith("|") and not line.startswith(("| of SB3", "|--"))
    ]
    assert len(rows) > 25
    for row in rows:
        named = re.findall(r"(\w+): ((?:`test_\w+`(?:, )?)+)", row.split("|")[3])
        assert named, row
        for file, tests in named:
            for test in re.findall(r"test_\w+", tests):
                assert f"def {test}(" in files[file], test


# Saving and loading


@pytest.mark.parametrize("n_envs", [1, 5])
def test_load_with_another_number_of_environments(n_envs: int, tmp_path: Path) -> None:
    model = ppo(toys(2), "expire-span")
    model.learn(32)
    model.save(tmp_path / "model")
    loaded = MemoryPPO.load(tmp_path / "model", env=toys(n_envs), device="cpu")
    assert loaded.n_envs == n_envs
    assert torch.equal(parameters(loaded), parameters(model))
    loaded.learn(8 * n_envs, reset_num_timesteps=False)
    assert loaded.num_timesteps == 32 + 8 * n_envs
    assert loaded.rollout_buffer.values.shape == (8, n_envs)
    assert not torch.equal(parameters(loaded), parameters(model))


def test_without_environment(tmp_path: Path) -> None:
    """A loaded agent acts without one, and learns as soon as it has one."""
    model = ppo(toys(2))
    model.save(tmp_path / "model")
    loaded = MemoryPPO.load(tmp_path / "model", device="cpu")
    assert loaded.get_env() is None
    observation = model.observation_space.sample()
    action, state = loaded.predict(observation, deterministic=True)
    assert action == model.predict(observation, deterministic=True)[0]
    loaded.predict(observation, state, np.array([False]))
    with pytest.raises(AssertionError):
        loaded.learn(8)
    loaded.set_env(toys(2))
    loaded.learn(16)
    untrained = MemoryPPO("MlpPolicy", None, "lstm", _init_setup_model=False)
    assert untrained.get_env() is None


def test_where_to_save(tmp_path: Path) -> None:
    model = ppo(Toy())
    stream = io.BytesIO()
    model.save(stream)
    stream.seek(0)
    model.save(str(tmp_path / "a"), exclude=["ep_info_buffer"])
    for source in (stream, str(tmp_path / "a"), tmp_path / "a.zip"):
        loaded = MemoryPPO.load(source, device="cpu", custom_objects={"learning_rate": 0.5})
        assert torch.equal(parameters(loaded), parameters(model))
        assert loaded.learning_rate == 0.5
    with pytest.raises(ValueError, match=r"policy_kwargs=.*must be as stored"):
        MemoryPPO.load(tmp_path / "a", policy_kwargs={"width": 8})
    changed = MemoryPPO.load(tmp_path / "a", n_steps=3, env=Toy(), device="cpu")
    changed.learn(3)
    assert changed.rollout_buffer.buffer_size == 3


@pytest.mark.parametrize("agent", AGENTS)
def test_get_and_set_parameters(agent: type[MemoryAlgorithm], tmp_path: Path) -> None:
    first, second = (
        agent("MlpPolicy", toys(2), "expire-span", n_steps=8, seed=seed, policy_kwargs=SMALL, device="cpu")
        for seed in (0, 1)
    )
    first.learn(16)
    found = first.get_parameters()
    assert set(found) == {"policy", "policy.optimizer"}
    assert not torch.equal(parameters(first), parameters(second))
    second.set_parameters(found)
    assert torch.equal(parameters(first), parameters(second))
    assert len(second.policy.optimizer.state) == len(first.policy.optimizer.state)
    first.save(tmp_path / "model")
    third = agent("MlpPolicy", toys(3), "expire-span", n_steps=8, policy_kwargs=SMALL, device="cpu")
    third.set_parameters(tmp_path / "model")
    assert torch.equal(parameters(first), parameters(third))
    with pytest.raises(ValueError, match="not_a_part"):
        second.set_parameters({"not_a_part": {}})
    with pytest.raises(ValueError, match=r"policy\.optimizer"):
        second.set_parameters({"policy": found["policy"]})
    second.set_parameters({"policy": found["policy"]}, exact_match=False)
    smaller = {name: value for name, value in found["policy"].items() if name != "embed.bias"}
    with pytest.raises(RuntimeError, match=r"embed\.bias"):
        second.set_parameters({"policy": smaller, "policy.optimizer": found["policy.optimizer"]})


# Schedules and limits of an update


def logged(model: MemoryAlgorithm, timesteps: int) -> list[dict[str, float]]:
    """What each update has recorded."""
    records: list[dict[str, float]] = []

    class Keep(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            records.append(dict(self.logger.name_to_value))

        def _on_training_end(self) -> None:
            records.append(dict(self.logger.name_to_value))

    model.learn(timesteps, callback=Keep())
    return [one for one in records if "train/loss" in one or "train/value_loss" in one]


@pytest.mark.parametrize("agent", AGENTS)
def test_learning_rate_is_a_schedule(agent: type[MemoryAlgorithm], tmp_path: Path) -> None:
    model = agent(
        "MlpPolicy",
        Toy(),
        "lstm",
        learning_rate=LinearSchedule(0.4, 0.0, 1.0),
        n_steps=8,
        policy_kwargs=SMALL,
    )
    # Each update takes the progress at its rollout's end, as SB3's algorithms do.
    rates = [one["train/learning_rate"] for one in logged(model, 32)]
    np.testing.assert_allclose(rates, [0.3, 0.2, 0.1, 0.0], atol=1e-6)
    assert model.policy.optimizer.param_groups[0]["lr"] == pytest.approx(0)
    model.save(tmp_path / "model")
    assert agent.load(tmp_path / "model").lr_schedule(0.5) == pytest.approx(0.2)
    model = agent("MlpPolicy", Toy(), "lstm", learning_rate=lambda left: left / 8, n_steps=8)
    model.save(tmp_path / "model")
    # Functions are code, and no code is stored.
    with pytest.raises(ValueError, match="learning_rate was a function, which is not saved"):
        agent.load(tmp_path / "model")
    loaded = agent.load(tmp_path / "model", learning_rate=lambda left: left / 8)
    assert loaded.lr_schedule(0.5) == pytest.approx(1 / 16)


def test_clip_ranges_are_schedules(tmp_path: Path) -> None:
    def of_progress(left: float) -> float:
        return 0.1 + left

    model = ppo(Toy(), clip_range=of_progress, clip_range_vf=of_progress)
    np.testing.assert_allclose([one["train/clip_range"] for one in logged(model, 16)], [0.6, 0.1])
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="clip_range was a function, which is not saved"):
        MemoryPPO.load(tmp_path / "model", env=Toy())
    functions = {"clip_range": of_progress, "clip_range_vf": of_progress}
    loaded = MemoryPPO.load(tmp_path / "model", env=Toy(), **functions)
    assert loaded.clip_range(0.5) == loaded.clip_range_vf(0.5) == pytest.approx(0.6)
    loaded.learn(8)


def test_clipped_values_change_the_update() -> None:
    runs = []
    for clip_range_vf in (None, 1e-6):
        model = ppo(Toy(), clip_range_vf=clip_range_vf)
        model.learn(16)
        runs.append(model.policy.value_net.weight.detach())
    assert not torch.allclose(runs[0], runs[1])


def test_target_kl_stops_an_update() -> None:
    """Of five epochs only the first is begun where hardly any change is allowed."""
    runs = {}
    for target_kl in (None, 1e-9):
        model = ppo(toys(2), target_kl=target_kl, n_epochs=5, learning_rate=0.05, n_minibatches=1)
        model.learn(16)
        runs[target_kl] = model._n_updates
    assert runs == {None: 5, 1e-9: 2}


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("name", ["use_sde", "batch_size", "rollout_buffer_class", "rollout_buffer_kwargs"])
def test_arguments_that_there_are_not(name: str, agent: type[MemoryAlgorithm]) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        agent("MlpPolicy", Toy(actions="box"), "lstm", **{name: True})


# VecNormalize


def test_normalised_environments_are_saved_and_loaded(tmp_path: Path) -> None:
    env = VecNormalize(toys(2))
    model = ppo(env)
    assert model.get_vec_normalize_env() is env
    model.learn(64)
    model.save(tmp_path / "model")
    env.save(str(tmp_path / "statistics.pkl"))
    again = VecNormalize.load(str(tmp_path / "statistics.pkl"), toys(3))
    again.training, again.norm_reward = False, False
    np.testing.assert_array_equal(again.obs_rms.mean, env.obs_rms.mean)
    loaded = MemoryPPO.load(tmp_path / "model", env=again, device="cpu")
    assert loaded.get_vec_normalize_env() is again
    evaluate_policy(loaded, again, n_eval_episodes=3)
    np.testing.assert_array_equal(again.obs_rms.mean, env.obs_rms.mean)


def test_evaluation_takes_over_the_statistics_of_training(tmp_path: Path) -> None:
    training, evaluation = VecNormalize(toys(2)), VecNormalize(toys(1), training=False, norm_reward=False)
    model = ppo(training)
    model.learn(32, callback=EvalCallback(evaluation, n_eval_episodes=2, eval_freq=16, verbose=0))
    np.testing.assert_array_equal(evaluation.obs_rms.mean, training.obs_rms.mean)
    checkpoints = CheckpointCallback(8, str(tmp_path), save_vecnormalize=True)
    model.learn(16, callback=checkpoints)
    assert {path.suffix for path in tmp_path.iterdir()} == {".zip", ".pkl"}


# Callbacks


def test_stop_at_a_reward(tmp_path: Path) -> None:
    def stopped(threshold: float) -> int:
        evaluation = EvalCallback(
            toys(1),
            callback_on_new_best=StopTrainingOnRewardThreshold(threshold, verbose=0),
            best_model_save_path=str(tmp_path),
            eval_freq=8,
            n_eval_episodes=2,
            verbose=0,
        )
        model = ppo(Toy())
        model.learn(40, callback=evaluation)
        return model.num_timesteps

    assert stopped(-1e9) == 8
    assert stopped(1e9) == 40
    best = MemoryPPO.load(tmp_path / "best_model", env=Toy(), device="cpu")
    evaluate_policy(best, best.get_env(), n_eval_episodes=1)


def test_stop_without_improvement() -> None:
    patience = StopTrainingOnNoModelImprovement(max_no_improvement_evals=2, min_evals=0, verbose=0)
    evaluation = EvalCallback(
        toys(1), callback_after_eval=patience, eval_freq=4, n_eval_episodes=1, verbose=0
    )
    model = ppo(Toy(), learning_rate=0.0)
    model.learn(1_000, callback=evaluation)
    assert model.num_timesteps < 1_000


class Count(BaseCallback):
    """Counts what it is told of, and keeps what an algorithm of SB3 shows of every step."""

    SHOWN = (
        "actions",
        "clipped_actions",
        "new_obs",
        "rewards",
        "dones",
        "infos",
        "n_steps",
        "values",
        "log_probs",
    )

    def __init__(self) -> None:
        super().__init__()
        self.calls = dict.fromkeys(("training", "rollout", "step", "rollout end", "training end"), 0)

    def _on_training_start(self) -> None:
        self.calls["training"] += 1

    def _on_rollout_start(self) -> None:
        self.calls["rollout"] += 1

    def _on_step(self) -> bool:
        self.calls["step"] += 1
        missing = [name for name in self.SHOWN if name not in self.locals]
        assert not missing, missing
        assert len(self.locals["values"]) == len(self.locals["log_probs"]) == self.training_env.num_envs
        return True

    def _on_rollout_end(self) -> None:
        self.calls["rollout end"] += 1

    def _on_training_end(self) -> None:
        self.calls["training end"] += 1


@pytest.mark.parametrize("agent", AGENTS)
def test_when_callbacks_are_called(agent: type[MemoryAlgorithm]) -> None:
    count, within, every = Count(), Count(), Count()
    model = agent("MlpPolicy", toys(2, actions="box"), "lstm", n_steps=4, policy_kwargs=SMALL)
    model.learn(24, callback=[CallbackList([count, within]), EveryNTimesteps(8, every)], progress_bar=False)
    assert count.calls == {"training": 1, "rollout": 3, "step": 12, "rollout end": 3, "training end": 1}
    assert within.calls == count.calls
    assert every.calls["step"] == 3
    assert count.num_timesteps == 24


# Logs


def test_tables_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """All is there, and no two names are cut to the same."""
    model = ppo(toys(2), "expire-span", verbose=1, prediction_coef=0.1, outcome_coef=0.1)
    model.learn(48, log_interval=1)
    printed = capsys.readouterr().out
    for name in (
        "ep_rew_mean", "ep_len_mean", "success_rate", "fps", "iterations", "total_timesteps", "approx_kl",
        "clip_fraction", "clip_range", "entropy_loss", "explained_variance", "learning_rate", "n_updates",
        "policy_gradient_loss",        "value_loss", "effective_memory",
    ):  # fmt: skip
        assert f"    {name} " in printed, name


@pytest.mark.parametrize("interval", [1, 2])
def test_csv_and_table_hold_the_same(interval: int, tmp_path: Path) -> None:
    table = io.StringIO()
    csv = tmp_path / "progress.csv"
    model = ppo(toys(2))
    model.set_logger(Logger(None, [HumanOutputFormat(table), CSVOutputFormat(str(csv))]))
    model.learn(64, log_interval=interval)
    model.logger.close()
    rows = csv.read_text().splitlines()
    assert len(rows) == 1 + 4 // interval
    for name in rows[0].split(","):
        assert name.split("/")[1][:20] in table.getvalue(), name


def test_tensorboard(tmp_path: Path) -> None:
    model = ppo(toys(2), tensorboard_log=str(tmp_path))
    model.learn(32, tb_log_name="run")
    model.learn(32, tb_log_name="run", reset_num_timesteps=False)
    model.learn(32, tb_log_name="run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run_1", "run_2"]
    events = EventAccumulator(str(tmp_path / "run_1")).Reload()
    found = events.Tags()["scalars"]
    assert {"rollout/ep_rew_mean", "time/fps", "train/value_loss", "memory/effective_memory"} <= set(found)
    assert [one.step for one in events.Scalars("memory/effective_memory")] == [16, 32, 48, 64]


# Observations, actions, networks


class Dropping(BaseFeaturesExtractor):
    """Random while learning, and not while acting."""

    def __init__(self, observation_space: gym.Space, features_dim: int = 8) -> None:
        super().__init__(observation_space, features_dim)
        self.linear = nn.Sequential(nn.Linear(3, features_dim), nn.Dropout(0.5))
        self.modes: list[bool] = []

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        self.modes.append(self.training)
        return self.linear(observations)


def test_acting_is_in_evaluation_mode() -> None:
    kwargs = SMALL | {"features_extractor_class": Dropping, "features_extractor_kwargs": {"features_dim": 6}}
    model = ppo(Toy(actions="box"), policy_kwargs=kwargs)
    assert model.policy.features_extractor.features_dim == 6
    model.learn(16)
    # Twice 8 steps and the values of what follows, then an update of 3 epochs of one minibatch.
    modes = [(mode, len(list(same))) for mode, same in groupby(model.policy.features_extractor.modes)]
    assert [mode for mode, _ in modes] == [False, True, False, True]
    assert [n for mode, n in modes if mode] == [3, 3]
    assert all(n >= 9 for mode, n in modes if not mode)
    assert model.policy.training
    observation = model.observation_space.sample()
    actions = [model.predict(observation, deterministic=True)[0] for _ in range(5)]
    assert all(np.array_equal(actions[0], action) for action in actions)
    assert not model.policy.training


def test_pictures() -> None:
    """Pixels go through NatureCNN, channels first, divided by 255 unless told otherwise."""
    picture = Toy("picture 64").observation_space.sample()
    turned = torch.as_tensor(picture).permute(2, 0, 1)[None]
    for normalise, expected in (True, turned / 255), (False, turned.float()):
        seen: list[torch.Tensor] = []
        model = ppo(Toy("picture 64"), policy_kwargs=SMALL | {"normalize_images": normalise})
        assert isinstance(model.get_env(), VecTransposeImage)
        assert isinstance(model.policy.features_extractor, NatureCNN)
        model.policy.features_extractor.register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(inputs[0])
        )
        model.predict(picture)  # as the environment shows it: channels last
        torch.testing.assert_close(seen[0], expected)
    floats = Toy()
    floats.observation_space = spaces.Box(0, 1, (3, 40, 40), np.float32)
    kwargs = {"normalize_images": False, "features_extractor_class": NatureCNN}
    model = ppo(floats, policy_kwargs=SMALL | kwargs)
    assert isinstance(model.policy.features_extractor, NatureCNN)
    model.learn(8)


def test_settings_of_the_policy(tmp_path: Path) -> None:
    kwargs = {
        "width": 16,
        "net_arch": {"pi": [4], "vf": [6, 5]},
        "activation_fn": nn.ReLU,
        "ortho_init": False,
        "log_std_init": -2.0,
        "optimizer_class": torch.optim.SGD,
        "optimizer_kwargs": {"momentum": 0.5},
    }
    model = ppo(Toy(actions="box"), policy_kwargs=kwargs)
    model.save(tmp_path / "model")
    for one in (model, MemoryPPO.load(tmp_path / "model", env=Toy(actions="box"), device="cpu")):
        assert one.policy.value_net.in_features == 5
        assert isinstance(one.policy.mlp_extractor.policy_net[1], nn.ReLU)
        assert one.policy.log_std.eq(-2).all()
        assert isinstance(one.policy.optimizer, torch.optim.SGD)
        assert one.policy.optimizer.param_groups[0]["momentum"] == 0.5
        one.learn(8)


class OwnPolicy(MemoryPolicy):
    """A policy of the user's."""


def test_policies_of_ones_own(tmp_path: Path) -> None:
    model = MemoryPPO(OwnPolicy, Toy(), "lstm", n_steps=4, policy_kwargs=SMALL)
    model.save(tmp_path / "model")
    assert type(MemoryPPO.load(tmp_path / "model").policy) is OwnPolicy
    with pytest.raises(ValueError, match=r"^policy=ActorCriticPolicy: must be a MemoryPolicy"):
        MemoryPPO(ActorCriticPolicy, Toy(), "lstm")


def test_two_extractors_are_refused() -> None:
    """The memory has one input; actor and critic cannot have features of their own before it."""
    with pytest.raises(ValueError, match="share_features_extractor=False: "):
        ppo(Toy(), policy_kwargs={"share_features_extractor": False})


def test_spaces_that_are_refused() -> None:
    for space, message in (
        (spaces.Tuple([spaces.Discrete(2)]), "only supports"),
        (spaces.Dict({"a": spaces.Discrete(2)}), "only supports"),
        (spaces.Box(-np.inf, np.inf, (2,), np.float32), "finite lower and upper bound"),
    ):
        env = Toy()
        env.action_space = space
        with pytest.raises(AssertionError, match=message):
            ppo(env)
    env = Toy()
    env.observation_space = spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})})
    with pytest.raises(NotImplementedError, match="Nested observation spaces"):
        ppo(env)


def test_more_wrappers() -> None:
    ppo(VecCheckNan(toys(2), raise_exception=True)).learn(16)
    ppo(VecExtractDictObs(toys(2, observations="dict"), "compass")).learn(16)
    ppo(VecNormalize(toys(2, observations="dict"), norm_obs_keys=["compass"])).learn(16)
    ppo(make_vec_env("CartPole-v1", 2), "transformer-xl").learn(16)


# Seeds


@pytest.mark.parametrize("agent", AGENTS)
def test_a_seed_can_be_set_later(agent: type[MemoryAlgorithm]) -> None:
    """What is drawn, by agent and environments, follows from it."""
    runs = []
    for seed in (5, 5, 6):
        env = toys(2)
        model = agent("MlpPolicy", env, "lstm", n_steps=8, seed=0, policy_kwargs=SMALL, device="cpu")
        model.set_random_seed(seed)
        model.learn(32)
        runs.append((parameters(model), model.rollout_buffer.observations.copy()))
    assert torch.equal(runs[0][0], runs[1][0])
    np.testing.assert_array_equal(runs[0][1], runs[1][1])
    assert not np.array_equal(runs[0][1], runs[2][1])


@pytest.mark.parametrize("agent", AGENTS)
def test_learning_in_two_parts_is_counted_as_one(agent: type[MemoryAlgorithm]) -> None:
    model = agent("MlpPolicy", toys(2), "lstm", n_steps=4, policy_kwargs=SMALL)
    model.learn(16)
    last = len(model.ep_info_buffer)
    for total in (24, 32):
        model.learn(8, reset_num_timesteps=False)
        assert model.num_timesteps == total
        assert model._total_timesteps == total
    assert len(model.ep_info_buffer) >= last
    assert 0 <= model._current_progress_remaining < 1
