"""Matrix products in bfloat16: what is rounded, and what is not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toys import Recall

from memspan import MemoryPPO
from memspan.agents.precision import BFloat16Linear
from memspan.memory import MEMORIES


def agent(memory: str = "transformer-xl", precision: str = "bfloat16") -> MemoryPPO:
    settings = {"width": 16, "precision": precision}
    return MemoryPPO(
        "MemoryPolicy", Recall(4), memory, n_steps=8, seed=0, device="cpu", policy_kwargs=settings
    )


@pytest.mark.parametrize("memory", sorted(MEMORIES))
def test_every_memory_learns_with_it(memory: str) -> None:
    model = agent(memory)
    before = [value.clone() for value in model.policy.parameters()]
    model.learn(2 * 8 * 4)
    after = list(model.policy.parameters())
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in after)
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(value.dtype != torch.bfloat16 for value in model._memory_state.values())


def test_products_are_rounded_and_outputs_are_near() -> None:
    rounded, exact = agent(), agent(precision="float32")
    rounded.policy.load_state_dict(exact.policy.state_dict())
    assert isinstance(rounded.policy.embed, BFloat16Linear)
    assert type(rounded.policy.action_net) is torch.nn.Linear
    assert not any(isinstance(layer, BFloat16Linear) for layer in exact.policy.modules())
    observations = torch.as_tensor(exact.get_env().reset())
    one, other = (
        model.policy.values_of(observations, model.policy.memory.initial_state(4), torch.ones(4).bool())
        for model in (rounded, exact)
    )
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)


def test_a_saved_agent_keeps_it(tmp_path: Path) -> None:
    model = agent()
    model.save(tmp_path / "agent.zip")
    loaded = MemoryPPO.load(tmp_path / "agent.zip", device="cpu")
    assert isinstance(loaded.policy.embed, BFloat16Linear)
    observation = model.get_env().reset()
    np.testing.assert_array_equal(
        *(each.predict(observation, deterministic=True)[0] for each in (model, loaded))
    )


def test_others_are_refused() -> None:
    with pytest.raises(ValueError, match="precision='float16': must be one of float32, bfloat16"):
        agent(precision="float16")
