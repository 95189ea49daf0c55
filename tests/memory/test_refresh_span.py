"""Refresh-Span against plain loops, and what renewals can and cannot do."""

import math
import runpy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from members import build, features, fresh, starts, unroll
from naive import added, attend, close, span_of
from torch import Tensor
from torch.nn import functional as F

from memspan.memory import MemoryOutput, State, clone_state, make_memory
from memspan.memory.expire_span import ExpireSpan
from memspan.memory.refresh_span import RefreshSpan

MEMBERS = ["refresh-span", "refresh-span, long", "refresh-span, short"]
MARKER = torch.tensor([5.0] + 7 * [0.0], dtype=torch.float64)


def refresh_span(**settings: Any) -> RefreshSpan:
    torch.manual_seed(0)
    memory = make_memory("refresh-span", 8, {"max_span": 20, "ramp": 4, "n_layers": 1} | settings)
    assert isinstance(memory, RefreshSpan)
    return memory.double().eval()  # training moves what the predictors call average


@torch.no_grad()
def set_spans(memory: ExpireSpan, span: float) -> None:
    """Every memory gets this span when it is made."""
    for predictor in memory.span_predictors:
        predictor.weight.zero_()
        predictor.bias.fill_(math.log(span / (memory.max_span - span)) / memory.width**0.5)


@torch.no_grad()
def markers_renew(memory: RefreshSpan, share: float) -> None:
    """A marker gives every memory this share of what is left to L; no other step gives anything."""
    (gate,), (predictor,) = memory.gates, memory.span_predictors
    for parameter in (gate.query.weight, gate.query.bias, gate.key.weight):
        parameter.zero_()
    gate.key.bias.fill_(1.0)
    gate.bias.fill_(-9.0)
    z = F.layer_norm(MARKER, (8,)) / (1 + predictor.eps) ** 0.5  # nothing has moved the average yet
    gate.query.weight[0, 0] = (math.atanh(share) + 9.0) / gate.scale / z[0]


def stream(n_steps: int, *marked: int) -> Tensor:
    """(T, 1, D): noise that is no marker, and markers at some steps."""
    x = features(n_steps, 1)
    x[..., 0] = 0.0
    x[list(marked), 0] = MARKER
    return x


def no_starts(n_steps: int, n_rows: int) -> Tensor:
    return torch.zeros(n_steps, n_rows, dtype=torch.bool)


def run(by: str, memory: RefreshSpan, x: Tensor, state: State | None = None) -> MemoryOutput:
    state = fresh(memory, x.shape[1]) if state is None else clone_state(state)
    start = no_starts(*x.shape[:2])
    return memory(x, state, start) if by == "block" else unroll(memory, x, state, start)


def readable_at(by: str, memory: RefreshSpan, x: Tensor) -> list[set[int]]:
    """The times of the memories that each step can read."""
    found, state = [], fresh(memory, 1)
    for t in range(len(x)):
        state = run(by, memory, x[t : t + 1], state).state if by == "steps" else state
        if by == "block":  # the whole past at once, and a last step that tells what it finds
            before = run("block", memory, x[:t]).state if t else state
            state = run("steps", memory, x[t : t + 1], before).state
        (layer,) = memory.remembered(state)
        found.append({t - age for age in layer.age[layer.readable].tolist()})
    return found


# The equations


@dataclass
class Slot:
    """A memory of the loops below."""

    time: int
    content: Tensor
    span: Tensor
    offer: tuple[int, Tensor] | None = None
    """Of the step whose offer is the best so far: distance then, and query."""
    expired: bool = False


@dataclass
class Row:
    """What the loops give for one row."""

    features: list[Tensor] = field(default_factory=list)
    charged: list[Tensor] = field(default_factory=list)
    effective: list[float] = field(default_factory=list)
    kept: list[list[Slot]] = field(default_factory=list)


def offered(memory: RefreshSpan, layer: int, distance: int, query: Tensor, content: Tensor) -> Tensor:
    """d + (L - d) tanh(g) for a score of g = q.k / sqrt(r) + c above 0, d + L tanh(g) for others."""
    gate = memory.gates[layer]
    key = gate.key(standardised(memory, layer, content))
    score = (query * key).sum() / math.sqrt(memory.renewal_width) + gate.bias
    reach = memory.max_span - distance if score > 0 else memory.max_span
    return distance + reach * torch.tanh(score)


def standardised(memory: RefreshSpan, layer: int, content: Tensor) -> Tensor:
    predictor = memory.span_predictors[layer]
    return (content.detach() - predictor.mean) / (predictor.variance + predictor.eps).sqrt()


def run_row(
    memory: RefreshSpan, x: Tensor, episode_starts: Tensor, cached: list[list[Slot]] | None = None
) -> Row:
    """One row (T, D) of a block, whose first step has time 0; cached memories have negative times."""
    out = Row(kept=cached or [[] for _ in memory.layers])
    for t, now in enumerate(x):
        if episode_starts[t]:
            out.kept = [[] for _ in memory.layers]
        h, charged, effective = now, now.new_zeros(()), 0
        for n, layer in enumerate(memory.layers):
            u = F.layer_norm(h, h.shape)
            query = memory.gates[n].query(standardised(memory, n, u))
            read = []
            for slot in out.kept[n]:
                distance = t - slot.time
                slot.expired = slot.expired or distance >= slot.span.item() + memory.ramp
                if slot.expired:
                    continue
                if distance < memory.max_span:
                    offer = offered(memory, n, distance, query, slot.content)
                    if offer > slot.span:
                        charged = charged + offer - slot.span
                        slot.span, slot.offer = offer, (distance, query)
                mask = (1 + (slot.span - distance) / memory.ramp).clamp(0, 1)
                read.append((distance, slot.content, mask))
                effective += 1
            new = Slot(t, u, span_of(memory, n, u))
            charged = charged + new.span
            out.kept[n].append(new)
            read.append((0, u, torch.ones_like(new.span)))
            h = added(layer.residual, h, attend(layer, u, read, memory.longest_distance))
            feed_forward = layer.feed_forward
            h = h + feed_forward.down(feed_forward.up(feed_forward.norm(h)).clamp(min=0))
        out.features.append(memory.norm(h))
        out.charged.append(charged / len(memory.layers))
        out.effective.append(effective / len(memory.layers))
    return out


def later(memory: RefreshSpan, kept: list[list[Slot]], n_steps: int) -> list[list[Slot]]:
    """What a block leaves to the next one: contents and queries without gradient, spans computed anew."""
    after: list[list[Slot]] = []
    for n, slots in enumerate(kept):
        after.append([])
        for slot in slots:
            content = slot.content.detach()
            if slot.offer:
                distance, query = slot.offer[0], slot.offer[1].detach()
                span = offered(memory, n, distance, query, content)
                new = Slot(slot.time - n_steps, content, span, (distance, query), slot.expired)
            else:
                span = span_of(memory, n, content)
                new = Slot(slot.time - n_steps, content, span, None, slot.expired)
            after[n].append(new)
    return after


@pytest.mark.parametrize("pattern", ["never", "middle", "random"])
@pytest.mark.parametrize("member", MEMBERS)
def test_two_blocks_equal_the_loops(member: str, pattern: str) -> None:
    """Features, penalty, effective memory; gradients, those of predictor and gate through the cache too."""
    memory = build(member)
    assert isinstance(memory, RefreshSpan)
    for layer in memory.layers:  # in full precision: spans would make much of small differences
        exponents = torch.linspace(0, 1, layer.n_frequencies, dtype=torch.float64)
        layer.frequencies = float(memory.longest_distance) ** -exponents
    for predictor in memory.span_predictors:
        predictor.mean, predictor.variance = 0.5 * torch.randn(8).double(), 0.5 + torch.rand(8).double()
    n_rows, lengths = 2, (7, 6)
    xs = [features(t, n_rows, seed=t).requires_grad_() for t in lengths]
    state = fresh(memory, n_rows)
    fast: list[Tensor] = []
    slow: list[Tensor] = []
    cached: list[Any] = [None] * n_rows
    for x in xs:
        episode_starts = starts(pattern, len(x), n_rows + 1)[:, :n_rows]
        out = memory(x, state, episode_starts)
        state = out.state
        rows = [run_row(memory, x[:, b], episode_starts[:, b], cached[b]) for b in range(n_rows)]
        cached = [later(memory, row.kept, len(x)) for row in rows]
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
    # Of the second block alone, so that nothing hides what reaches predictor and gate through the cache.
    wanted = [xs[1], *memory.parameters()]
    got = torch.autograd.grad((fast[-1] * weight).sum(), wanted, retain_graph=True, materialize_grads=True)
    expected = torch.autograd.grad((slow[-1] * weight).sum(), wanted, materialize_grads=True)
    for one, other in zip(got, expected, strict=True):
        close(one, other)
    # What is cached is without gradient.
    assert torch.autograd.grad(fast[-1].sum(), xs[0], allow_unused=True) == (None,)


def test_the_loops_see_every_kind_of_memory() -> None:
    """In what they are compared on: renewed or not, alive or expired."""
    seen = set()
    for member in MEMBERS:
        memory = build(member)
        assert isinstance(memory, RefreshSpan)
        row = run_row(memory, features(13, 1)[:, 0], no_starts(13, 1)[:, 0])
        seen |= {(slot.offer is not None, slot.expired) for slots in row.kept for slot in slots}
    assert len(seen) == 4


# Renewals


@torch.no_grad()
def test_without_offers_it_is_expire_span() -> None:
    settings = {"max_span": 12, "ramp": 3, "initial_span": 0.3}
    plain = make_memory("expire-span", 8, settings).double().eval()
    memory = refresh_span(**settings, n_layers=2, initial_renewal=-0.99)
    for predictor in memory.span_predictors:
        predictor.weight.normal_()
    plain.load_state_dict({k: v for k, v in memory.state_dict().items() if not k.startswith("gates")})
    x, episode_starts = features(40, 3), starts("random", 40, 3)
    ours = memory(x, fresh(memory, 3), episode_starts)
    theirs = plain(x, fresh(plain, 3), episode_starts)
    torch.testing.assert_close(ours.features, theirs.features)
    torch.testing.assert_close(ours.losses["span"], theirs.losses["span"])
    torch.testing.assert_close(ours.stats["effective_memory"], theirs.stats["effective_memory"])


@pytest.mark.parametrize("by", ["block", "steps"])
@torch.no_grad()
def test_a_renewal_reaches_what_is_alive_and_nothing_else(by: str) -> None:
    """Spans of 3.5 and a ramp of 4: a memory can be read up to 7 steps later. The marker comes at 12."""
    memory = refresh_span()
    set_spans(memory, 3.5)
    markers_renew(memory, 0.52)
    x = stream(30, 12)
    read = readable_at(by, memory, x)
    assert read[11] == set(range(4, 11))
    assert read[12] == set(range(5, 12))
    # Memory i, at d = 12 - i, gets a span of d + 0.52 (20 - d): it is readable until R later.
    for t in range(13, 30):
        renewed = {i for i in range(5, 12) if t < 12 + 0.52 * (8 + i) + 4}
        assert read[t] == renewed | set(range(max(t - 7, 12), t)), t
    assert run(by, memory, x).stats["effective_memory"].tolist()[20] == [len(read[20])]


@pytest.mark.parametrize("n_queries", [1, 2, 8])
@torch.no_grad()
def test_a_step_renews_before_it_reads(n_queries: int) -> None:
    """What the step before could read in part, the marker reads in full."""
    memory = refresh_span()
    set_spans(memory, 3.5)
    markers_renew(memory, 0.5)
    slots = F.pad(F.layer_norm(stream(8, 7), (8,)), (0, memory.n_notes)).transpose(0, 1)
    time = torch.arange(8, dtype=torch.float64)
    mask = memory.readable(0, slots, (time[:, None] - time)[None, -n_queries:]).bias.exp()[0]
    assert mask[-1].tolist() == [1.0] * 8
    if n_queries > 1:
        expected = [0.375, 0.625, 0.875, 1, 1, 1, 1, 0]
        torch.testing.assert_close(mask[-2], torch.tensor(expected, dtype=torch.float64))


@torch.no_grad()
def test_no_renewal_lasts_beyond_the_longest_span() -> None:
    memory = refresh_span()
    set_spans(memory, 3.5)
    markers_renew(memory, 0.999999)
    out = run("block", memory, stream(60, *range(60)))
    assert out.stats["effective_memory"].max() == memory.capacity == 23


@torch.no_grad()
def test_an_offer_that_is_no_more_changes_nothing() -> None:
    """Of two markers the one whose offer ends later counts; a memory with a longer span keeps its own."""
    memory = refresh_span(max_span=40)
    set_spans(memory, 30.0)
    markers_renew(memory, 0.5)
    x = stream(20, 4, 8)
    spans: dict[int, list[float]] = {}
    for n in range(1, 21):
        state = run("block", memory, x[:n]).state
        used = state["age.0"][0] >= 0
        spans[n] = memory.spans(0, state["hidden.0"])[0][used].tolist()
    assert all(span == pytest.approx(30.0) for found in spans.values() for span in found)
    set_spans(memory, 5.0)
    state = run("block", memory, x[:9]).state
    (span,) = memory.spans(0, state["hidden.0"])[state["age.0"] == 8]
    assert span == pytest.approx(8 + 32 / 2)  # from the second, not 4 + 36 / 2 from the first


@pytest.mark.parametrize("by", ["block", "steps"])
@torch.no_grad()
def test_what_has_expired_never_comes_back(by: str) -> None:
    """Not even when spans and offers have become longer since."""
    memory = refresh_span(max_span=100)
    set_spans(memory, 5.5)
    markers_renew(memory, 0.9)
    state = run(by, memory, stream(30)).state
    set_spans(memory, 90.0)
    out = run(by, memory, stream(1, 0), state)
    kept = 9 if by == "block" else 10  # stepwise, a slot is dropped when it expires and not a step before
    assert out.stats["effective_memory"].tolist() == [[kept]]
    assert run(by, memory, stream(5, 2), out.state).stats["effective_memory"][-1] == kept + 5


@torch.no_grad()
def test_a_renewal_ends_with_its_memory() -> None:
    """A new memory in the slot of a renewed one that has expired has its own span alone."""
    memory = refresh_span(max_span=40)
    set_spans(memory, 3.5)
    markers_renew(memory, 0.2)
    read = run("steps", memory, stream(40, 4)).stats["effective_memory"][:, 0]
    assert read[10] == 10  # the renewed ones, too
    assert read[-20:].tolist() == [7] * 20


# What is charged, and what learns


@pytest.mark.parametrize("by", ["block", "steps"])
@torch.no_grad()
def test_the_life_that_is_given_is_charged_when_it_is_given(by: str) -> None:
    memory = refresh_span()
    set_spans(memory, 3.5)
    markers_renew(memory, 0.5)
    charged = run(by, memory, stream(16, 12, 14)).losses["span"][:, 0]
    expected = torch.full((16,), 3.5, dtype=torch.float64)
    # Memories at d = 1..7 go from 3.5 to 10 + d / 2; two steps later each gets one more, and those at 1 and 2
    # (the marker's own memory is one) come anew.
    expected[12] += sum(10 + d / 2 - 3.5 for d in range(1, 8))
    expected[14] += 7 * 1.0 + sum(10 + d / 2 - 3.5 for d in (1, 2))
    torch.testing.assert_close(charged, expected)


def test_over_a_life_the_last_offer_is_charged() -> None:
    """What the first span and earlier offers cost cancels out, in the gradient too."""
    memory = build("refresh-span, long")
    assert isinstance(memory, RefreshSpan)
    memory.max_span = 40
    out = memory(features(12, 1), fresh(memory, 1), no_starts(12, 1))
    row = run_row(memory, features(12, 1)[:, 0], no_starts(12, 1)[:, 0])
    total = sum(slot.span for slots in row.kept for slot in slots) / 2
    torch.testing.assert_close(out.losses["span"].sum(), total)
    wanted = [*memory.gates.parameters(), *memory.span_predictors.parameters()]
    got = torch.autograd.grad(out.losses["span"].sum(), wanted)
    for one, other in zip(got, torch.autograd.grad(total, wanted), strict=True):
        close(one, other)


def test_cached_renewals_teach_the_gate() -> None:
    """A block of one step that gives nothing: what is inside its ramp was renewed long before."""
    memory = refresh_span(max_span=40)
    set_spans(memory, 3.5)
    markers_renew(memory, 0.2)
    state = run("block", memory, stream(15, 4)).state
    assert (state["hidden.0"][state["age.0"] >= 0][:, -1] > 0).sum() == 4
    out = run("block", memory, stream(1), state)
    out.features.square().sum().backward()
    (gate,) = memory.gates
    assert gate.key.weight.grad.abs().sum() > 0
    assert gate.key.bias.grad.abs().sum() > 0
    assert gate.bias.grad.abs() > 0
    assert gate.query.weight.grad.abs().sum() == 0  # its part was stored without a graph
    # In the block of the renewal it learns as well.
    memory.zero_grad()
    run("block", memory, stream(16, 4)).features[-1].square().sum().backward()
    assert gate.query.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("by", ["block", "steps"])
@torch.no_grad()
def test_spans_are_computed_with_todays_gate(by: str) -> None:
    """After an update the old offers of cached memories are worth what the gate makes of them now."""
    memory = refresh_span(max_span=40)
    set_spans(memory, 3.5)
    markers_renew(memory, 0.5)
    state = run(by, memory, stream(6, 4)).state
    spans = memory.spans(0, state["hidden.0"])[state["age.0"] == 5]
    assert spans.item() == pytest.approx(4 + 36 * 0.5)
    memory.gates[0].bias += math.atanh(0.26) - math.atanh(0.5)
    spans = memory.spans(0, state["hidden.0"])[state["age.0"] == 5]
    assert spans.item() == pytest.approx(4 + 36 * 0.26)
    x = stream(20)
    read = run(by, memory, x, state).stats["effective_memory"][:, 0].tolist()
    # The oldest goes 17 steps after it was made, the next three, whose offers were shorter, later.
    old = [sum(4 - i + (36 + i) * 0.26 + 4 > t - i for i in range(4)) for t in range(6, 26)]
    assert read == [old[t - 6] + min(t - 4, 7) for t in range(6, 26)]


@pytest.mark.parametrize("renewal_width", [4, 8, 16])
@torch.no_grad()
def test_at_first_a_step_renews_what_resembles_it(renewal_width: int) -> None:
    memory = refresh_span(max_span=50, initial_span=0.2, renewal_width=renewal_width, initial_renewal=-0.8)
    x = stream(9)
    x[8] = x[1]
    state = run("block", memory, x).state
    spans = dict(zip(state["age.0"][0].tolist(), memory.spans(0, state["hidden.0"])[0].tolist(), strict=True))
    if renewal_width >= 8:  # all of a memory is compared
        score = 8 / renewal_width**0.5 / 1.001 + math.atanh(-0.8)
        assert spans[7] == pytest.approx(7 + 43 * math.tanh(score), rel=1e-4)
    assert max(spans, key=spans.__getitem__) == 7


@torch.no_grad()
def test_a_step_unlike_all_offers_what_is_set() -> None:
    memory = refresh_span(max_span=50, initial_span=0.1, initial_renewal=0.6)
    memory.gates[0].query.weight.zero_()
    state = run("block", memory, features(5, 1)).state
    used = state["age.0"] >= 0
    spans = memory.spans(0, state["hidden.0"])[used]
    assert spans.tolist() == pytest.approx([d + (50 - d) * 0.6 if d else 5.0 for d in (4, 3, 2, 1, 0)])


def test_spans_are_shortened_in_training_only() -> None:
    memory = refresh_span(max_span=40, initial_span=0.89, shorten_spans=True)
    x, state, no_start = features(60, 2), fresh(memory, 2), no_starts(60, 2)
    memory.train()
    kept = [memory(x, state, no_start).stats["effective_memory"][-1, 0].item() for _ in range(8)]
    assert len(set(kept)) > 3
    memory.eval()
    assert len({memory(x, state, no_start).stats["effective_memory"][-1, 0].item() for _ in range(3)}) == 1


def test_training_moves_the_average_and_acting_does_not() -> None:
    memory = refresh_span()
    (predictor,) = memory.span_predictors
    x = features(7, 2) + 3
    with torch.no_grad():
        memory.train()(x, fresh(memory, 2), no_starts(7, 2))
    assert predictor.mean.norm() == 0
    memory(x, fresh(memory, 2), no_starts(7, 2))
    expected = 0.01 * F.layer_norm(x, (8,)).mean((0, 1))
    torch.testing.assert_close(predictor.mean, expected)


def test_renewals_do_not_shape_the_memories() -> None:
    memory = build("refresh-span")
    x = features(9, 1).requires_grad_()
    loss = memory(x, fresh(memory, 1), no_starts(9, 1)).losses["span"].sum()
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(loss, x)


def test_predictor_and_gate_share_a_pace_of_their_own() -> None:
    assert refresh_span().parameter_groups() == []
    memory = refresh_span(span_learning_rate=0.0)
    (group,) = memory.parameter_groups()
    own = [*memory.span_predictors.parameters(), *memory.gates.parameters()]
    assert {id(p) for p in group.parameters} == {id(p) for p in own}


# What it is for


@pytest.fixture(scope="module")
def renewal() -> dict[str, Any]:
    """The demonstration's names."""
    return runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "renewal.py"))


def test_the_card_asked_for_is_the_marked_one(renewal: dict[str, Any]) -> None:
    batch = renewal["draw"](torch.Generator().manual_seed(0))
    keys, colours = batch.x[..., :12], batch.x[..., 12:16]
    for row, gap in enumerate(batch.gap.tolist()):
        marker = 31 - gap
        assert batch.x[marker, row, 16] > 0
        assert batch.x[31, row, 17] > 0
        assert batch.x[:, row, 16:18].count_nonzero() == 2
        same = (keys[:, row] == keys[31, row]).all(-1).nonzero().squeeze(-1).tolist()
        card = next(t for t in same if marker - 3 <= t < marker)
        assert {marker, 31} <= set(same)
        assert colours[card, row].argmax() == batch.colour[row]
        assert colours[[marker, 31], row].count_nonzero() == 0


@pytest.mark.slow
def test_what_matters_later_is_kept_where_expire_span_keeps_all_or_nothing(renewal: dict[str, Any]) -> None:
    """15.5 memories are all that a step can read, on average; chance is 0.25."""
    train = renewal["train"]
    unpunished = train("expire-span", seed=0, updates=150, penalty=0.0)
    assert unpunished.accuracy_long > 0.95
    assert unpunished.effective_memory > 15
    punished = train("expire-span", seed=0, updates=300, penalty=0.08)
    assert punished.accuracy_long < 0.5
    renewed = train("refresh-span", seed=0, updates=300, penalty=0.08)
    assert renewed.accuracy_long > 0.6
    assert renewed.effective_memory < min(6, punished.effective_memory)
