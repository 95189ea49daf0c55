"""Actions that are not allowed are never taken, and the update computes what acting has stored."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
from test_rollouts import assert_ratio_is_one, away_from_first_values, collect

from memspan.agents import MaskedPredictor, MemoryA2C, MemoryPPO, VecEnvAdapter
from memspan.agents.base import MemoryAlgorithm
from memspan.agents.faults import EnvironmentFaultError
from memspan.agents.masks import choices, mask_logits

SMALL = {"width": 16, "net_arch": [8]}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
}


class Restricted(gym.Env[Any, Any]):
    """At every step other actions are allowed; whatever is not raises. Observations do not tell."""

    def __init__(self, actions: str = "discrete", dictionary: bool = False) -> None:
        self.action_space = copy.deepcopy(ACTIONS[actions])
        box = spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = spaces.Dict({"a": box, "b": spaces.Discrete(3)}) if dictionary else box
        self.started = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.started, self.steps = True, 0
        self._draw()
        return self.observation_space.sample(), {}

    def _draw(self) -> None:
        sizes = choices(self.action_space)
        parts = [self.np_random.random(size) < 0.5 for size in sizes]
        for part in parts:
            part[self.np_random.integers(len(part))] = True
        self.parts = parts

    def action_masks(self) -> np.ndarray:
        assert self.started, "before the first reset nothing is known"
        return np.concatenate(self.parts)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        for number, part in zip(np.ravel(action), self.parts, strict=True):
            if not part[int(number)]:
                raise AssertionError(f"{action} is not allowed")
        self.steps += 1
        self._draw()
        return self.observation_space.sample(), 1.0, self.steps == 5, False, {}


def ppo(env: Any, memory: str = "lstm", **kwargs: Any) -> MemoryPPO:
    settings = {"n_steps": 11, "seed": 0, "policy_kwargs": SMALL, "device": "cpu", "action_masks": True}
    return MemoryPPO("MultiInputPolicy", env, memory, **(settings | kwargs))


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("actions", ACTIONS)
def test_learning_takes_allowed_actions_only(actions: str, dictionary: bool) -> None:
    env = DummyVecEnv([lambda: Restricted(actions, dictionary)] * 3)
    model = ppo(env)
    away_from_first_values(model)
    for _ in range(2):
        collect(model)
        assert model.rollout_buffer.action_masks.shape == (11, 3, sum(choices(env.action_space)))
        assert_ratio_is_one(model)
        model.train()
    with pytest.raises(EnvironmentFaultError, match="is not allowed"):
        ppo(env, action_masks=False).learn(66)


def test_the_update_needs_the_masks() -> None:
    """Without them the ratio would not be 1: what the test above looks at depends on them."""
    model = ppo(DummyVecEnv([Restricted] * 3))
    collect(model)
    model.rollout_buffer.action_masks = None
    with pytest.raises(AssertionError, match="not close"):
        assert_ratio_is_one(model)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_masks_of_gymnasiums_vector_environments(mode: AutoresetMode) -> None:
    """They are those of the observation that is acted upon, however episodes start anew."""
    if mode == AutoresetMode.DISABLED:
        env = VecEnvAdapter(SyncVectorEnv([Restricted] * 2, autoreset_mode=mode))
    else:
        env = SyncVectorEnv([Restricted] * 2, autoreset_mode=mode)
    model = ppo(env)
    model.learn(66)
    assert len(model.ep_info_buffer) > 5


def test_other_agents_and_wrappers() -> None:
    env = VecNormalize(DummyVecEnv([Restricted] * 2))
    MemoryA2C("MlpPolicy", env, "none", n_steps=8, action_masks=True, policy_kwargs=SMALL).learn(32)
    ppo(Restricted()).learn(22)


def test_action_masker() -> None:
    """sb3-contrib's wrapper, for environments whose masks come from a function."""
    wrappers = pytest.importorskip("sb3_contrib.common.wrappers")

    class Plain(Restricted):
        action_masks = None  # type: ignore[assignment]

    ppo(wrappers.ActionMasker(Plain(), Restricted.action_masks)).learn(22)


@pytest.mark.slow
def test_masks_from_processes() -> None:
    env = SubprocVecEnv([Restricted] * 2, start_method="spawn")
    try:
        ppo(env).learn(44)
    finally:
        env.close()


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("actions", ACTIONS)
def test_predict(actions: str, deterministic: bool) -> None:
    env = Restricted(actions)
    model = ppo(env)
    away_from_first_values(model)
    observation, _ = env.reset(seed=0)
    state = None
    for _ in range(5):
        masks = env.action_masks()
        action, state = model.predict(observation, state, None, deterministic, action_masks=masks)
        observation = env.step(action)[0]
    batch = np.stack([observation] * 2)
    masks = np.stack([env.action_masks()] * 2)
    assert model.predict(batch, action_masks=masks)[0].shape == (2, *env.action_space.shape)


def test_saved_and_loaded(tmp_path: Any) -> None:
    model = ppo(Restricted())
    model.save(tmp_path / "model")
    loaded = MemoryPPO.load(tmp_path / "model", env=Restricted(), device="cpu")
    assert loaded.action_masks
    loaded.learn(22)


def test_evaluation_with_masks_remembers() -> None:
    """SB3's own function, with a model that asks for the masks, and whose memory is carried on."""
    env = DummyVecEnv([lambda: Monitor(Restricted())] * 2)
    model = ppo(env)
    states: list[Any] = []
    predict = model.policy.predict

    def spy(observation: Any, state: Any = None, *args: Any, **kwargs: Any) -> Any:
        states.append(state)
        return predict(observation, state, *args, **kwargs)

    model.policy.predict = spy  # type: ignore[method-assign]
    mean, _ = evaluate_policy(MaskedPredictor(model, env), env, n_eval_episodes=4)
    assert mean == 5
    assert states[0] is None
    assert all(state is not None for state in states[1:])
    with pytest.raises(AssertionError, match="is not allowed"):
        evaluate_policy(model, env, n_eval_episodes=20, deterministic=False)


def test_distributions() -> None:
    """Probabilities, log-probabilities and entropy, computed by hand; none is NaN."""
    model = ppo(Restricted())
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    masked = mask_logits(logits, torch.tensor([[True, False, True, False]]), spaces.Discrete(4))
    dist = model.policy.action_dist.proba_distribution(action_logits=masked)
    expected = torch.tensor([0.0, 2.0]).softmax(0)
    torch.testing.assert_close(dist.distribution.probs[0, [0, 2]], expected)
    assert dist.distribution.probs[0, [1, 3]].eq(0).all()
    torch.testing.assert_close(dist.entropy()[0], -(expected * expected.log()).sum())
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    assert torch.equal(mask_logits(logits, nothing, spaces.Discrete(4)), logits)


def test_gradients_are_finite() -> None:
    for name, space in ACTIONS.items():
        model = ppo(DummyVecEnv([lambda name=name: Restricted(name)]))
        logits = torch.zeros(1, len(space.sample()) if name == "multi-binary" else sum(choices(space)))
        masks = torch.zeros(1, sum(choices(space)), dtype=torch.bool)
        masks[:, 0] = True
        logits.requires_grad_()
        dist = model.policy.action_dist.proba_distribution(action_logits=mask_logits(logits, masks, space))
        (dist.entropy() + dist.log_prob(dist.sample())).sum().backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


class WithoutMasks(Restricted):
    action_masks = property()  # type: ignore[assignment]


@pytest.mark.parametrize("agent", [MemoryPPO, MemoryA2C])
def test_refused(agent: type[MemoryAlgorithm]) -> None:
    with pytest.raises(
        ValueError, match=r"^action_masks=True: the environments must have a method action_masks"
    ):
        agent("MlpPolicy", "CartPole-v1", "none", action_masks=True)
    with pytest.raises(ValueError, match="must be Discrete, MultiDiscrete or MultiBinary"):
        agent("MlpPolicy", "Pendulum-v1", "none", action_masks=True)
    model = ppo(Restricted())
    with pytest.raises(
        ValueError, match=r"action_masks has shape \(3,\): must be \(1, 4\), for Discrete\(4\)"
    ):
        model.predict(model.observation_space.sample(), action_masks=np.ones(3))


def test_masks_of_another_size_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ppo(Restricted())
    monkeypatch.setattr(Restricted, "action_masks", lambda self: np.ones(5))
    with pytest.raises(ValueError, match=r"^action_masks\(\) has 5 places: must have 4, for Discrete\(4\)"):
        model.learn(11)
