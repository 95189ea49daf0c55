"""Adaptive-Span against plain loops, and what each head can read."""

from typing import Any

import pytest
import torch
from members import build, features, fresh, starts
from naive import adaptive, close, later, run_row
from torch import Tensor

from memspan.memory import clone_state, make_memory
from memspan.memory.adaptive_span import AdaptiveSpan, within

MEMBERS = ["adaptive-span", "adaptive-span, long", "adaptive-span, short"]


def adaptive_span(*spans: float, **settings: Any) -> AdaptiveSpan:
    """One layer of as many heads as there are spans, in steps."""
    torch.manual_seed(0)
    settings = {"max_span": 20, "ramp": 4, "n_layers": 1, "n_heads": len(spans)} | settings
    memory = make_memory("adaptive-span", 8, settings)
    assert isinstance(memory, AdaptiveSpan)
    memory.double()
    set_spans(memory, *spans)
    return memory


@torch.no_grad()
def set_spans(memory: AdaptiveSpan, *spans: float) -> None:
    for fractions in memory.span_fractions:
        fractions.copy_(torch.tensor(spans, dtype=torch.float64) / memory.max_span)


def no_starts(n_steps: int, n_rows: int) -> Tensor:
    return torch.zeros(n_steps, n_rows, dtype=torch.bool)


@pytest.mark.parametrize("pattern", ["never", "middle", "random"])
@pytest.mark.parametrize("member", MEMBERS)
def test_two_blocks_equal_the_loops(member: str, pattern: str) -> None:
    """Features, penalty, effective memory; gradients, those of the spans through cached slots too."""
    memory = build(member)
    assert isinstance(memory, AdaptiveSpan)
    with torch.no_grad():  # ramps of several heads within what is cached, each somewhere else
        for n, fractions in enumerate(memory.span_fractions):
            fractions.copy_(torch.linspace(0.3, 7.3 - n, len(fractions)) / memory.max_span)
    n_rows, lengths = 2, (6, 7)
    xs = [features(t, n_rows, seed=t).requires_grad_() for t in lengths]
    state = fresh(memory, n_rows)
    fast: list[Tensor] = []
    slow: list[Tensor] = []
    cached = [None] * n_rows
    for x in xs:
        episode_starts = starts(pattern, len(x), n_rows + 1)[:, :n_rows]
        out = memory(x, state, episode_starts)
        state = out.state
        rows = [
            run_row(memory, adaptive(memory), x[:, b], episode_starts[:, b], cached[b]) for b in range(n_rows)
        ]
        cached = [later(row.kept, len(x)) for row in rows]
        fast.append(torch.cat([out.features, out.losses["span"][..., None]], dim=-1))
        slow.append(
            torch.stack(
                [
                    torch.cat([torch.stack(row.features), torch.stack(row.charged)[:, None]], dim=1)
                    for row in rows
                ],
                dim=1,
            )
        )
        effective = torch.tensor([row.effective for row in rows], dtype=x.dtype).T
        torch.testing.assert_close(out.stats["effective_memory"], effective)
    close(torch.cat(fast), torch.cat(slow))
    torch.manual_seed(7)
    weight = torch.randn_like(fast[-1])
    # Of the second block alone, so that nothing hides what reaches the spans through the cache.
    wanted = [xs[1], *memory.parameters()]
    got = torch.autograd.grad((fast[-1] * weight).sum(), wanted, retain_graph=True)
    expected = torch.autograd.grad((slow[-1] * weight).sum(), wanted, retain_graph=True)
    for one, other in zip(got, expected, strict=True):
        close(one, other)
        assert one.abs().sum() > 0
    # What is cached is without gradient.
    assert torch.autograd.grad(fast[-1].sum(), xs[0], allow_unused=True) == (None,)


@pytest.mark.parametrize("by", ["block", "step"])
@torch.no_grad()
def test_each_head_reads_as_far_as_its_own_span(by: str) -> None:
    """A memory that one head alone can read changes what that head adds, and nothing else."""
    memory = adaptive_span(2.0, 9.0, ramp=1)
    layer = memory.layers[0]
    layer.feed_forward = torch.nn.Identity()
    memory.norm = torch.nn.Identity()
    layer.out.weight.copy_(torch.eye(8))
    x = features(14, 1)

    def last(x: Tensor) -> Tensor:
        state = memory(x[:-1], fresh(memory, 1), no_starts(13, 1)).state
        if by == "step":
            return memory.step(x[-1], state, torch.tensor([False])).features[0]
        return memory(x[-1:], state, no_starts(1, 1)).features[0, 0]

    for distance in range(1, 14):
        other = x.clone()
        other[13 - distance] += torch.randn(8, dtype=torch.float64)
        changed = last(other) != last(x)
        assert changed[:4].any() == (distance <= 2), distance
        assert changed[4:].any() == (distance <= 9), distance


@torch.no_grad()
def test_a_slot_stays_as_long_as_any_head_can_read_it() -> None:
    memory = adaptive_span(1.0, 6.5, 0.0, 3.0, ramp=2)  # the longest can read up to 8 steps back
    x = features(30, 2)
    out = memory(x, fresh(memory, 2), no_starts(30, 2))
    assert out.stats["effective_memory"][:, 0].tolist() == [min(t, 8) for t in range(30)]
    assert out.state["age.0"].max() == 7  # what the next step finds 8 old
    state = clone_state(out.state)
    for _ in range(40):
        step = memory.step(x[0], state, torch.tensor([False, False]))
        state = step.state
        assert step.stats["effective_memory"].tolist() == [8, 8]
        assert state["age.0"].shape[1] <= 16 + 1


@torch.no_grad()
def test_what_is_remembered_is_the_longest_heads() -> None:
    memory = adaptive_span(0.0, 5.0)
    state = fresh(memory, 1)
    for now in features(20, 1):
        state = memory.step(now, state, torch.tensor([False])).state
    (layer,) = memory.remembered(state)
    shown = {
        age: (strength, left)
        for age, strength, left in zip(
            layer.age[0].tolist(), layer.strength[0].tolist(), layer.steps_left[0].tolist(), strict=True
        )
        if age >= 0
    }
    assert shown.keys() == set(range(9))
    for age, (strength, left) in shown.items():
        assert strength == pytest.approx(min(1, (4 + 5 - age) / 4))
        assert left == 8 - age


@torch.no_grad()
def test_spans_that_change() -> None:
    """Shorter spans hold at once; after they have grown, what was dropped stays gone."""
    memory = adaptive_span(3.0, 10.0, ramp=1)
    state = memory(features(30, 1), fresh(memory, 1), no_starts(30, 1)).state
    set_spans(memory, 3.0, 4.0)
    short = memory(features(1, 1), state, no_starts(1, 1))
    assert short.stats["effective_memory"].item() == 4
    set_spans(memory, 3.0, 10.0)
    assert memory(features(1, 1), state, no_starts(1, 1)).stats["effective_memory"].item() == 10
    grown = memory(features(9, 1), short.state, no_starts(9, 1)).stats["effective_memory"]
    assert grown[:, 0].tolist() == [4, 5, 6, 7, 8, 9, 10, 10, 10]
    state, counts = clone_state(short.state), []
    for now in features(9, 1):
        out = memory.step(now, state, torch.tensor([False]))
        state = out.state
        counts.append(out.stats["effective_memory"].item())
    assert counts == grown[:, 0].tolist()


def test_the_penalty_is_the_mean_span() -> None:
    memory = adaptive_span(2.0, 12.0, n_layers=2)
    with torch.no_grad():
        memory.span_fractions[1].zero_()
    loss = memory(features(5, 3), fresh(memory, 3), no_starts(5, 3)).losses["span"]
    torch.testing.assert_close(loss, torch.full((5, 3), (7.0 + 0.0) / 2, dtype=torch.float64))
    loss.mean().backward()
    expected = torch.full((2,), 20 / 2 / 2, dtype=torch.float64)  # L / heads / layers
    torch.testing.assert_close(memory.span_fractions[0].grad, expected)
    assert (memory.span_fractions[1].grad == 0).all()  # at 0 already


def test_spans_come_back_from_their_limits() -> None:
    """At a limit, or a little beyond, a gradient that points outwards does nothing, any other does all."""
    fraction = torch.tensor([-0.1, 0.0, 0.4, 1.0, 1.1], requires_grad=True)
    for sign, passed in (1.0, [0, 0, 1, 1, 1]), (-1.0, [1, 1, 1, 0, 0]):
        fraction.grad = None
        (sign * within(fraction)).sum().backward()
        assert (sign * fraction.grad).tolist() == passed
    assert within(fraction).tolist() == pytest.approx([0, 0, 0.4, 1, 1])


def test_a_head_learns_the_span_that_it_needs() -> None:
    """Penalty and task find a balance: the cue is six steps back, one head is enough."""
    memory = adaptive_span(12.0, 12.0, max_span=16, ramp=4).float()
    optimizer = torch.optim.Adam(memory.parameters(), lr=0.02)
    read_out = torch.nn.Linear(8, 1)
    optimizer.add_param_group({"params": read_out.parameters()})
    no_start, state = no_starts(7, 32), memory.initial_state(32)
    for _ in range(90):
        x = torch.randn(7, 32, 8)
        x[0, :, 0] = 3 * torch.randn(32).sign()
        out = memory(x, state, no_start)
        error = torch.nn.functional.binary_cross_entropy_with_logits(
            read_out(out.features[-1])[:, 0], (x[0, :, 0] > 0).float()
        )
        optimizer.zero_grad()
        (error + 0.01 * out.losses["span"].mean()).backward()
        optimizer.step()
    assert error < 0.3
    spans = memory.spans(0).detach()
    assert 2 < spans.max() < 11  # 6 steps back lies within the ramp
    assert spans.min() < 4  # from 12


def test_spans_can_have_a_pace_of_their_own() -> None:
    assert adaptive_span(2.0).parameter_groups() == []
    memory = adaptive_span(2.0, span_learning_rate=0.0, n_layers=2)
    (group,) = memory.parameter_groups()
    assert group.learning_rate == 0.0
    assert {id(p) for p in group.parameters} == {id(p) for p in memory.span_fractions}


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
@torch.no_grad()
def test_first_spans_are_a_fraction_of_the_longest(fraction: float) -> None:
    settings = {"max_span": 50, "ramp": 5, "n_layers": 1, "initial_span": fraction}
    memory = make_memory("adaptive-span", 8, settings)
    assert isinstance(memory, AdaptiveSpan)
    torch.testing.assert_close(memory.spans(0), torch.full((4,), 50 * fraction))
    out = memory(features(80, 1, dtype=torch.float32), memory.initial_state(1), no_starts(80, 1))
    assert out.stats["effective_memory"].max() == 50 * fraction + 4
    assert memory.capacity == 54
