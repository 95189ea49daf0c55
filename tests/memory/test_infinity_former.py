"""infinity-former against plain loops, and what its long-term memory holds."""

import math
from dataclasses import dataclass, field

import pytest
import torch
from members import assert_same, build, features, fresh, starts, unroll
from naive import attend, close
from test_continuous_signal import appended, begun, evenly, quantile_places
from torch import Tensor
from torch.nn import functional as F

from memspan.memory import clone_state, make_memory, state_bytes
from memspan.memory.infinity_former import InfinityFormer, SignalAttention

MEMBERS = {
    "infinity-former": (0.6, 0.01),
    "infinity-former, not sticky": (0.75, 0.01),
    "infinity-former, every step": (0.6, 0.01),
}
"""Member -> tau and ridge."""


@dataclass
class Past:
    """What one row remembers of its episode."""

    n_steps: int = 0
    slots: list[list[tuple[int, Tensor]]] = field(default_factory=list)
    """Per layer: time and content of every step; none is ever dropped."""
    signals: list[Tensor | None] = field(default_factory=list)
    histograms: list[Tensor] = field(default_factory=list)

    @classmethod
    def none(cls, n_layers: int, n_basis: int) -> "Past":
        empty = torch.zeros(n_basis, dtype=torch.float64)
        return cls(0, [[] for _ in range(n_layers)], [None] * n_layers, [empty] * n_layers)

    def later(self, n_steps: int) -> "Past":
        """For the next block: without gradient, times counted from there."""
        return Past(
            self.n_steps,
            [[(i - n_steps, slot.detach()) for i, slot in layer] for layer in self.slots],
            [None if signal is None else signal.detach() for signal in self.signals],
            [histogram.detach() for histogram in self.histograms],
        )


def read_signal(attention: SignalAttention, u: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
    """What one query reads, and how much of its densities lies in each part of the signal."""
    n_heads, n_basis, d = attention.n_heads, len(signal), len(u) // attention.n_heads
    width, histogram, heads = 0.5 / (n_basis - 1), torch.zeros(n_basis, dtype=u.dtype), []
    query, keys, values = attention.query(u), attention.key(signal), attention.value(signal)
    for head in range(n_heads):
        of_head = slice(head * d, (head + 1) * d)
        scores = torch.stack([query[of_head] @ key[of_head] / math.sqrt(d) for key in keys])
        mean = torch.sigmoid(attention.mean_weight[head] @ scores + attention.mean_bias[head])
        variance = F.softplus(attention.variance_weight[head] @ scores + attention.variance_bias[head]) + 1e-4
        value = torch.zeros(d, dtype=u.dtype)
        both = variance + width**2
        for j in range(n_basis):
            expected = width / both.sqrt() * torch.exp(-((mean - j / (n_basis - 1)) ** 2) / (2 * both))
            value = value + expected * values[j, of_head]
        heads.append(value)
        density = torch.distributions.Normal(mean, variance.sqrt())
        edges = [density.cdf(torch.tensor(j / n_basis, dtype=u.dtype)) for j in range(n_basis + 1)]
        histogram = histogram + torch.stack([edges[j + 1] - edges[j] for j in range(n_basis)])
    return attention.out(torch.cat(heads)), histogram


def run_row(
    memory: InfinityFormer, tau: float, ridge: float, x: Tensor, episode_starts: Tensor, past: Past
) -> tuple[list[Tensor], list[float], Past]:
    """One row (T, D) of a block: features, slots in the window, and what is remembered."""
    outs, effective = [], []
    m, c, n_basis = memory.memory_size, memory.chunk, memory.signal.n_basis
    for t, now in enumerate(x):
        if episode_starts[t]:
            past = Past.none(len(memory.layers), n_basis)
        h, read = now, []
        for n, layer in enumerate(memory.layers):
            u = F.layer_norm(h, h.shape)
            past.slots[n].append((t, u))
            signal = past.signals[n]
            one = torch.ones((), dtype=u.dtype)
            read = [(t - i, slot, one) for i, slot in past.slots[n] if t - i <= m]
            h = h + attend(layer, u, read, memory.longest_distance)
            if signal is not None:
                of_signal, histogram = read_signal(memory.signal_attention[n], u, signal)
                h = h + of_signal
                past.histograms[n] = past.histograms[n] + histogram
            if past.n_steps >= m and (past.n_steps - m) % c == 0:
                chunk = [slot for i, slot in past.slots[n] if t - m <= i < t - m + c]
                assert len(chunk) == c
                if signal is None:
                    past.signals[n] = begun(n_basis, ridge, chunk)
                else:
                    at = quantile_places(past.histograms[n], 2 * n_basis) if memory.sticky else None
                    places = evenly(2 * n_basis) if at is None else at
                    past.signals[n] = appended(n_basis, tau, ridge, signal, chunk, places)
                past.histograms[n] = torch.zeros(n_basis, dtype=u.dtype)
            feed_forward = layer.feed_forward
            h = h + feed_forward.down(feed_forward.up(feed_forward.norm(h)).clamp(min=0))
        past.n_steps += 1
        outs.append(memory.norm(h))
        effective.append(float(len(read) - 1))
    return outs, effective, past


@pytest.mark.parametrize("pattern", ["never", "middle", "random"])
@pytest.mark.parametrize("member", MEMBERS)
def test_two_blocks_equal_the_loops(member: str, pattern: str) -> None:
    torch.set_default_dtype(torch.float64)  # also of what is computed once: errors grow from update to update
    memory = build(member)
    torch.set_default_dtype(torch.float32)
    assert isinstance(memory, InfinityFormer)
    n_rows, lengths = 2, (6, 9)  # the first ends between two updates
    xs = [features(t, n_rows, seed=t).requires_grad_() for t in lengths]
    state = fresh(memory, n_rows)
    fast: list[Tensor] = []
    slow: list[Tensor] = []
    pasts = [Past.none(len(memory.layers), memory.signal.n_basis) for _ in range(n_rows)]
    for x in xs:
        episode_starts = starts(pattern, len(x), n_rows + 1)[:, :n_rows]
        out = memory(x, state, episode_starts)
        state = out.state
        fast.append(out.features)
        rows = [
            run_row(memory, *MEMBERS[member], x[:, b], episode_starts[:, b], pasts[b]) for b in range(n_rows)
        ]
        pasts = [past.later(len(x)) for _, _, past in rows]
        slow.append(torch.stack([torch.stack(outs) for outs, _, _ in rows], dim=1))
        effective = torch.tensor([counts for _, counts, _ in rows], dtype=x.dtype).T
        torch.testing.assert_close(out.stats["effective_memory"], effective + memory.constant_vectors)
        for b, past in enumerate(pasts):
            assert state["steps"][b] == past.n_steps
            for n, signal in enumerate(past.signals):
                got = state[f"signal.{n}"][b]
                close(got, torch.zeros_like(got) if signal is None else signal)
    close(torch.cat(fast), torch.cat(slow))
    weight = features(sum(lengths), n_rows, seed=7)
    wanted = [*xs, *memory.parameters()]
    got = torch.autograd.grad((torch.cat(fast) * weight).sum(), wanted, materialize_grads=True)
    expected = torch.autograd.grad((torch.cat(slow) * weight).sum(), wanted, materialize_grads=True)
    for one, other in zip(got, expected, strict=True):
        close(one, other)
        assert one.abs().sum() > 0 or pattern == "random"  # short episodes, which may have no signal


@torch.no_grad()
def test_nothing_is_lost_between_window_and_signal() -> None:
    """One layer, steps up to the window's size times six: every one makes a difference to the last."""
    torch.manual_seed(0)
    settings = {"memory_size": 3, "n_layers": 1, "n_basis": 32, "chunk": 3}
    memory = make_memory("infinity-former", 8, settings).double()
    for n_steps in range(1, 18):
        # Row t differs from the last row in step t.
        x = features(n_steps, 1).repeat(1, n_steps + 1, 1)
        x[range(n_steps), range(n_steps), 0] += 1
        last = memory(x, fresh(memory, n_steps + 1), starts("never", n_steps, n_steps + 1)).features[-1]
        assert ((last[:-1] - last[-1]).abs().amax(-1) > 1e-7).all(), n_steps


@torch.no_grad()
def test_before_the_first_update_it_is_a_window() -> None:
    """What the long-term memory would read makes no difference until there is something to read."""
    memory = build("infinity-former")
    assert isinstance(memory, InfinityFormer)
    x, episode_starts = features(16, 2), starts("never", 16, 3)[:, :2]
    m = memory.memory_size
    empty = fresh(memory, 2)
    carried = memory(x, empty, episode_starts).state
    new_episode = episode_starts.clone()
    new_episode[9] = True
    runs = []
    for _ in range(2):
        started, restarted = memory(x, empty, episode_starts), memory(x, carried, new_episode)
        runs.append(torch.cat([started.features[:9], restarted.features[9:]]))
        for attention in memory.signal_attention:
            attention.out.weight.neg_()
    step = torch.tensor([*range(9), *range(7)])
    assert torch.equal(runs[0][step <= m], runs[1][step <= m])
    assert not torch.isclose(runs[0][step > m], runs[1][step > m]).all(-1).any()


@pytest.mark.parametrize("member", MEMBERS)
def test_nan_before_an_episode_does_no_harm_to_gradients(member: str) -> None:
    memory = build(member)
    episode_starts = starts("first step", 12, 2)
    state = {
        key: value.fill_(float("nan")) if value.is_floating_point() else value.fill_(20)
        for key, value in fresh(memory, 2).items()
        if not key.startswith("age")
    }
    out = memory(features(12, 2), fresh(memory, 2) | state, episode_starts)
    out.features.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in memory.parameters())


@torch.no_grad()
def test_what_has_been_attended_stays() -> None:
    """A step that the queries look at is worth more to a sticky memory, many updates later."""
    change = {}
    for sticky in False, True:
        torch.manual_seed(0)
        settings = {"memory_size": 4, "n_layers": 1, "n_heads": 1, "n_basis": 16, "chunk": 4}
        memory = make_memory("infinity-former", 8, settings | {"sticky": sticky}).double()
        assert isinstance(memory, InfinityFormer)
        attention = memory.signal_attention[0]
        # Whatever the query: the far end of the past.
        attention.mean_weight.zero_()
        attention.mean_bias.fill_(-3.0)
        attention.variance_bias.fill_(-6.0)
        x, no_start = features(45, 1), starts("never", 45, 3)[:, :1]
        other = x.clone()
        other[0] += features(1, 1, seed=5)[0]
        a, b = (memory(each, fresh(memory, 1), no_start).state["signal.0"] for each in (x, other))
        change[sticky] = (a - b).square().sum().sqrt()
    assert change[True] > 2 * change[False]


@torch.no_grad()
def test_the_state_does_not_grow() -> None:
    memory = make_memory("infinity-former", 8, {"memory_size": 5, "n_basis": 6, "chunk": 2})
    state, sizes = memory.initial_state(2), []
    for _ in range(5):
        state = memory(features(40, 2, dtype=torch.float32), state, starts("never", 40, 3)[:, :2]).state
        sizes.append(state_bytes(state))
    assert sizes == [state_bytes(memory.initial_state(2))] * 5
    assert state["steps"].tolist() == [200, 200]


@pytest.mark.parametrize("member", MEMBERS)
@torch.no_grad()
def test_compact_states_go_on_alike(member: str) -> None:
    memory = build(member)
    x, no_start = features(12, 2), starts("never", 12, 3)[:, :2]
    state = unroll(memory, x, fresh(memory, 2), no_start).state
    compact = memory.compact(clone_state(state))
    assert_same(memory(x, state, no_start), memory(x, compact, no_start))
    assert_same(memory(x, state, no_start), unroll(memory, x, compact, no_start))


@pytest.mark.parametrize("sticky", [False, True])
@torch.no_grad()
def test_long_episodes_in_single_precision(sticky: bool) -> None:
    """Steps and block stay together, update after update."""
    torch.manual_seed(0)
    memory = make_memory(
        "infinity-former", 8, {"memory_size": 4, "n_basis": 24, "chunk": 3, "sticky": sticky}
    ).eval()
    x, no_start = features(120, 2, dtype=torch.float32), starts("never", 120, 3)[:, :2]
    state = memory.initial_state(2)
    block = memory(x, state, no_start)
    assert_same(block, unroll(memory, x, clone_state(state), no_start), tolerance=1e-3)


@torch.no_grad()
def test_heads_start_spread_over_the_past() -> None:
    attention = SignalAttention(8, 4, 16, copy_at_first=False)
    mean, variance = attention.density(attention.queries(torch.zeros(1, 1, 8)), torch.randn(1, 16, 8))
    torch.testing.assert_close(mean[0, 0], torch.tensor([0.125, 0.375, 0.625, 0.875]))
    torch.testing.assert_close(variance[0, 0].sqrt(), torch.full((4,), 0.125), atol=1e-3, rtol=0)


@torch.no_grad()
def test_attention_that_copies_at_first() -> None:
    """A constant signal is added as it is, where the density is inside it."""
    settings = {"n_heads": 2, "n_basis": 64, "chunk": 16, "copy_at_first": True}
    memory = make_memory("infinity-former", 8, settings)
    assert isinstance(memory, InfinityFormer)
    attention = memory.signal_attention[0]
    constant = torch.randn(8)
    signal = memory.signal.first(constant.expand(1, 16, 8))
    mean, variance = torch.full((1, 1, 2), 0.5), torch.full((1, 1, 2), 0.01)
    read = attention.read(memory.signal.expectation(mean, variance), signal)[0, 0]
    torch.testing.assert_close(read, constant, atol=0.1, rtol=0.1)
