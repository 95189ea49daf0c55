"""The windowed Transformer-XL of the benchmarks: a peer is only one if it does what it is measured for."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from memspan.runs import RunConfig, make_env

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
torch.set_num_threads(1)


@pytest.fixture
def windowed(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("windowed_trxl")
    sys.modules.pop("windowed_trxl", None)


def make(windowed, n_envs=6, max_length=6, **settings):
    torch.manual_seed(0)
    env = make_env(RunConfig(env_kwargs={"min_length": 3, "max_length": max_length}), n_envs=n_envs, seed=0)
    ppo = windowed.WindowedPPO(env, windowed.Settings(**settings))
    # Distributions that depend on what is remembered.
    torch.nn.init.orthogonal_(ppo.policy.actor[-1].weight, gain=3.0)
    return ppo


@pytest.mark.parametrize("window", [3, 20])
def test_what_was_acted_is_what_the_update_starts_from(windowed, window):
    ppo = make(windowed, n_steps=16, window=window, width=16)
    for _ in range(3):  # windows reach back into the rollouts before
        rollout = ppo.collect()
        log_probs, _, values = ppo.evaluate(rollout, torch.arange(16 * 6))
        torch.testing.assert_close(log_probs, rollout["log_probs"].flatten(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(values, rollout["values"].flatten(), atol=1e-5, rtol=1e-4)
        ppo.forget()
    assert ppo.episode_lengths, "no episode ended, so none has shown that windows stop at its start"


def test_a_window_is_the_last_steps_of_the_episode(windowed):
    ppo = make(windowed, n_steps=12, window=5, width=16)
    age = torch.zeros(ppo.n_rows, dtype=torch.long)
    for _ in range(3):
        rollout = ppo.collect()
        for t in range(12):
            age = torch.where(rollout["starts"][t], 0, age)
            assert rollout["readable"][t].sum(1).tolist() == age.clamp(max=5).tolist()
            age = age + 1
        ppo.forget()


def test_what_is_not_readable_changes_nothing_and_what_is_does(windowed):
    ppo = make(windowed, window=8, width=16, n_steps=4)
    rollout = ppo.collect()
    samples = torch.arange(3 * 6, 4 * 6)
    before = ppo.evaluate(rollout, samples)[2]
    readable = rollout["readable"][3]
    assert 0 < readable.sum() < readable.numel()
    ppo.stored[:, 3 : 3 + 8][~readable] += 100.0
    torch.testing.assert_close(ppo.evaluate(rollout, samples)[2], before)
    ppo.stored[:, 3 : 3 + 8][readable] = torch.randn(int(readable.sum()), 2, 16)
    assert ((ppo.evaluate(rollout, samples)[2] - before).abs() > 1e-4).any()


def test_advantages(windowed):
    ppo = make(windowed, n_envs=1, n_steps=3, gamma=0.5, gae_lambda=0.5, width=16, window=2)
    ppo.starts = torch.tensor([False])
    rollout = {
        "values": torch.tensor([[1.0], [2.0], [3.0]]),
        "rewards": torch.tensor([[0.0], [1.0], [0.0]]),
        "starts": torch.tensor([[True], [False], [True]]),
    }
    # t=2: 0 + 0.5 * 4 - 3 = -1;  t=1 ends: 1 - 2 = -1;  t=0: 0 + 0.5 * 2 - 1 + 0.25 * -1 = -0.25
    found = ppo._advantages(rollout, torch.tensor([4.0]))
    torch.testing.assert_close(found.flatten(), torch.tensor([-0.25, -1.0, -1.0]))


@pytest.mark.slow
def test_it_learns_a_short_corridor(windowed):
    torch.manual_seed(0)
    env = make_env(RunConfig(env_kwargs={"min_length": 5, "max_length": 10}), n_envs=32, seed=0)
    settings = windowed.Settings(n_steps=32, window=10, width=32, n_heads=2, learning_rate=2e-3)
    ppo = windowed.WindowedPPO(env, settings)
    for _ in range(80):
        ppo.update(ppo.collect())
        if len(ppo.success) >= 200 and sum(ppo.success[-200:]) > 190:
            break
    assert sum(ppo.success[-200:]) > 190  # 100 without memory
