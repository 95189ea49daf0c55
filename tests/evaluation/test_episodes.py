from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnvWrapper

from memspan.agents import MemoryPPO, VecEnvAdapter
from memspan.envs import (
    CorridorVectorEnv,
    InstructionVectorEnv,
    PortalVectorEnv,
    ScriptedInstructionPolicy,
    ScriptedPortalPolicy,
)
from memspan.evaluation import play_episodes
from memspan.evaluation.episodes import quotas
from memspan.memory import MemoryOutput

torch.set_num_threads(1)


class Sleeper(gym.vector.VectorEnv):
    """Row b's episodes last `lengths[b]` steps and succeed where `b` is odd."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, lengths, tells_success=True):
        self.num_envs = len(lengths)
        self.lengths = np.array(lengths)
        self.tells_success = tells_success
        self.single_observation_space = spaces.Box(-1, 1e6, (1,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = spaces.Box(-1, 1e6, (self.num_envs, 1), np.float32)
        self.action_space = spaces.MultiDiscrete([2] * self.num_envs)
        self.t = np.zeros(self.num_envs, dtype=int)

    def _obs(self):
        return self.t[:, None].astype(np.float32)

    def reset(self, *, seed=None, options=None):
        self.t[:] = 0
        return self._obs(), {}

    def step(self, actions):
        self.t += 1
        done = self.t >= self.lengths
        infos = {}
        if self.tells_success:
            infos["success"] = np.arange(self.num_envs) % 2 == 1
            infos["_success"] = np.ones(self.num_envs, dtype=bool)
        if done.any():
            infos |= {"final_obs": self._obs(), "_final_obs": done}
        self.t[done] = 0
        return self._obs(), np.ones(self.num_envs), done, np.zeros_like(done), infos


class Script:
    """Stands in for a policy: counts the steps of each episode in its memory, and acts by `choose`."""

    device = torch.device("cpu")

    def __init__(self, action_space, choose=lambda obs, memory: torch.zeros(len(obs), dtype=torch.long)):
        self.action_space = action_space
        self.choose = choose
        self.memory = SimpleNamespace(
            initial_state=lambda rows, device: {"steps": torch.full((rows, 1), torch.nan)}
        )
        self.deterministic = set()
        self.grad = set()

    def set_training_mode(self, mode):
        assert mode is False

    def act(self, obs, state, starts, deterministic):
        self.deterministic.add(deterministic)
        self.grad.add(torch.is_grad_enabled())
        steps = torch.where(starts[:, None], 0.0, state["steps"]) + 1
        out = MemoryOutput(obs, {"steps": steps}, stats={"effective_memory": steps[:, 0]})
        return SimpleNamespace(actions=self.choose(obs, steps[:, 0]), memory=out)


def test_quotas():
    assert quotas(10, 4).tolist() == [2, 2, 3, 3]
    assert quotas(2, 3).tolist() == [0, 1, 1]
    assert quotas(5, 1).tolist() == [5]
    for n in range(1, 40):
        assert quotas(n, 7).sum() == n
        assert np.ptp(quotas(n, 7)) <= 1
    with pytest.raises(ValueError, match=r"episodes=0: must be at least 1"):
        quotas(0, 4)


def test_short_episodes_are_not_preferred():
    env = VecEnvAdapter(Sleeper([1, 50]))
    told = []
    policy = Script(env.action_space)
    played = play_episodes(policy, env, 20, on_progress=told.append)
    assert sorted(played.lengths.tolist()) == [1] * 10 + [50] * 10
    assert sorted(played.returns.tolist()) == [1.0] * 10 + [50.0] * 10
    assert played.successes.mean() == 0.5
    assert told == sorted(told)
    assert told[-1] == 20
    assert policy.deterministic == {True}
    assert policy.grad == {False}


def test_memory_is_measured_on_counted_steps_only():
    env = VecEnvAdapter(Sleeper([1, 5]))
    played = play_episodes(Script(env.action_space), env, 4, deterministic=False)
    # Two episodes of 1 step and two of 5: memories 1, 1, 1..5, 1..5. Row 0 goes on for 8 steps uncounted.
    assert played.effective_memory == pytest.approx((1 + 1 + 15 + 15) / 12)
    assert played.peak_memory == 5
    assert played.state_bytes == 4
    assert played.steps_per_second > 0


def test_rows_without_quota_do_not_count():
    env = VecEnvAdapter(Sleeper([1, 1, 4]))
    played = play_episodes(Script(env.action_space), env, 1)
    assert played.lengths.tolist() == [4]
    assert played.effective_memory == 2.5


def test_without_success():
    env = VecEnvAdapter(Sleeper([2, 3], tells_success=False))
    played = play_episodes(Script(env.action_space), env, 4)
    assert played.successes is None
    assert played.trials is None


class Halved(VecEnvWrapper):
    """Rewards as a wrapper for training may scale them."""

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        obs, rewards, dones, infos = self.venv.step_wait()
        return obs, rewards / 2, dones, infos


def test_scripted_corridor_through_wrappers():
    engine = CorridorVectorEnv(8, min_length=3, max_length=9)

    def go(obs, memory):
        # At the last cell both doors are in sight, above and below. The door above is red, always.
        at_end = obs[:, 1, 0, 0] == 4
        return torch.where(at_end, 3, 0)

    env = Halved(VecEnvAdapter(engine))
    env.seed(5)
    played = play_episodes(Script(env.action_space, go), env, 200)
    assert played.trials.difficulty == "length"
    assert np.array_equal(played.trials.values, played.lengths)
    assert set(played.trials.values.tolist()) == set(range(3, 10))
    assert np.array_equal(played.trials.successes, played.successes)
    assert 0.35 < played.successes.mean() < 0.65
    assert np.array_equal(played.returns, played.successes)


def test_agent_on_another_environment():
    env = make_vec_env("Pendulum-v1", n_envs=2, wrapper_class=lambda e: gym.wrappers.TimeLimit(e, 5))
    model = MemoryPPO("MlpPolicy", env, memory="transformer-xl", memory_kwargs={"memory_size": 3}, n_steps=8)
    played = play_episodes(model.policy, env, 3)
    assert played.lengths.tolist() == [5, 5, 5]
    assert played.successes is None
    assert played.peak_memory <= model.policy.memory.capacity


def scripted(env, policy):
    """`policy`, whose episodes start where its memory counts the first step."""

    def choose(obs, steps):
        return torch.as_tensor(policy.act(obs.numpy(), (steps == 1).numpy()))

    return Script(env.action_space, choose)


def test_delays_of_instructions():
    engine = InstructionVectorEnv(8, num_instructions=3)
    env = VecEnvAdapter(engine)
    env.seed(1)
    horizon = 25
    played = play_episodes(scripted(env, ScriptedInstructionPolicy(4, horizon)), env, 300)
    trials = played.trials
    assert trials.difficulty == "delay"
    assert trials.values.min() >= engine.parameters.min_delay
    # Not all and not none: who has forgotten the oldest takes the next one, which may be the same.
    assert trials.successes[trials.values <= horizon].mean() > 0.97
    assert 0 < trials.successes[trials.values > horizon].mean() < 0.1
    # An episode fails at its first wrong moment, and only there: three in a row make a success.
    assert (~trials.successes).sum() == (~played.successes).sum()
    assert trials.successes.sum() >= 3 * played.successes.sum()


def test_rooms():
    env = VecEnvAdapter(PortalVectorEnv(8, num_rooms=5))
    env.seed(1)
    played = play_episodes(scripted(env, ScriptedPortalPolicy(horizon=8)), env, 300)
    trials = played.trials
    assert trials.difficulty == "room"
    assert set(trials.values.tolist()) == {1, 2, 3, 4}
    attempts = [int((trials.values == room).sum()) for room in range(1, 5)]
    assert attempts[0] == 300
    passed = [int(trials.successes[trials.values == room].sum()) for room in range(1, 5)]
    assert passed == [*attempts[1:], int(played.successes.sum())]
    assert passed[0] > passed[3] > 0
