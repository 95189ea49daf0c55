"""What crosses between the CPU and the device that an agent computes on; see `simulated_device`."""

from typing import Any

import gymnasium as gym
import pytest
import torch
from simulated_device import ELSEWHERE, Crossings, Elsewhere, crossings, move
from stable_baselines3.common.callbacks import BaseCallback

import memspan  # noqa: F401  (registers the environments)
from memspan.agents import MemoryPPO

N_ENVS, N_STEPS, N_EPOCHS = 6, 4, 1
KWARGS: dict[str, dict[str, Any]] = {
    "none": {},
    "lstm": {},
    "transformer-xl": {"memory_size": 4, "n_heads": 2, "n_layers": 1},
    "expire-span": {"max_span": 8, "ramp": 3, "n_heads": 2, "n_layers": 1},
}


WAITS = {"none": 0, "lstm": 0, "transformer-xl": 3, "expire-span": 3}
"""Values that the CPU waits for in a step: where episodes start, what has expired, whether there is room."""
N_ARRAYS = 8
PER_BLOCK = {"none": 1, "lstm": 1, "transformer-xl": 1, "expire-span": 1}
DOWN_PER_BLOCK = {"none": 0, "lstm": 1, "transformer-xl": 0, "expire-span": 0}


class PerStep(BaseCallback):
    """What has crossed between two steps."""

    def __init__(self, counted: Crossings) -> None:
        super().__init__()
        self.counted = counted
        self.steps: list[dict[str, int]] = []
        self.update: dict[str, int] = {}
        """From the last step of the first rollout to the second rollout."""

    def _on_rollout_start(self) -> None:
        self.update = self.counted.take()

    def _on_step(self) -> bool:
        self.steps.append(self.counted.take())
        return True


def make(memory: str, time_limit: bool = False) -> MemoryPPO:
    if time_limit:
        kwargs = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}
        envs = gym.make_vec("CartPole-v1", N_ENVS, "sync", vector_kwargs=kwargs, max_episode_steps=3)
    else:
        envs = gym.make_vec("memspan/Corridor-v0", N_ENVS, "vector_entry_point", max_length=5)
    return MemoryPPO(
        "MlpPolicy",
        envs,
        memory=memory,
        memory_kwargs=KWARGS[memory],
        n_steps=N_STEPS,
        n_minibatches=2,
        n_epochs=N_EPOCHS,
        policy_kwargs={
            "width": 8,
            "optimizer_class": torch.optim.SGD,
            "optimizer_kwargs": {"momentum": 0.9, "foreach": False},
        },
        prediction_coef=0.1,
        outcome_coef=0.1,
        seed=0,
        device="cpu",
    )


def move_agent(model: MemoryPPO) -> None:
    move(model.policy)
    groups = [{**group, "params": []} for group in model.policy.optimizer.param_groups]
    groups[0]["params"] = list(model.policy.parameters())
    model.policy.optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9, foreach=False)
    model.device = model.rollout_buffer.device = ELSEWHERE


def both(memory: str, time_limit: bool = False) -> tuple[MemoryPPO, MemoryPPO, PerStep]:
    """Two rollouts and updates, here and elsewhere, and what crossed."""
    here, there = make(memory, time_limit), make(memory, time_limit)
    move_agent(there)
    drawn = torch.get_rng_state()
    here.learn(2 * N_ENVS * N_STEPS)
    torch.set_rng_state(drawn)
    with crossings() as counted:
        record = PerStep(counted)
        there.learn(2 * N_ENVS * N_STEPS, callback=record)
    return here, there, record


@pytest.mark.parametrize("memory", KWARGS)
def test_what_crosses(memory: str) -> None:
    here, there, record = both(memory)
    for (name, one), (_, other) in zip(
        here.policy.state_dict().items(), there.policy.state_dict().items(), strict=True
    ):
        assert isinstance(other, Elsewhere), name
        assert torch.allclose(one, other.inner, rtol=1e-4, atol=1e-6), name
    # Observations and the starts of episodes go up, actions come down. In the first two steps an
    # extractor takes its first average.
    for step in record.steps[2:N_STEPS]:
        assert (step["up"], step["down"], step.get("waits", 0)) == (2, 1, WAITS[memory])
    # Whole arrays go up, and of each minibatch which rows it has; for the values after the last step what is
    # observed there. These values come down, and those of all steps.
    n_blocks = N_EPOCHS * 2
    assert record.update["up"] == N_ARRAYS + n_blocks * PER_BLOCK[memory] + 2
    assert record.update["down"] == 2 + n_blocks * DOWN_PER_BLOCK[memory]


def test_values_of_episodes_cut_by_a_time_limit_come_down_together() -> None:
    here, there, record = both("none", time_limit=True)
    assert all(step["down"] == 1 for step in record.steps[1:N_STEPS])
    assert record.update["down"] == 3
    expected = torch.as_tensor(here.rollout_buffer.returns)
    assert torch.allclose(torch.as_tensor(there.rollout_buffer.returns), expected, atol=1e-5)
