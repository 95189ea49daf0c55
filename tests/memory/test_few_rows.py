"""Steps of few rows, which have kernels of their own, against what torch computes."""

import pytest
import torch
from members import MEMBERS, build, features, fresh, starts

from memspan.memory import Memory, few_rows
from memspan.memory.attention import Residual
from memspan.memory.few_rows import FEW

T = 30


def stepped(memory: Memory, other: Memory, n_rows: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What T steps answer, by name; after half of them the memory gets the other's weights."""
    x, episode_starts = features(T, n_rows, dtype=dtype), starts("random", T, n_rows)
    episode_starts[0] = True
    state = {
        name: value.fill_(torch.nan) if value.is_floating_point() else value
        for name, value in fresh(memory, n_rows).items()
    }
    outs = []
    for t in range(T):
        if t == T // 2:
            memory.load_state_dict(other.state_dict())
        outs.append(memory.step(x[t], state, episode_starts[t]))
        state = outs[-1].state
    names = [{"features": out.features, **out.losses, **out.stats} for out in outs]
    return {name: torch.stack([each[name] for each in names]) for name in names[0]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_rows", [1, 3])
@pytest.mark.parametrize("member", MEMBERS)
def test_they_answer_the_same(member: str, n_rows: int, dtype: torch.dtype) -> None:
    """Past what is NaN before an episode's start, and with weights that change."""
    other = build(member, dtype, seed=1)
    with torch.no_grad():
        few = stepped(build(member, dtype), other, n_rows, dtype)
    # With a graph torch computes everything.
    many = stepped(build(member, dtype), other, n_rows, dtype)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    for name, value in many.items():
        torch.testing.assert_close(few[name], value.detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("member", MEMBERS)
@torch.no_grad()
def test_who_listens_to_a_module_hears_it(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = build(member)

    def heard(few: int) -> list[str]:
        monkeypatch.setattr(few_rows, "FEW", few)
        names = []
        for name, module in memory.named_modules():
            if type(module) is Residual or ".1" in name:  # a sum, which is not called for; as in layer 0
                continue
            hook = module.register_forward_hook(lambda *_, name=name: names.append(name))
            state = fresh(memory, 1)
            for x, start in zip(features(7, 1), starts("first step", 7, 1), strict=True):
                state = memory.step(x, state, start).state
            hook.remove()
        return names

    assert heard(FEW) == heard(0)
