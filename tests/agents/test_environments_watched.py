"""Environments that fail and numbers gone bad: each is named, nobody waits, nothing learnt is spoilt."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor
from toys import Toy

from memspan.agents import MemoryPPO
from memspan.agents.faults import BadNumbersError, EnvironmentFaultError
from memspan.agents.snapshot import take_snapshot
from memspan.agents.watch import broken_space


class Faulty(Toy):
    """Does `fault` in its 6th step."""

    def __init__(self, fault: str = "", observations: str = "vector") -> None:
        super().__init__(observations)
        self.fault = fault
        self.all_steps = 0

    def step(self, action: Any) -> Any:
        self.all_steps += 1
        observation, reward, terminated, truncated, info = super().step(action)
        if self.all_steps == 6:
            match self.fault:
                case "raise":
                    raise ZeroDivisionError("no way")
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "hang":
                    time.sleep(600)
                case "reward":
                    reward = float("inf")
                case "observation":
                    observation = np.full_like(observation, np.nan)
                case "space":
                    observation = observation + 7
                case "shape":
                    observation = observation[:-1]
        return observation, reward, terminated, truncated, info


class FaultyReset(Toy):
    """Does `fault` in its `number`-th reset."""

    def __init__(self, fault: str = "", number: int = 1, observations: str = "vector") -> None:
        super().__init__(observations)
        self.fault = fault
        self.left = number

    def reset(self, **kwargs: Any) -> Any:
        self.left -= 1
        observation, info = super().reset(**kwargs)
        if self.left == 0:
            match self.fault:
                case "raise":
                    raise ZeroDivisionError("no way")
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "hang":
                    time.sleep(600)
                case "observation":
                    observation = np.full_like(observation, np.nan)
                case "space":
                    observation = observation + 7
        return observation, info


def ppo(env: Any, **settings: Any) -> MemoryPPO:
    more: dict[str, Any] = dict(n_steps=4, n_epochs=1, policy_kwargs={"width": 8}, seed=10, device="cpu")
    return MemoryPPO("MemoryPolicy", env, "lstm", **(more | settings))


def third(fault: str, observations: str = "vector") -> list[Any]:
    """Four environments, of which the third has a fault."""
    return [partial(Faulty, fault if i == 2 else "", observations) for i in range(4)]


VECTORS = {
    "dummy": DummyVecEnv,
    "monitored": lambda fns: VecMonitor(DummyVecEnv(fns)),
    "sync": partial(SyncVectorEnv, autoreset_mode=AutoresetMode.SAME_STEP),
}


@pytest.mark.parametrize("kind", VECTORS)
def test_who_raises_is_named(kind: str) -> None:
    match = "^environment 2, seed 12, after 20 timesteps: ZeroDivisionError: no way$"
    with pytest.raises(EnvironmentFaultError, match=match) as error:
        ppo(VECTORS[kind](third("raise"))).learn(100)
    assert isinstance(error.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("observations", ["discrete", "multi-discrete"])
def test_who_leaves_its_space_is_named(observations: str) -> None:
    match = "^environment 2, seed 12, after 20 timesteps: observation of environment 2 is .* in .*Discrete"
    with pytest.raises(EnvironmentFaultError, match=match):
        ppo(DummyVecEnv(third("space", observations))).learn(100)


def test_shapes_that_are_none_of_the_space() -> None:
    with pytest.raises(
        EnvironmentFaultError, match=r"^environment 2, seed 12, after 20 timesteps: ValueError: .*shape"
    ):
        ppo(DummyVecEnv(third("shape"))).learn(100)
    space = gym.spaces.Dict({"a": gym.spaces.Box(0, 1, (2,)), "b": gym.spaces.MultiBinary(2)})
    good = {"a": np.zeros((3, 2)), "b": np.zeros((3, 2))}
    assert broken_space(space, good, 3) is None
    assert broken_space(space, good | {"a": np.zeros((3, 1))}, 3) is not None
    assert broken_space(space, {"a": good["a"]}, 3) == ([], "observation 'b' is missing")
    rows, _ = broken_space(space, good | {"b": np.array([[0, 1], [0, 2], [0, 0]])}, 3) or ([], "")
    assert rows == [1]


@pytest.fixture
def no_endless_test() -> Iterator[None]:
    """A test that hangs fails."""

    def give_up(*_: Any) -> None:
        raise TimeoutError

    old = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


# By `fork`, each worker holds the pipes of those before it: they do not close when one is killed.
WORKERS = {
    "subproc": lambda fns: SubprocVecEnv(fns, start_method="fork"),
    "async": lambda fns: AsyncVectorEnv(fns, context="fork", autoreset_mode=AutoresetMode.SAME_STEP),
}


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")
@pytest.mark.usefixtures("no_endless_test")
@pytest.mark.parametrize("kind", WORKERS)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("die", r"^environment 2, seed 12, .*the process of environment 2 has ended \(exit code -9\)"),
        ("hang", r"^environment 2, seed 12, .*environment 2 has not answered for 1 s"),
        ("raise", r"^environment 2, seed 12, .*(ZeroDivisionError|the process of environment 2 has ended)"),
    ],
)
def test_workers_that_end_or_hang(kind: str, fault: str, words: str) -> None:
    env = WORKERS[kind](third(fault))
    processes = list(env.processes)
    model = ppo(env, env_timeout=1.0 if fault == "hang" else None)
    with pytest.raises(EnvironmentFaultError, match=words):
        model.learn(100)
    assert not any(process.is_alive() for process in processes)
    model.env.close()


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")
@pytest.mark.usefixtures("no_endless_test")
@pytest.mark.parametrize("kind", WORKERS)
@pytest.mark.parametrize("fault", ["die", "hang"])
def test_workers_that_end_or_hang_in_the_first_reset(kind: str, fault: str) -> None:
    env = WORKERS[kind]([partial(FaultyReset, fault if i == 2 else "") for i in range(4)])
    processes = list(env.processes)
    model = ppo(env, env_timeout=1.0 if fault == "hang" else None)
    words = "environment 2 has not answered for 1 s" if fault == "hang" else "environment 2 has ended"
    with pytest.raises(EnvironmentFaultError, match=f"^environment 2, seed 12, after 0 timesteps: .*{words}"):
        model.learn(100)
    assert not any(process.is_alive() for process in processes)
    model.env.close()


@pytest.mark.parametrize("kind", VECTORS)
def test_who_raises_in_the_first_reset_is_named(kind: str) -> None:
    env = VECTORS[kind]([partial(FaultyReset, "raise" if i == 2 else "") for i in range(4)])
    with pytest.raises(EnvironmentFaultError, match=r"^environment 2, seed 12, after 0 timesteps: Zero"):
        ppo(env).learn(100)


def test_first_observations_are_looked_at() -> None:
    env = DummyVecEnv([partial(FaultyReset, "observation" if i == 2 else "") for i in range(4)])
    with pytest.raises(BadNumbersError, match=r"^after 0 timesteps: observation of environment 2 is nan$"):
        ppo(env).learn(100)
    env = DummyVecEnv([partial(FaultyReset, "observation" if i == 2 else "") for i in range(4)])
    model = ppo(env, on_nan="skip").learn(32)
    assert model.skipped_updates == 4  # of the first rollout alone
    fns = [partial(FaultyReset, "space" if i == 2 else "", 1, "discrete") for i in range(4)]
    with pytest.raises(
        EnvironmentFaultError,
        match=r"^environment 2, seed 12, after 0 timesteps: observation of env",
    ):
        ppo(DummyVecEnv(fns)).learn(100)


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures("no_endless_test")
@pytest.mark.parametrize("kind", WORKERS)
def test_workers_that_are_well_work_as_ever(kind: str) -> None:
    env = WORKERS[kind](third(""))
    model = ppo(env, env_timeout=60.0).learn(32)
    model.learn(32, reset_num_timesteps=False)
    assert model.num_timesteps == 64
    model.env.close()


# Numbers gone bad


@pytest.mark.parametrize(
    ("fault", "words"),
    [("reward", "reward of environment 2 is inf"), ("observation", "observation of environment 2 is nan")],
)
def test_bad_rewards_and_observations_stop(fault: str, words: str) -> None:
    model = ppo(DummyVecEnv(third(fault)))
    with pytest.raises(BadNumbersError, match=f"^after 24 timesteps: {words}$"):
        model.learn(100)
    assert all(bool(value.isfinite().all()) for value in model.policy.parameters())


@pytest.mark.parametrize("fault", ["reward", "observation"])
def test_rollouts_with_bad_numbers_are_left_out(fault: str) -> None:
    model = ppo(DummyVecEnv(third(fault)), on_nan="skip", n_minibatches=2, n_epochs=3)
    model.learn(16)
    before = take_snapshot(model).tensors
    model.learn(16, reset_num_timesteps=False)  # the rollout with the 6th step
    after = take_snapshot(model)
    assert all(
        torch.equal(before[name], after.tensors[name]) for name in before if name.startswith("policy.")
    )
    assert model.skipped_updates == after.counters["skipped_updates"] == 6
    model.learn(16, reset_num_timesteps=False)
    assert model.skipped_updates == 6
    after = take_snapshot(model)
    assert any(
        not torch.equal(before[name], after.tensors[name]) for name in before if name.startswith("policy.")
    )


def spoil(model: MemoryPPO, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the loss or the gradient is not finite in environment 1."""
    evaluate = model._evaluate

    def evaluated(block: Any) -> Any:
        result = evaluate(block)
        if where == "loss":
            mine = torch.as_tensor(block.rows == 1)
            return result._replace(log_probs=torch.where(mine, torch.nan, result.log_probs))
        # The root has no finite slope at 0.
        return result._replace(values=result.values + (result.values.detach() - result.values).abs().sqrt())

    monkeypatch.setattr(model, "_evaluate", evaluated)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("loss", "policy_gradient_loss is nan, log-probabilities of environment 1"),
        ("gradient", "gradient of embed.weight, .* is not finite"),
    ],
)
def test_bad_updates(where: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = dict(n_minibatches=2, n_epochs=2)
    for on_nan in "stop", "skip":
        model = ppo(DummyVecEnv(third("")), on_nan=on_nan, **settings)
        model.learn(16)
        spoil(model, where, monkeypatch)
        before = {name: value.clone() for name, value in model.policy.state_dict().items()}
        if on_nan == "stop":
            with pytest.raises(BadNumbersError, match=f"^update 3, after 32 timesteps: .*{words}"):
                model.learn(16, reset_num_timesteps=False)
        else:
            model.learn(16, reset_num_timesteps=False)
            # One of the two minibatches has environment 1.
            assert model.skipped_updates == (2 if where == "loss" else 4)
            assert all(bool(value.isfinite().all()) for value in model.policy.parameters())
        if on_nan == "stop" and where == "gradient":
            assert all(torch.equal(value, before[name]) for name, value in model.policy.state_dict().items())


def test_policies_that_are_not_finite_stop() -> None:
    model = ppo(DummyVecEnv(third("")))
    model.learn(16)
    with torch.no_grad():
        model.policy.action_net.weight.fill_(torch.nan)
    with pytest.raises(
        BadNumbersError, match=r"^after 16 timesteps: probabilities of actions are not finite"
    ):
        model.learn(16, reset_num_timesteps=False)


def test_wrong_settings() -> None:
    for name, value in ("on_nan", "ignore"), ("env_timeout", 0):
        with pytest.raises(ValueError, match=f"^{name}={value!r}: must be"):
            ppo(Toy(), **{name: value})
