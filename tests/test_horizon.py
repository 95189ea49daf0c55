import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import obs_as_tensor

from memspan import cli
from memspan.agents import MemoryPPO, VecEnvAdapter
from memspan.envs import CorridorVectorEnv
from memspan.evaluation import horizon
from memspan.evaluation.horizon import Horizon, WindowedPolicy, find_horizon
from memspan.evaluation.occlusion import occlude
from memspan.runs import load_model
from tests.agents.toys import MEMORIES
from tests.test_evaluate import make_run

torch.set_num_threads(1)


def make_policy(memory, n_envs=3, length=6):
    env = VecEnvAdapter(CorridorVectorEnv(n_envs, min_length=3, max_length=length))
    policy = MemoryPPO(
        "MemoryPolicy", env, memory=memory, memory_kwargs=MEMORIES[memory], n_steps=4, seed=1
    ).policy
    policy.set_training_mode(False)
    return policy, env


def features_of(policy, env, n_steps, n_rows=3):
    """Of an agent that takes the same random steps whatever it thinks."""
    rng = np.random.default_rng(0)
    state = policy.memory.initial_state(n_rows)
    env.seed(3)
    observations, starts, seen = env.reset(), np.ones(n_rows, dtype=bool), []
    with torch.no_grad():
        for _ in range(n_steps):
            acted = policy.act(obs_as_tensor(observations, "cpu"), state, torch.as_tensor(starts))
            state = acted.memory.state
            seen.append(acted.memory.features)
            observations, _, starts, _ = env.step(rng.integers(0, 4, n_rows))
    return torch.stack(seen)


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_long_window_is_the_whole_past(memory):
    policy, env = make_policy(memory)
    whole = features_of(policy, env, 25)
    windowed = features_of(WindowedPolicy(policy, 25), env, 25)
    assert torch.allclose(whole, windowed, atol=1e-4)


def test_a_short_window_is_all_that_counts():
    policy, _ = make_policy("lstm")
    windowed = WindowedPolicy(policy, 2)
    observations = torch.randint(0, 5, (6, 3, 3, 3, 3), dtype=torch.uint8)

    def last(observations, start_at=None):
        state = windowed.memory.initial_state(3)
        with torch.no_grad():
            for t, seen in enumerate(observations):
                out = windowed.act(seen, state, torch.full((3,), t in (0, start_at)))
                state = out.memory.state
        return out.memory.features

    usual = last(observations)
    for step, matters in enumerate((False, False, False, True, True, True)):
        other = observations.clone()
        other[step] = 7
        assert torch.equal(usual, last(other)) != matters, step
    # An episode that started within the window hides what was before.
    started = last(observations, start_at=4)
    other = observations.clone()
    other[3] = 7
    assert torch.equal(started, last(other, start_at=4))
    assert not torch.equal(usual, started)


@pytest.mark.parametrize("needed", [0, 1, 2, 7, 60, 119, 400])
def test_search(monkeypatch, needed):
    asked = []

    def play(player, env, n_episodes, deterministic, tell):
        steps = player.memory.steps if isinstance(player, WindowedPolicy) else 10**6
        asked.append(steps)
        successes = np.arange(n_episodes) < n_episodes * (0.9 if steps >= needed else 0.5)
        return SimpleNamespace(successes=successes, lengths=np.array([50, 121]))

    monkeypatch.setattr(horizon, "play_episodes", play)
    policy, env = make_policy("none")
    told = find_horizon(policy, lambda: env, 100)
    assert told["full"] == 0.9
    # No agent needs more than the longest episode has.
    expected = min(needed, 120)
    assert expected <= told["horizon"] <= expected * 1.06 + 1
    assert len(asked) == len(set(asked)) <= 15
    steps = [point.steps for point in told["points"]]
    assert steps == sorted(steps)
    assert steps[0] == 0
    # As long as the longest episode is the whole past.
    assert max(point.score for point in told["points"]) == told["full"]


def test_search_by_return(monkeypatch):
    """Where rewards are punishments, what counts is the share of what the past adds."""

    def play(player, env, n_episodes, deterministic, tell):
        steps = player.memory.steps if isinstance(player, WindowedPolicy) else 10**6
        returns = np.full(n_episodes, -100.0 if steps < 9 else -20.0)
        return SimpleNamespace(successes=None, returns=returns, lengths=np.array([50]))

    monkeypatch.setattr(horizon, "play_episodes", play)
    policy, env = make_policy("none")
    told = find_horizon(policy, lambda: env, 10)
    assert told["horizon"] == 9
    assert not told["tells_success"]


def test_no_success_has_no_horizon(monkeypatch):
    monkeypatch.setattr(
        horizon,
        "play_episodes",
        lambda *_: SimpleNamespace(successes=np.zeros(5, dtype=bool), lengths=np.array([9])),
    )
    policy, env = make_policy("none")
    assert find_horizon(policy, lambda: env, 5)["horizon"] is None


@pytest.mark.parametrize("memory", ["lstm", "transformer-xl", "expire-span"])
def test_occlusion_is_what_step_by_step_hiding_changes(memory):
    policy, env = make_policy(memory, n_envs=1, length=12)
    # Preferences that can be seen.
    with torch.no_grad():
        policy.action_net.weight.mul_(100)
    env.seed(3)
    found = occlude(policy, env, deterministic=True)
    env.seed(3)
    observations, starts = [env.reset()], [True]
    state = policy.memory.initial_state(1)
    with torch.no_grad():
        while True:
            seen = torch.as_tensor(observations[-1])
            acted = policy.act(seen, state, torch.tensor([starts[-1]]), deterministic=True)
            state = acted.memory.state
            obs, _, dones, _ = env.step(acted.actions.numpy())
            if dones[0]:
                break
            observations.append(obs)
            starts.append(False)
    n = len(observations)
    assert found.change.shape == (n, n)

    def probabilities(hidden):
        state, told = policy.memory.initial_state(1), []
        with torch.no_grad():
            for t, seen in enumerate(observations):
                shown = torch.as_tensor(np.zeros_like(seen) if t == hidden else seen)
                memory = policy.memory.step(policy.embed_observations(shown), state, torch.tensor([t == 0]))
                state = memory.state
                latent = policy.mlp_extractor.forward_actor(memory.features)
                told.append(policy._get_action_dist_from_latent(latent).distribution.probs[0])
        return torch.stack(told)

    usual = probabilities(None)
    for hidden in range(n):
        moved = (probabilities(hidden) - usual).abs().sum(-1) / 2
        moved[: hidden + 1] = 0
        assert np.allclose(found.change[hidden], moved, atol=1e-5)
    assert found.influence.max() > 0.01
    if memory == "lstm":
        assert found.read_for.shape == (0, n)
    else:
        assert len(found.read_for) == len(list(policy.memory.layers))
        assert found.read_for.max() <= policy.memory.capacity
        assert (found.read_for <= np.arange(n)[::-1]).all()


def test_none_changes_nothing():
    policy, env = make_policy("none", n_envs=1)
    assert not occlude(policy, env).change.any()


def test_continuous_actions():
    env = make_vec_env("Pendulum-v1", n_envs=1, env_kwargs={"max_episode_steps": 8})
    policy = MemoryPPO("MemoryPolicy", env, memory="lstm", n_steps=8).policy
    found = occlude(policy, env)
    assert found.change.shape == (8, 8)
    assert 0 < found.influence.max() <= 1
    with pytest.raises(ValueError, match="num_envs=2: must be 1"):
        occlude(policy, make_vec_env("Pendulum-v1", n_envs=2))


def test_command(tmp_path, capsys):
    run = make_run(tmp_path / "runs")
    args = ["horizon", str(run), "--episodes", "12", "--n-envs", "4"]
    figures = ["--figure", str(tmp_path / "a"), "--influence-figure", str(tmp_path / "b")]
    assert cli.main([*args, *figures]) == 0
    out = capsys.readouterr().out
    assert "horizon" in out
    assert "0 past steps, 12 of 12 episodes" in out
    for name in "ab":
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    found = Horizon.load(run)
    assert (found.memory, found.episodes, found.timesteps) == ("transformer-xl", 12, 512)
    assert found.points[0].steps == 0
    assert json.loads((run / "horizon.json").read_text())["env"] == "memspan/Corridor-v0"
    assert cli.main([*args, "--reuse"]) == 0
    assert "past steps, 12" not in capsys.readouterr().out
    load_model(run)


def test_damaged_and_foreign_runs_are_left_out(tmp_path, capsys):
    good, damaged, without = (make_run(tmp_path / "runs", seed=seed) for seed in range(3))
    (damaged / "checkpoints" / "000000000512.safetensors").write_bytes(b"no checkpoint")
    (without / "checkpoints" / "000000000512.safetensors").unlink()
    assert cli.main(["horizon", str(tmp_path / "runs"), "--episodes", "4", "--n-envs", "4"]) == 1
    assert Horizon.load(good).episodes == 4
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for folder, why in ((damaged, "damaged"), (without, "has no checkpoint")):
        assert [line for line in lines if f"{folder}" in line and why in line and "left out" in line]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--episodes", "0"], "episodes=0: must be at least 1"),
        (["--seed", "-1"], "seed=-1: must be from 0 to"),
        (["--figure", "a.txt"], "must be a file name that ends in .png, .svg"),
        (["--reuse"], "horizon.json: not of this version"),
    ],
)
def test_refused(tmp_path, capsys, args, why):
    run = make_run(tmp_path / "runs")
    (run / "horizon.json").write_text("{}")
    assert cli.main(["horizon", str(run), *args]) == 2
    assert why in capsys.readouterr().err


def test_search_ends_where_scores_are_no_numbers(monkeypatch):
    nan = SimpleNamespace(successes=None, returns=np.full(5, np.nan), lengths=np.array([9]))
    monkeypatch.setattr(horizon, "play_episodes", lambda *_: nan)
    policy, env = make_policy("none")
    assert find_horizon(policy, lambda: env, 5)["points"][-1].steps == 8


def test_actions_of_the_hidden_episode_are_those_of_an_evaluation():
    """Within their bounds, whatever the policy draws."""
    env = make_vec_env("Pendulum-v1", n_envs=1, env_kwargs={"max_episode_steps": 30})
    policy = MemoryPPO("MemoryPolicy", env, memory="lstm", n_steps=8).policy
    with torch.no_grad():
        policy.log_std.fill_(3)
    taken = []
    step = env.step
    env.step = lambda actions: (taken.append(actions.copy()), step(actions))[1]
    occlude(policy, env)
    assert np.abs(taken).max() == 2
