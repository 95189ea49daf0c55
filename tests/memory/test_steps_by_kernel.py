"""Steps of few rows go through kernels; by torch they come out the same, whatever has happened before."""

import dataclasses

import pytest
import torch
from members import MEMBERS, WIDTH, build, fresh
from torch import Tensor

from memspan.memory import Memory, MemoryOutput, few_rows
from memspan.memory.base import State

N_STEPS = 60
STEPS_OF_THEIR_OWN = ("refresh-span", "summary-tree", "infinity-former")
"""Names of memories that have kernels for more than their attention."""


def several_steps(memory: Memory, x: Tensor, episode_starts: Tensor) -> list[MemoryOutput]:
    """Steps, with parameters that are written in place on the way and leftovers that are no numbers."""
    state = fresh(memory, x.shape[1])
    outs: list[MemoryOutput] = []
    generator = torch.Generator().manual_seed(5)
    kept = [parameter.clone() for parameter in memory.parameters()]
    with torch.no_grad():
        for t, (now, start) in enumerate(zip(x, episode_starts, strict=True)):
            if t == N_STEPS // 2:
                for parameter in memory.parameters():
                    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.add_(0.05 * noise.to(parameter.dtype))
            out = memory.step(now, spoilt(state, start), start)
            state = out.state
            outs.append(dataclasses.replace(out, state={k: v.clone() for k, v in state.items()}))
        for parameter, before in zip(memory.parameters(), kept, strict=True):
            parameter.copy_(before)
    return outs


def spoilt(state: State, start: Tensor) -> State:
    """With NaN in all numbers of the rows whose episode is over."""
    for value in state.values():
        if value.is_floating_point():
            value[start] = torch.nan
    return state


@pytest.mark.parametrize("n_rows", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("member", [member for member in MEMBERS if MEMBERS[member][0] in STEPS_OF_THEIR_OWN])
def test_same_as_torch(member: str, dtype: torch.dtype, n_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = build(member, dtype)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(N_STEPS, n_rows, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    episode_starts = torch.rand(N_STEPS, n_rows, generator=generator) < 0.04
    # The first row starts anew as the others have a past: it is not the first without a free slot.
    episode_starts[[0, 10, 20], 0] = True
    few = several_steps(memory, x, episode_starts)
    monkeypatch.setattr(few_rows, "FEW", 0)
    many = several_steps(memory, x, episode_starts)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    for got, wanted in zip(few, many, strict=True):
        features = {"features": got.features}, {"features": wanted.features}
        named = (got.losses, wanted.losses), (got.stats, wanted.stats), (got.state, wanted.state)
        for one, other in (features, *named):
            assert one.keys() == other.keys()
            for name in one:
                torch.testing.assert_close(one[name], other[name], rtol=tolerance, atol=tolerance)
