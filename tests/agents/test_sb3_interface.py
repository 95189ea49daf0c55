"""What a user of Stable-Baselines3 expects of an algorithm."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import MlpExtractor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)
from torch import nn
from toys import ACTIONS, MEMORIES, OBSERVATIONS, Toy, corridors

import memspan.envs  # noqa: F401  (registers ids)
from memspan.agents import MemoryA2C, MemoryPolicy, MemoryPPO, VecEnvAdapter
from memspan.agents.base import MemoryAlgorithm
from memspan.memory import clone_state

SMALL = {"width": 16, "net_arch": [8]}
AGENTS = [MemoryPPO, MemoryA2C]


def ppo(env: Any, memory: str = "transformer-xl", **kwargs: Any) -> MemoryPPO:
    settings: dict[str, Any] = {"n_steps": 8, "seed": 0, "policy_kwargs": SMALL, "device": "cpu"}
    return MemoryPPO("MemoryPolicy", env, memory, MEMORIES[memory], **(settings | kwargs))


def observe(space: gym.Space, n: int) -> Any:
    """A batch of observations."""
    samples = [space.sample() for _ in range(n)]
    if isinstance(space, gym.spaces.Dict):
        return {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}
    return np.stack(samples)


# predict


@pytest.mark.parametrize("memory", MEMORIES)
def test_predict_remembers(memory: str) -> None:
    """By the state that it is given, which it leaves as it is; rows start episodes on their own."""
    model = ppo(Toy(), memory)
    first, second = observe(model.observation_space, 3), observe(model.observation_space, 3)
    actions, state = model.predict(first)
    assert actions.shape == (3,)
    held = {key: value.clone() for key, value in state.items()}
    again = [model.predict(second, state, np.zeros(3, bool), deterministic=True) for _ in range(2)]
    np.testing.assert_array_equal(again[0][0], again[1][0])
    for key, value in state.items():
        assert torch.equal(value, held[key])
    # Where an episode starts, it is as if nothing had been.
    started = model.predict(second, state, np.array([True, False, True]), deterministic=True)[1]
    kept = model.predict(second, state, deterministic=True)[1]
    fresh = model.predict(second, deterministic=True)[1]
    third = observe(model.observation_space, 3)

    def values(state: Any) -> torch.Tensor:
        clone = {key: value.clone() for key, value in state.items()}
        with torch.no_grad():
            return model.policy.values_of(torch.as_tensor(third), clone, torch.zeros(3, dtype=torch.bool))

    torch.testing.assert_close(values(started)[[0, 2]], values(fresh)[[0, 2]])
    torch.testing.assert_close(values(started)[1], values(kept)[1])
    torch.testing.assert_close(values(again[0][1]), values(kept))
    if memory != "none":
        assert not torch.allclose(values(kept), values(fresh))


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("observations", ["vector", "discrete", "picture 36", "symbols 7", "dict"])
def test_predict_for_one_observation_and_for_many(observations: str, actions: str) -> None:
    env = Toy(observations, actions)
    model = ppo(env)
    env.observation_space.seed(0)
    single = env.observation_space.sample()
    action, state = model.predict(single)
    assert action in env.action_space
    action, state = model.predict(single, state, np.array([False]))
    assert action in env.action_space
    batch, _ = model.predict(observe(env.observation_space, 4))
    assert batch.shape == (4, *env.action_space.shape)
    assert all(action in env.action_space for action in batch)


def test_predict_draws_unless_told_otherwise() -> None:
    model = ppo(Toy())
    observation = observe(model.observation_space, 200)
    observation[:] = observation[0]
    torch.manual_seed(0)
    assert len(set(model.predict(observation)[0].tolist())) == 3
    assert len(set(model.predict(observation, deterministic=True)[0].tolist())) == 1


def test_predict_refuses_starts_of_other_rows() -> None:
    model = ppo(Toy())
    with pytest.raises(ValueError, match="episode_start has 2 rows: must have one per observation, 3"):
        model.predict(observe(model.observation_space, 3), None, np.array([True, False]))


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluate_policy(deterministic: bool) -> None:
    for env in (
        Monitor(Toy()),
        DummyVecEnv([lambda: Monitor(Toy())] * 2),
        VecEnvAdapter(corridors(4, max_steps=9)),
    ):
        model = ppo(env, "lstm")
        returns, lengths = evaluate_policy(
            model, env, n_eval_episodes=10, deterministic=deterministic, return_episode_rewards=True
        )
        assert len(returns) == len(lengths) == 10
        assert max(lengths) <= 9


def test_what_needs_a_state_says_so() -> None:
    model = ppo(Toy())
    observation = torch.zeros(1, 3)
    for call in (
        lambda: model.policy(observation),
        lambda: model.policy.predict_values(observation),
        lambda: model.policy.get_distribution(observation),
        lambda: model.policy.evaluate_actions(observation, torch.zeros(1)),
    ):
        with pytest.raises(NotImplementedError, match="needs its state"):
            call()


# learn


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_every_observation_is_learnt_from(observations: str, agent: type[MemoryAlgorithm]) -> None:
    memory, kwargs = "expire-span", MEMORIES["expire-span"]
    model = agent("MemoryPolicy", Toy(observations), memory, kwargs, n_steps=6, policy_kwargs=SMALL)
    model.learn(12)
    assert model.num_timesteps == 12


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("actions", ACTIONS)
def test_every_action_is_learnt(actions: str, agent: type[MemoryAlgorithm]) -> None:
    env = DummyVecEnv([lambda: Toy(actions=actions)] * 2)
    agent("MemoryPolicy", env, "lstm", n_steps=6, policy_kwargs=SMALL).learn(24)


@pytest.mark.parametrize("observations", ["vector", "picture 36", "dict"])
@pytest.mark.parametrize(
    "policy", ["MemoryPolicy", "MlpPolicy", "CnnPolicy", "MultiInputPolicy", MemoryPolicy]
)
def test_names_of_policies(policy: Any, observations: str) -> None:
    """The observation space decides, whatever the name; SB3 itself insists on one for dictionaries."""
    if observations == "dict" and policy in ("MlpPolicy", "CnnPolicy"):
        with pytest.raises(ValueError, match="You must use `MultiInputPolicy`"):
            MemoryPPO(policy, Toy(observations), policy_kwargs=SMALL)
        return
    model = MemoryPPO(policy, Toy(observations), n_steps=4, policy_kwargs=SMALL)
    assert type(model.policy) is MemoryPolicy
    model.learn(4)


def test_the_environment_can_be_an_id_or_a_vector_environment() -> None:
    model = MemoryPPO("MlpPolicy", "memspan/Corridor-v0", n_steps=4, policy_kwargs=SMALL)
    assert model.n_envs == 1
    model.learn(4)
    model = MemoryPPO("MlpPolicy", "CartPole-v1", "lstm", n_steps=4, policy_kwargs=SMALL)
    model.learn(4)
    model = ppo(corridors(3))
    assert isinstance(model.get_env(), VecEnvAdapter)
    model.learn(24)
    assert model.n_envs == 3


def test_environments_without_success() -> None:
    model = ppo(Toy(tells_success=False), memory_loss_gate=0.5)
    model.learn(32)
    assert len(model.ep_success_buffer) == 0
    assert len(model.ep_info_buffer) > 0
    assert model._memory_loss_coef() == 0


def test_learning_goes_on() -> None:
    model = ppo(corridors(2, max_steps=6))
    model.learn(32)
    assert (model.num_timesteps, model._n_updates) == (32, 6)
    last_obs = model._last_obs
    model.learn(16, reset_num_timesteps=False)
    assert (model.num_timesteps, model._n_updates) == (48, 9)
    assert model._last_obs is not last_obs
    model.learn(16)
    assert model.num_timesteps == 16


def test_learning_goes_on_with_what_is_remembered() -> None:
    """Episodes that are under way are not forgotten between two calls."""
    model = ppo(corridors(3, min_length=40, max_length=50))
    model.learn(24)
    remembered = clone_state(model.policy.memory.compact(model._memory_state))
    model.learn(24, reset_num_timesteps=False)
    for key, value in model.rollout_buffer.initial_state.items():
        assert torch.equal(value, remembered[key])
    assert not model.rollout_buffer.episode_starts[0].any()
    model.learn(24)
    assert model.rollout_buffer.episode_starts[0].all()


@pytest.mark.parametrize("agent", AGENTS)
def test_the_same_seed_gives_the_same_run(agent: type[MemoryAlgorithm]) -> None:
    runs = []
    for seed in 3, 3, 4:
        model = agent("MlpPolicy", corridors(2), "expire-span", n_steps=8, seed=seed, policy_kwargs=SMALL)
        model.learn(64)
        runs.append(torch.cat([p.detach().flatten() for p in model.policy.parameters()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_callbacks(tmp_path: Path) -> None:
    model = ppo(corridors(2, max_steps=6))
    evaluation = EvalCallback(
        VecEnvAdapter(corridors(2, max_steps=6)),
        n_eval_episodes=4,
        eval_freq=8,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path),
        verbose=0,
        warn=False,
    )
    checkpoints = CheckpointCallback(16, str(tmp_path / "checkpoints"))
    model.learn(64, callback=[evaluation, checkpoints], progress_bar=False)
    with np.load(tmp_path / "evaluations.npz") as found:
        assert found["results"].shape == (4, 4)
        assert "successes" in found
    assert (tmp_path / "best_model.zip").exists()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    model = ppo(corridors(2, max_steps=6))
    model.learn(10_000, callback=StopTrainingOnMaxEpisodes(3))
    assert model.num_timesteps < 1_000
    calls = []
    ppo(Toy()).learn(8, callback=lambda locals_, globals_: calls.append(locals_["rewards"]) or True)
    assert len(calls) == 8


def test_a_callback_can_stop_within_a_rollout() -> None:
    model = ppo(Toy())
    model.learn(100, callback=lambda locals_, globals_: model.num_timesteps < 3)
    assert model.num_timesteps == 3
    model.learn(16)


def test_loggers(tmp_path: Path) -> None:
    model = ppo(corridors(2, max_steps=6), "expire-span")
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(48)
    model.logger.close()
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert {
        "rollout/ep_rew_mean", "rollout/success_rate", "memory/effective_memory", "memory/capacity",
        "train/approx_kl", "train/memory_loss", "train/learning_rate",
    } <= set(header)  # fmt: skip


# Wrappers of SB3


def test_wrappers() -> None:
    def toys(**kwargs: Any) -> VecEnvAdapter:
        return VecEnvAdapter(
            SyncVectorEnv([lambda: Toy(**kwargs)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
        )

    normalised = VecNormalize(toys())
    ppo(normalised).learn(48)
    assert normalised.obs_rms.count > 48
    stacked = VecFrameStack(toys(), 4)
    model = ppo(stacked)
    model.learn(32)
    assert model.observation_space.shape == (12,)
    ppo(VecFrameStack(toys(observations="symbols 7"), 2)).learn(32)  # no symbols any more, nor a picture
    ppo(VecFrameStack(toys(observations="picture 36"), 2)).learn(32)
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        monitored = VecMonitor(toys())
    ppo(monitored).learn(32)


def test_axes_of_pictures_are_turned_and_those_of_symbols_are_not() -> None:
    for name, turned in ("picture 36", True), ("symbols 7", False), ("symbols 3", False), ("dict", False):
        model = ppo(Toy(name))
        assert isinstance(model.get_env(), VecTransposeImage) == turned
        if not turned:
            assert model.observation_space == OBSERVATIONS[name]
    chosen = VecTransposeImage(DummyVecEnv([lambda: Toy("picture 36")]))
    assert ppo(chosen).get_env() is chosen


# Saving


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("memory", MEMORIES)
def test_saved_and_loaded(memory: str, agent: type[MemoryAlgorithm], tmp_path: Path) -> None:
    """The same predictions, and learning goes on."""
    kwargs = MEMORIES[memory] | ({"span_learning_rate": 0.01} if memory == "expire-span" else {})
    settings: dict[str, Any] = {"n_steps": 8, "policy_kwargs": SMALL, "memory_loss_coef": 0.1}
    model = agent("MlpPolicy", corridors(2), memory, kwargs, seed=0, **settings)
    model.learn(48)
    model.save(tmp_path / "model")
    loaded = agent.load(tmp_path / "model", device="cpu")
    assert (loaded.memory, loaded.memory_kwargs) == (memory, kwargs)
    assert loaded.policy_kwargs == model.policy_kwargs
    observation = observe(model.observation_space, 20)
    state = loaded_state = None
    for _ in range(3):
        actions, state = model.predict(observation, state, deterministic=True)
        loaded_actions, loaded_state = loaded.predict(observation, loaded_state, deterministic=True)
        np.testing.assert_array_equal(actions, loaded_actions)
        for key, value in state.items():
            torch.testing.assert_close(value, loaded_state[key])
    groups = loaded.policy.optimizer.param_groups
    assert len(groups) == (2 if memory == "expire-span" else 1)
    assert len(loaded.policy.optimizer.state) == len(model.policy.optimizer.state) > 0
    loaded.set_env(corridors(2))
    loaded.learn(48, reset_num_timesteps=False)
    assert loaded.num_timesteps == 96
    if memory == "expire-span":
        assert groups[1]["lr"] == 0.01
    with_env = agent.load(tmp_path / "model", env=corridors(2))
    with_env.learn(16)


def test_the_policy_alone_can_be_saved(tmp_path: Path) -> None:
    model = ppo(Toy(), "expire-span")
    model.policy.save(tmp_path / "policy")
    policy = MemoryPolicy.load(tmp_path / "policy")
    observation = observe(model.observation_space, 5)
    np.testing.assert_array_equal(
        policy.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0]
    )


def test_another_environment() -> None:
    model = ppo(corridors(2))
    model.learn(16)
    model.set_env(corridors(2, max_length=9))
    model.learn(16, reset_num_timesteps=False)
    assert model.rollout_buffer.episode_starts[0].all()
    with pytest.raises(AssertionError, match="number of environments"):
        model.set_env(corridors(3))
    with pytest.raises(ValueError, match="spaces do not match"):
        model.set_env(SyncVectorEnv([Toy] * 2))


# Refused


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"memory": "elephant"}, "memory='elephant': unknown"),
        ({"memory": "lstm", "memory_kwargs": {"ramp": 5}}, "ramp=5: memory 'lstm' has no such setting"),
        ({"memory_kwargs": {"memory_size": 0}}, "memory_size=0: must be at least 1"),
        ({"memory_kwargs": {"n_heads": 3}}, "n_heads=3: must divide the width 64"),
        ({"policy_kwargs": {"use_sde": True}}, "use_sde"),
    ],
)
def test_bad_arguments(agent: type[MemoryAlgorithm], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        agent("MemoryPolicy", Toy(), **kwargs)


def test_unknown_arguments() -> None:
    with pytest.raises(TypeError, match="n_step"):
        MemoryPPO("MemoryPolicy", Toy(), n_step=5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="Policy RecurrentPolicy unknown"):
        MemoryPPO("RecurrentPolicy", Toy())


def test_success_is_counted_in_environments_made_by_sb3() -> None:
    """They come through SB3's Monitor, which knows nothing of `success`."""
    env = make_vec_env("memspan/Corridor-v0", 2, env_kwargs={"max_length": 3})
    model = MemoryPPO("MemoryPolicy", env, memory="none", n_steps=64, n_minibatches=1, device="cpu")
    model.learn(256)
    assert len(model.ep_success_buffer) == len(model.ep_info_buffer) > 0


@pytest.mark.parametrize("deterministic", [False, True])
def test_nan_has_no_action(deterministic: bool) -> None:
    model = MemoryPPO("MlpPolicy", "CartPole-v1", "lstm", n_steps=8, device="cpu")
    with pytest.raises((ValueError, RuntimeError), match="nan"):
        model.predict(np.full(4, np.nan, dtype=np.float32), deterministic=deterministic)


class Eager(MemoryPolicy):
    """Takes its last action nearly always, by a distribution of its own."""

    def _get_action_dist_from_latent(self, latent_pi, action_masks=None):
        distribution = super()._get_action_dist_from_latent(latent_pi, action_masks)
        eager = 0 * distribution.distribution.logits
        eager[..., -1] = 50.0
        return distribution.proba_distribution(eager)


class Doubling(MlpExtractor):
    """A network of the user's, with the names of SB3's."""

    def forward_actor(self, features):
        return 2 * super().forward_actor(features)


class OwnNetwork(MemoryPolicy):
    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = Doubling(self.features_dim, [8], nn.Tanh)


@pytest.mark.parametrize("n_rows", [1, 16])
def test_what_a_subclass_of_the_policy_changes_holds_in_acting(n_rows: int) -> None:
    model = MemoryPPO(Eager, "CartPole-v1", memory="none", n_steps=8, device="cpu")
    actions, _ = model.predict(np.zeros((n_rows, 4), np.float32))
    assert (actions == 1).all()
    policy = MemoryPPO(OwnNetwork, "CartPole-v1", memory="none", n_steps=8, device="cpu").policy
    observations = torch.randn(n_rows, 4)
    start, state = torch.zeros(n_rows, dtype=torch.bool), policy.memory.initial_state(n_rows)
    with torch.no_grad():
        acted = policy.act(observations, state, start)
        evaluated = policy.evaluate_block(observations[None], acted.actions[None], state, start[None])
    torch.testing.assert_close(acted.log_probs, evaluated.log_probs[0])
