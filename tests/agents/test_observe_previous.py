"""What was done last, and what it brought, among the observations."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from toys import ACTIONS, OBSERVATIONS, Toy

from memspan.agents import MemoryPPO, ObservePrevious, VecEnvAdapter

N_ENVS = 3


def toys(observation: str = "vector", action: str = "discrete") -> VecEnvAdapter:
    make = [lambda: Toy(observation, action)] * N_ENVS
    return VecEnvAdapter(SyncVectorEnv(make, autoreset_mode=AutoresetMode.SAME_STEP))


@pytest.mark.parametrize("action", ACTIONS)
def test_action_and_reward_of_the_step_before(action: str) -> None:
    env = ObservePrevious(toys(action=action))
    space = env.action_space
    space.seed(0)
    seen = env.reset()
    assert isinstance(env.observation_space, spaces.Dict)
    assert not seen["previous_action"].any()
    assert not seen["previous_reward"].any()
    ended = 0
    for _ in range(60):
        actions = np.stack([space.sample() for _ in range(N_ENVS)])
        seen, rewards, dones, infos = env.step(actions)
        for row in range(N_ENVS):
            if action == "discrete":
                told = np.eye(3)[actions[row]]
            elif action == "multi-discrete":
                told = np.concatenate([np.eye(2)[actions[row][0]], np.eye(3)[actions[row][1]]])
            else:
                told = actions[row].ravel()
            last = {key: values[row] for key, values in seen.items()}
            if dones[row]:
                ended += 1
                assert not last["previous_action"].any()
                assert not last["previous_reward"].any()
                last = infos[row]["terminal_observation"]
            np.testing.assert_allclose(last["previous_action"], told)
            assert last["previous_reward"] == rewards[row]
            assert last in env.observation_space
    assert ended > 30


def test_what_was_returned_is_never_written_again() -> None:
    env = ObservePrevious(toys())
    held = [env.reset()]
    copies = [{key: values.copy() for key, values in held[0].items()}]
    for _ in range(20):
        seen, *_ = env.step(np.ones(N_ENVS, dtype=np.int64))
        held.append(seen)
        copies.append({key: values.copy() for key, values in seen.items()})
    for one, copy in zip(held, copies, strict=True):
        for key, values in one.items():
            np.testing.assert_array_equal(values, copy[key])


def test_parts_of_a_dict_stay_as_they_are() -> None:
    plain, wrapped = toys("dict"), ObservePrevious(toys("dict"))
    assert isinstance(wrapped.observation_space, spaces.Dict)
    assert set(wrapped.observation_space) == {*OBSERVATIONS["dict"], "previous_action", "previous_reward"}
    for env in (plain, wrapped):
        env.seed(1)
    one, other = plain.reset(), wrapped.reset()
    for key in OBSERVATIONS["dict"]:
        np.testing.assert_array_equal(one[key], other[key])
    with pytest.raises(ValueError, match=r"^observation_space: has a part named 'previous_action' already$"):
        ObservePrevious(wrapped)


@pytest.mark.parametrize("observation", ["symbols 3", "dict", "sentence"])
def test_agents_train_on_it(observation: str) -> None:
    model = MemoryPPO(
        "MemoryPolicy", ObservePrevious(toys(observation)), memory="lstm", n_steps=8, n_minibatches=1
    )
    model.learn(100)
