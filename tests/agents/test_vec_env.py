"""The adapter: any Gymnasium `VectorEnv`, as SB3 would have made it of single environments."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from toys import OBSERVATIONS, Toy, corridors

from memspan.agents import VecEnvAdapter

N_ENVS, N_STEPS = 3, 60
Stream = list[tuple[Any, float, bool, dict[str, Any]]]


def toys(mode: AutoresetMode, n_envs: int = N_ENVS, **kwargs: Any) -> VecEnvAdapter:
    return VecEnvAdapter(SyncVectorEnv([lambda: Toy(**kwargs)] * n_envs, autoreset_mode=mode))


def one(observations: Any, row: int) -> Any:
    if isinstance(observations, dict):
        return {key: value[row] for key, value in observations.items()}
    return observations[row]


def play(env: VecEnv, seed: int = 3) -> tuple[list[Any], list[Stream]]:
    """First observations and, per row, what each step gave; row i always acts i."""
    env.seed(seed)
    first = env.reset()
    streams: list[Stream] = [[] for _ in range(env.num_envs)]
    for _ in range(N_STEPS):
        observations, rewards, dones, infos = env.step(np.arange(env.num_envs))
        for row, stream in enumerate(streams):
            stream.append((one(observations, row), rewards[row], dones[row], infos[row]))
    return [one(first, row) for row in range(env.num_envs)], streams


def without_resets(stream: Stream) -> Stream:
    """Of NEXT_STEP: an episode's last step and the step that resets, as one."""
    merged: Stream = []
    for obs, reward, done, info in stream:
        if done:
            assert reward == 0
            last_obs, last_reward, last_done, _ = merged.pop()
            np.testing.assert_equal(info["terminal_observation"], last_obs)
            assert not last_done
            merged.append((obs, last_reward, done, info))
        else:
            merged.append((obs, reward, done, info))
    return merged


@pytest.mark.parametrize("observations", ["vector", "dict", "discrete", "symbols 3"])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_it_plays_like_sb3s_own(mode: AutoresetMode, observations: str) -> None:
    adapter = toys(mode, observations=observations)
    sb3 = DummyVecEnv([lambda: Monitor(Toy(observations))] * N_ENVS)
    assert adapter.observation_space == sb3.observation_space
    assert adapter.action_space == sb3.action_space
    (first, streams), (expected_first, expected_streams) = play(adapter), play(sb3)
    np.testing.assert_equal(first, expected_first)
    next_step = mode == AutoresetMode.NEXT_STEP
    n_episodes = n_cut = 0
    for raw, expected in zip(streams, expected_streams, strict=True):
        stream = without_resets(raw) if next_step else raw
        assert len(stream) > N_STEPS / 2
        if next_step and not stream[-1][2]:
            stream.pop()  # perhaps a last step whose end was not shown yet
        for (obs, reward, done, info), (obs_, reward_, done_, info_) in zip(stream, expected, strict=False):
            np.testing.assert_equal(obs, obs_)
            assert reward == reward_
            assert done == done_
            if not done:
                assert "terminal_observation" not in info
                assert "episode" not in info
                if mode != AutoresetMode.NEXT_STEP:
                    assert {"steps", "nested", "success"} <= info.keys()
                continue
            n_episodes += 1
            np.testing.assert_equal(info["terminal_observation"], info_["terminal_observation"])
            assert info["TimeLimit.truncated"] == info_["TimeLimit.truncated"]
            n_cut += info["TimeLimit.truncated"]
            assert info["episode"]["r"] == pytest.approx(info_["episode"]["r"])
            assert info["episode"]["l"] == info_["episode"]["l"] + next_step
            assert info["episode"]["t"] >= 0
            assert info["is_success"] == info_["success"]
            for key in ("steps", "success", "nested"):
                assert info[key] == info_[key]
    assert n_episodes > 20
    assert 5 < n_cut < n_episodes


@pytest.mark.parametrize("mode", AutoresetMode)
def test_what_was_handed_out_is_never_written_again(mode: AutoresetMode) -> None:
    adapter = VecEnvAdapter(SyncVectorEnv([Toy] * N_ENVS, copy=False, autoreset_mode=mode))
    adapter.seed(3)
    adapter.reset()
    held = []
    for _ in range(20):
        infos = adapter.step(np.zeros(N_ENVS, np.int64))[3]
        held += [(o := info["terminal_observation"], o.copy()) for info in infos if "episode" in info]
    assert held
    for now, then in held:
        np.testing.assert_array_equal(now, then)


def test_our_engine() -> None:
    """Plays on as the engine does on its own; the ends are those that it tells."""
    engine, adapter = corridors(5, max_steps=9), VecEnvAdapter(corridors(5, max_steps=9))
    adapter.seed(7)
    np.testing.assert_array_equal(adapter.reset(), engine.reset(seed=7)[0])
    assert adapter.autoreset_mode is AutoresetMode.SAME_STEP
    rng = np.random.default_rng(0)
    returns, lengths, n_success, n_cut = np.zeros(5), np.zeros(5, int), 0, 0
    for _ in range(300):
        actions = rng.choice(4, 5, p=[0.55, 0.15, 0.15, 0.15])
        expected, expected_rewards, terminated, truncated, told = engine.step(actions)
        observations, rewards, dones, infos = adapter.step(actions)
        np.testing.assert_array_equal(observations, expected)
        np.testing.assert_array_equal(rewards, expected_rewards)
        assert rewards.dtype == np.float32
        np.testing.assert_array_equal(dones, terminated | truncated)
        returns += rewards
        lengths += 1
        for row, info in enumerate(infos):
            assert info["success"] == told["success"][row]
            assert ("episode" in info) == dones[row]
            if dones[row]:
                np.testing.assert_array_equal(info["terminal_observation"], told["final_obs"][row])
                assert info["TimeLimit.truncated"] == truncated[row]
                assert (info["episode"]["r"], info["episode"]["l"]) == (returns[row], lengths[row])
                assert info["is_success"] == bool(told["success"][row])
                n_success += info["is_success"]
                n_cut += info["TimeLimit.truncated"]
                returns[row] = lengths[row] = 0
    assert n_success > 20
    assert n_cut > 20


@pytest.mark.parametrize("mode", AutoresetMode)
def test_reset_begins_anew(mode: AutoresetMode) -> None:
    """In the middle of episodes, and with ends yet to be shown; seeds and options hold for one reset."""
    adapter = toys(mode)
    assert play(adapter)[0][0].tolist() == play(adapter)[0][0].tolist()
    adapter.set_options({"length": 2})
    adapter.reset()
    assert [info["length"] for info in adapter.reset_infos] == [2] * N_ENVS
    adapter.step(np.zeros(N_ENVS, np.int64))
    adapter.step(np.zeros(N_ENVS, np.int64))  # in NEXT_STEP, the end of this step is still to be shown
    adapter.seed(3)
    adapter.reset()
    lengths = [info["length"] for info in adapter.reset_infos]
    assert len(set(lengths)) > 1
    for step in range(1, 4):
        for info, length in zip(adapter.step(np.zeros(N_ENVS, np.int64))[3], lengths, strict=True):
            over = length + (mode == AutoresetMode.NEXT_STEP)
            if "episode" in info and step <= over:
                assert info["episode"]["l"] == step == over


def test_options_are_the_same_for_all() -> None:
    adapter = toys(AutoresetMode.SAME_STEP)
    adapter.set_options([{"length": 2}, {"length": 3}, {}])
    with pytest.raises(ValueError, match="the same options"):
        adapter.reset()


def test_environments_need_not_tell_success() -> None:
    _, streams = play(toys(AutoresetMode.SAME_STEP, tells_success=False))
    ends = [info for stream in streams for *_, info in stream if "episode" in info]
    assert ends
    assert not any("is_success" in info for info in ends)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_attributes_and_methods_of_the_environments(mode: AutoresetMode) -> None:
    adapter = toys(mode, render_mode="rgb_array")
    adapter.set_options({"length": 4})
    adapter.reset()
    assert adapter.get_attr("length") == [4, 4, 4]
    assert adapter.get_attr("length", [0, 2]) == [4, 4]
    assert adapter.get_attr("autoreset_mode", 1) == [mode]
    assert adapter.env_method("double", 3, indices=[1]) == [10]
    assert adapter.env_method("double", number=1) == [6, 6, 6]
    with pytest.raises(AttributeError):
        adapter.get_attr("no_such_attribute")
    with pytest.raises(NotImplementedError):
        adapter.set_attr("length", 3)
    assert adapter.env_is_wrapped(Monitor) == [True] * 3  # it does what Monitor does
    assert adapter.env_is_wrapped(gym.wrappers.TimeLimit, [0]) == [False]
    assert adapter.render_mode == "rgb_array"
    assert len(adapter.get_images()) == 3
    assert adapter.render().shape[-1] == 3


def test_attributes_and_methods_of_an_engine() -> None:
    adapter = VecEnvAdapter(corridors(3))
    adapter.reset()
    assert adapter.get_attr("max_length") == [5, 5, 5]
    assert adapter.get_images() == [None] * 3
    with pytest.raises(NotImplementedError):
        adapter.env_method("get_state")
    adapter = VecEnvAdapter(corridors(3, render_mode="rgb_array"))
    adapter.reset()
    assert len(adapter.get_images()) == 3


def test_attributes_through_wrappers() -> None:
    """Of single environments and of the vector environment."""
    envs = SyncVectorEnv([lambda: gym.wrappers.TimeLimit(Toy(), 3)] * 2)
    adapter = VecEnvAdapter(gym.wrappers.vector.RecordEpisodeStatistics(envs))
    adapter.reset()
    assert adapter.get_attr("n_episodes") == [1, 1]
    assert len(adapter.env_method("double", 3)) == 2


def test_closing_closes_the_environments() -> None:
    adapter = toys(AutoresetMode.SAME_STEP)
    envs = adapter.env.envs
    adapter.close()
    assert all(env.closed for env in envs)


def test_a_mode_that_is_not_declared_is_next_step() -> None:
    """What Gymnasium's own did before it had modes."""

    class Undeclared(SyncVectorEnv):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            del self.metadata["autoreset_mode"]

    assert VecEnvAdapter(Undeclared([Toy])).autoreset_mode is AutoresetMode.NEXT_STEP


def test_observations_are_of_the_space() -> None:
    for observations in OBSERVATIONS:
        adapter = toys(AutoresetMode.SAME_STEP, 2, observations=observations)
        assert one(adapter.reset(), 0) in adapter.observation_space


def test_snapshot_has_the_returns_so_far() -> None:
    env, other = VecEnvAdapter(corridors(3)), VecEnvAdapter(corridors(3))
    env.seed(1)
    env.reset()
    actions = np.random.default_rng(0).integers(0, 3, (40, 3))
    for row in actions[:17]:
        env.step(row)
    snapshot = env.get_snapshot()
    assert snapshot is not None
    assert snapshot["lengths"].any()
    other.seed(2)  # asked for, and not to be done any more
    other.set_snapshot(snapshot)
    assert other._seeds == [None] * 3
    ended = 0
    for row in actions[17:]:
        (*arrays, infos), (*others, other_infos) = env.step(row), other.step(row)
        for one_array, other_array in zip(arrays, others, strict=True):
            np.testing.assert_array_equal(one_array, other_array)
        for info, other_info in zip(infos, other_infos, strict=True):
            for told in (info, other_info):
                told.get("episode", {}).pop("t", None)
            ended += "episode" in info
            np.testing.assert_equal(info, other_info)
    assert ended


def test_no_snapshot_without_the_environments_help() -> None:
    class Counting(gym.vector.VectorWrapper):
        """Has something of its own that a snapshot of what it wraps does not hold."""

    assert all(toys(mode).get_snapshot() is None for mode in AutoresetMode)
    assert VecEnvAdapter(Counting(corridors(2))).get_snapshot() is None
    late = corridors(2)
    late.metadata = late.metadata | {"autoreset_mode": AutoresetMode.NEXT_STEP}
    assert VecEnvAdapter(late).get_snapshot() is None
