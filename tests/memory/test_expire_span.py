"""Expire-Span against plain loops, and what expires when."""

import math
from typing import Any

import pytest
import torch
from members import build, features, fresh, starts
from naive import close, expiring, later, run_row, span_of
from torch import Tensor

from memspan.memory import State, clone_state, make_memory, span_attention
from memspan.memory.expire_span import ExpireSpan

MEMBERS = ["expire-span", "expire-span, long", "expire-span, short"]


def expire_span(width: int = 8, **settings: Any) -> ExpireSpan:
    torch.manual_seed(0)
    memory = make_memory("expire-span", width, settings)
    assert isinstance(memory, ExpireSpan)
    return memory.double().eval()  # training moves what the predictors call average


def set_spans(memory: ExpireSpan, span: float) -> None:
    """Every memory of every layer gets this span."""
    logit = math.log(span / (memory.max_span - span)) / memory.logit_scale
    with torch.no_grad():
        for predictor in memory.span_predictors:
            predictor.weight.zero_()
            predictor.mean.zero_()
            predictor.bias.fill_(logit / memory.width**0.5)


def no_starts(n_steps: int, n_rows: int) -> Tensor:
    return torch.zeros(n_steps, n_rows, dtype=torch.bool)


def n_slots(state: State) -> int:
    return state["age.0"].shape[1]


def n_used(state: State) -> list[int]:
    return (state["age.0"] >= 0).sum(1).tolist()


@pytest.mark.parametrize("cost_of_an_entry", [-1, 10**9], ids=["listed", "masked"])
@pytest.mark.parametrize("pattern", ["never", "middle", "random"])
@pytest.mark.parametrize("member", MEMBERS)
def test_two_blocks_equal_the_loops(
    member: str, pattern: str, cost_of_an_entry: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features, penalty, effective memory; gradients, those of w and b through cached slots too."""
    monkeypatch.setattr(span_attention, "COST_OF_AN_ENTRY", cost_of_an_entry)
    memory = build(member)
    assert isinstance(memory, ExpireSpan)
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
            run_row(memory, expiring(memory), x[:, b], episode_starts[:, b], cached[b]) for b in range(n_rows)
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
    # Of the second block alone, so that nothing hides what reaches w and b through the cache.
    wanted = [xs[1], *memory.parameters()]
    got = torch.autograd.grad((fast[-1] * weight).sum(), wanted, retain_graph=True)
    expected = torch.autograd.grad((slow[-1] * weight).sum(), wanted, retain_graph=True)
    for one, other in zip(got, expected, strict=True):
        close(one, other)
    # What is cached is without gradient.
    assert torch.autograd.grad(fast[-1].sum(), xs[0], allow_unused=True) == (None,)


def test_cached_memories_teach_the_predictor() -> None:
    """A block of one step: every memory inside its ramp is a cached one, stored without a graph."""
    memory = expire_span(max_span=20, ramp=10, n_layers=1)
    set_spans(memory, 3.5)
    state = memory(features(8, 1), fresh(memory, 1), no_starts(8, 1)).state
    out = memory(features(1, 1, seed=4), state, no_starts(1, 1))
    out.features.square().sum().backward()
    predictor = memory.span_predictors[0]
    assert predictor.weight.grad.abs().sum() > 0
    assert predictor.bias.grad.abs().sum() > 0


def test_spans_are_computed_with_todays_predictor() -> None:
    """After an update, cached memories have the spans of the new w and b, forwards and stepwise."""
    memory = build("expire-span")
    assert isinstance(memory, ExpireSpan)
    x, x_after = features(6, 1), features(4, 1, seed=3)
    out = memory(x, fresh(memory, 1), no_starts(6, 1))
    row = run_row(memory, expiring(memory), x[:, 0], no_starts(6, 1)[:, 0])
    with torch.no_grad():
        for predictor in memory.span_predictors:
            # Spans only get shorter: all that matters is still cached.
            predictor.bias -= 0.7 / memory.width**0.5
    slow = run_row(memory, expiring(memory), x_after[:, 0], no_starts(4, 1)[:, 0], later(row.kept, 6))
    expected = torch.stack(slow.features)[:, None]
    close(memory(x_after, out.state, no_starts(4, 1)).features, expected)
    state = clone_state(out.state)
    with torch.no_grad():
        for t in range(4):
            step = memory.step(x_after[t], state, torch.tensor([False]))
            state = step.state
            close(step.features, expected[t])


@torch.no_grad()
def test_what_is_left_of_a_memory() -> None:
    """Constant spans: full for e steps, then a ramp of R steps, then gone."""
    memory = expire_span(max_span=20, ramp=4, n_layers=1)
    set_spans(memory, 5.5)
    distance = torch.arange(12, dtype=torch.float64)[None, None]
    slots = features(12, 1).transpose(0, 1)
    seen = memory.readable(0, slots, distance)
    mask = seen.bias.exp()[0, 0]
    expected = [1, 1, 1, 1, 1, 1, 0.875, 0.625, 0.375, 0.125, 0, 0]
    torch.testing.assert_close(mask, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(memory.spans(0, slots), torch.full((1, 12), 5.5, dtype=torch.float64))
    out = memory(features(30, 2), fresh(memory, 2), no_starts(30, 2))
    assert out.stats["effective_memory"][-1].tolist() == [9, 9]
    # Four memories are inside their ramp at any time: e / R of each is e.
    torch.testing.assert_close(out.losses["span"][-1], torch.full((2,), 5.5, dtype=torch.float64))


def test_every_memory_is_charged_its_span_once_in_its_ramp() -> None:
    """Over its whole life; only the youngest have not been charged in full."""
    memory = expire_span(max_span=8, ramp=3, n_layers=1, penalty="ramp")
    with torch.no_grad():
        memory.span_predictors[0].weight.normal_()
    n_steps = 60
    x = features(n_steps, 1)
    charged = memory(x, fresh(memory, 1), no_starts(n_steps, 1)).losses["span"].sum()
    spans = memory.spans(0, torch.nn.functional.layer_norm(x[:, 0], (8,))[None])[0]
    # How often each was inside its ramp, of the ages that it went through.
    times = torch.stack(
        [
            sum((age > span) & (age < span + 3) for age in range(n_steps - birth))
            for birth, span in enumerate(spans)
        ]
    )
    assert (times[:-11] == 3).all()
    assert (times[-11:] < 3).any()
    torch.testing.assert_close(charged, (times * spans / 3).sum())
    bias = memory.span_predictors[0].bias
    torch.testing.assert_close(
        torch.autograd.grad(charged, bias), torch.autograd.grad((times * spans / 3).sum(), bias)
    )


@pytest.mark.parametrize("by", ["block", "steps"])
@torch.no_grad()
def test_the_cache_shrinks_with_the_spans(by: str) -> None:
    memory = expire_span(max_span=100, ramp=4)
    set_spans(memory, 60.5)
    state = memory(features(90, 2), fresh(memory, 2), no_starts(90, 2)).state
    assert n_used(state) == [64, 64]  # still to be read by the next step, which sees them one step older
    wide = n_slots(state)
    set_spans(memory, 9.5)
    if by == "block":
        state = memory(features(2, 2), state, no_starts(2, 2)).state
        assert n_slots(state) <= 14 < wide
    else:
        state = memory.step(features(1, 2)[0], state, no_starts(1, 2)[0]).state
    assert all(used <= 14 for used in n_used(state))


@torch.no_grad()
def test_compact_gives_back_what_steps_have_freed() -> None:
    """A rollout is made of steps alone; after two lives of the longer memories, their slots are gone."""
    memory = expire_span(max_span=100, ramp=4)
    set_spans(memory, 60.5)
    state = memory(features(90, 2), fresh(memory, 2), no_starts(90, 2)).state
    set_spans(memory, 9.5)
    for now in features(130, 2):
        state = memory.step(now, state, no_starts(1, 2)[0]).state
    assert n_slots(state) > 60
    compact = memory.compact(state)
    assert n_slots(compact) == 14  # what the next step can still read, and a free slot for itself
    x = features(5, 2)
    torch.testing.assert_close(
        memory(x, compact, no_starts(5, 2)).features, memory(x, state, no_starts(5, 2)).features
    )


@pytest.mark.parametrize("by", ["block", "steps"])
@torch.no_grad()
def test_what_has_expired_never_comes_back(by: str) -> None:
    memory = expire_span(max_span=100, ramp=4)
    state = fresh(memory, 2)
    set_spans(memory, 5.5)

    def advance(n_steps: int, state: State) -> tuple[Tensor, State]:
        x = features(n_steps, 2, seed=n_steps)
        if by == "block":
            out = memory(x, state, no_starts(n_steps, 2))
            return out.stats["effective_memory"][-1], out.state
        for now in x:
            out = memory.step(now, state, no_starts(1, 2)[0])
            state = out.state
        return out.stats["effective_memory"], state

    effective, state = advance(30, state)
    assert effective.tolist() == [9, 9]
    set_spans(memory, 90.5)
    effective, state = advance(1, state)
    # Those of the last steps and no other; stepwise, a slot is dropped when it expires and not a step before.
    kept = 9 if by == "block" else 10
    assert effective.tolist() == [kept, kept]
    effective, state = advance(5, state)
    assert effective.tolist() == [kept + 5, kept + 5]


def test_while_training_what_a_block_forgot_is_not_kept() -> None:
    """What is kept is decided by the predictors that the block read with, though they have moved since."""
    memory = expire_span(max_span=60, ramp=2).train()
    with torch.no_grad():
        for predictor in memory.span_predictors:
            predictor.weight.copy_(3 * torch.randn(8))
            predictor.decay = 0.5  # moves far
    read_with = expire_span(max_span=60, ramp=2)
    state, moved = fresh(memory, 3), False
    for seed in range(5):
        read_with.load_state_dict(memory.state_dict())
        state = memory(features(20, 3, seed=seed), state, no_starts(20, 3)).state
        for n in range(memory.n_layers):
            slots, age = state[f"hidden.{n}"], state[f"age.{n}"]
            used = age >= 0
            assert (age < read_with.lifetime(n, slots))[used].all()
            moved |= bool((age >= memory.lifetime(n, slots))[used].any())
    assert moved


@torch.no_grad()
def test_rows_expire_different_slots() -> None:
    memory = build("expire-span, long")
    assert isinstance(memory, ExpireSpan)
    out = memory(features(60, 3), fresh(memory, 3), no_starts(60, 3))
    used = n_used(out.state)
    assert len(set(used)) > 1
    # A row's kept slots are those whose span is not over, wherever they are.
    hidden, age = out.state["hidden.0"], out.state["age.0"]
    for slots, row in zip(hidden, age, strict=True):
        for slot, a in zip(slots, row.tolist(), strict=True):
            if a >= 0:
                assert a + 1 < span_of(memory, 0, slot) + memory.ramp
    assert n_slots(out.state) <= max(used) + 1


@pytest.mark.parametrize("divide", [False, True])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
@torch.no_grad()
def test_first_spans_are_a_fraction_of_the_longest(fraction: float, divide: bool) -> None:
    memory = expire_span(max_span=2000, ramp=16, initial_span=fraction, divide_logit_by_ramp=divide)
    for layer in range(2):
        spans = memory.spans(layer, features(5, 3).transpose(0, 1))
        expected = torch.full((3, 5), 2000 * fraction, dtype=torch.float64)
        torch.testing.assert_close(spans, expected, rtol=1e-5, atol=0)


def test_dividing_by_the_ramp_calms_large_spans() -> None:
    """The same step of b moves a span R times less."""
    slopes = []
    for divide in False, True:
        memory = expire_span(max_span=2000, ramp=16, divide_logit_by_ramp=divide)
        memory.spans(0, features(1, 1)).sum().backward()
        slopes.append(memory.span_predictors[0].bias.grad.item())
    assert slopes[0] == pytest.approx(16 * slopes[1])


def test_spans_are_shortened_in_training_only() -> None:
    memory = expire_span(max_span=40, ramp=4, initial_span=0.89, shorten_spans=True)
    x, state, no_start = features(60, 2), fresh(memory, 2), no_starts(60, 2)
    memory.train()
    torch.manual_seed(1)
    kept = [memory(x, state, no_start).stats["effective_memory"][-1, 0].item() for _ in range(8)]
    assert len(set(kept)) > 3
    assert max(kept) <= 40
    memory.eval()
    assert {memory(x, state, no_start).stats["effective_memory"][-1, 0].item() for _ in range(3)} == {39}
    memory.train()
    with torch.no_grad():  # acting, whatever the mode
        assert memory(x, state, no_start).stats["effective_memory"][-1, 0] == 39
    # What is kept is decided by the spans, not by the moment's limit.
    state = memory(x, state, no_start).state
    assert n_used(state) == [39, 39]


def test_the_predictor_can_have_a_pace_of_its_own() -> None:
    assert expire_span().parameter_groups() == []
    memory = expire_span(span_learning_rate=0.0)
    (group,) = memory.parameter_groups()
    assert group.learning_rate == 0.0
    assert {id(p) for p in group.parameters} == {id(p) for p in memory.span_predictors.parameters()}


def test_capacity_is_the_longest_life() -> None:
    memory = expire_span(max_span=8, ramp=3, n_layers=1)
    with torch.no_grad():
        memory.span_predictors[0].bias.fill_(1e9)
        out = memory(features(30, 1), fresh(memory, 1), no_starts(30, 1))
    assert out.stats["effective_memory"].max() == memory.capacity == 10


@torch.no_grad()
def test_large_spans_and_many_starts_in_single_precision() -> None:
    """Distances stay whole numbers, whatever a block has to tell apart."""
    torch.manual_seed(0)
    memory = make_memory("expire-span", 8, {"max_span": 100_000, "ramp": 16, "n_layers": 1})
    x, episode_starts = features(400, 1, dtype=torch.float32), torch.ones(400, 1, dtype=torch.bool)
    episode_starts[-20:] = False
    out = memory(x, memory.initial_state(1), episode_starts)
    assert out.stats["effective_memory"][:, 0].tolist() == [0] * 380 + list(range(1, 21))
    alone = memory(x[379:], memory.initial_state(1), episode_starts[379:])
    torch.testing.assert_close(out.features[379:], alone.features, atol=1e-4, rtol=1e-4)


def test_the_predictor_follows_the_average_memory() -> None:
    memory = expire_span(max_span=40)
    predictor = memory.span_predictors[0]
    slots = 3 * features(7, 2).transpose(0, 1) + 3
    for _ in range(2000):
        predictor.update_statistics(slots)
    flat = slots.flatten(0, 1)
    torch.testing.assert_close(predictor.mean, flat.mean(0))
    torch.testing.assert_close(predictor.variance, flat.var(0, correction=0))
    with torch.no_grad():
        predictor.weight.normal_()
    torch.testing.assert_close(predictor(slots).mean(), memory.width**0.5 * predictor.bias)


def test_only_training_moves_the_average() -> None:
    memory = expire_span(max_span=40)
    predictor = memory.span_predictors[0]
    x = features(7, 2) + 3
    with torch.no_grad():
        memory.train()(x, fresh(memory, 2), no_starts(7, 2))
    memory.eval()(x, fresh(memory, 2), no_starts(7, 2))
    assert predictor.mean.norm() == 0
    assert (predictor.variance == 1).all()
    memory.train()(x, fresh(memory, 2), no_starts(7, 2))
    assert predictor.mean.norm() > 0
    assert (predictor.variance != 1).all()


def test_a_block_is_read_with_the_average_from_before_it() -> None:
    """So that the first update starts from the policy that acted."""
    memory = expire_span(max_span=12, n_layers=1)
    with torch.no_grad():
        memory.span_predictors[0].weight.normal_()
    x = features(30, 2) + 3
    before = memory(x, fresh(memory, 2), no_starts(30, 2)).features
    torch.testing.assert_close(memory.train()(x, fresh(memory, 2), no_starts(30, 2)).features, before)


def test_the_penalty_moves_the_bias_and_not_the_weights() -> None:
    """Where all memories are alike, and what the predictor learns from is standardised."""
    memory = expire_span(max_span=40, n_layers=1)
    predictor = memory.span_predictors[0]
    x = features(1, 1).expand(9, 1, -1)
    predictor.mean = torch.nn.functional.layer_norm(x[0, 0], (memory.width,))
    memory(x, fresh(memory, 1), no_starts(9, 1)).losses["span"].mean().backward()
    assert predictor.bias.grad > 1
    torch.testing.assert_close(predictor.weight.grad, torch.zeros(memory.width, dtype=torch.float64))


def test_spans_do_not_shape_the_memories() -> None:
    memory = expire_span(max_span=40)
    with torch.no_grad():
        for predictor in memory.span_predictors:
            predictor.weight.normal_()
    x = features(9, 1).requires_grad_()
    loss = memory(x, fresh(memory, 1), no_starts(9, 1)).losses["span"].sum()
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(loss, x)
