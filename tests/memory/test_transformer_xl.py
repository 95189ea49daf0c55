"""Transformer-XL against plain loops, and its window."""

import pytest
import torch
from members import build, features, fresh, starts
from naive import close, later, run_row, window
from torch import Tensor

from memspan.memory import make_memory
from memspan.memory.transformer_xl import TransformerXL

MEMBERS = [
    "transformer-xl",
    "transformer-xl, position values",
    "transformer-xl, 1 step",
    "transformer-xl, all steps",
]


@pytest.mark.parametrize("pattern", ["never", "middle", "random"])
@pytest.mark.parametrize("member", MEMBERS)
def test_two_blocks_equal_the_loops(member: str, pattern: str) -> None:
    memory = build(member)
    assert isinstance(memory, TransformerXL)
    n_rows, lengths = 2, (5, 7)
    xs = [features(t, n_rows, seed=t).requires_grad_() for t in lengths]
    state = fresh(memory, n_rows)
    fast: list[Tensor] = []
    slow: list[Tensor] = []
    cached = [None] * n_rows
    for x in xs:
        episode_starts = starts(pattern, len(x), n_rows + 1)[:, :n_rows]
        out = memory(x, state, episode_starts)
        state = out.state
        fast.append(out.features)
        rows = [
            run_row(memory, window(memory), x[:, b], episode_starts[:, b], cached[b]) for b in range(n_rows)
        ]
        cached = [later(row.kept, len(x)) for row in rows]
        slow.append(torch.stack([torch.stack(row.features) for row in rows], dim=1))
        effective = torch.tensor([row.effective for row in rows], dtype=x.dtype).T
        torch.testing.assert_close(out.stats["effective_memory"], effective)
    close(torch.cat(fast), torch.cat(slow))
    weight = features(sum(lengths), n_rows, seed=7)
    wanted = [*xs, *memory.parameters()]
    got = torch.autograd.grad((torch.cat(fast) * weight).sum(), wanted)
    expected = torch.autograd.grad((torch.cat(slow) * weight).sum(), wanted)
    for one, other in zip(got, expected, strict=True):
        close(one, other)
        assert one.abs().sum() > 0


@torch.no_grad()
def test_the_window_is_exactly_m_steps() -> None:
    """One layer: what was seen M steps ago makes a difference, and no step before it."""
    torch.manual_seed(0)
    memory = make_memory("transformer-xl", 8, {"memory_size": 5, "n_layers": 1})
    x, no_start = features(12, 1, dtype=torch.float32), starts("never", 12, 3)[:, :1]
    last = memory(x, memory.initial_state(1), no_start)
    assert last.stats["effective_memory"][:, 0].tolist() == [0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5]
    for t in range(12):
        other = x.clone()
        other[t, :, 0] += 1
        changed = memory(other, memory.initial_state(1), no_start).features[-1]
        assert torch.equal(changed, last.features[-1]) == (t < 12 - 1 - 5), t


@torch.no_grad()
def test_the_cache_holds_no_more_than_the_window() -> None:
    memory = make_memory("transformer-xl", 8, {"memory_size": 5})
    state = memory.initial_state(2)
    for _ in range(3):
        state = memory(features(20, 2, dtype=torch.float32), state, starts("never", 20, 3)[:, :2]).state
        assert state["hidden.0"].shape[1] <= 6
    for _ in range(9):
        state = memory.step(torch.randn(2, 8), state, torch.tensor([False, False])).state
        assert state["hidden.0"].shape[1] <= 6


def test_attention_that_copies_at_first() -> None:
    """What is read is added to the input: the mean of what a query may read, where all scores are equal."""
    settings = {"n_layers": 1, "n_heads": 2, "memory_size": 4, "copy_at_first": True}
    memory = make_memory("transformer-xl", 8, settings)
    layer = memory.layers[0]
    with torch.no_grad():
        layer.query.weight.zero_()
        layer.position_query.weight.zero_()
    layer.feed_forward = torch.nn.Identity()
    memory.norm = torch.nn.Identity()
    x = torch.randn(3, 1, 8)
    out = memory(x, memory.initial_state(1), torch.zeros(3, 1, dtype=torch.bool)).features
    stored = layer.normalise(x)
    expected = torch.stack([x[t] + stored[: t + 1].mean(0) for t in range(3)])
    close(out, expected)
