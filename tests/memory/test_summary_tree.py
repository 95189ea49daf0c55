"""Summary-Tree against plain loops, and what is left of what left the window."""

from typing import Any

import pytest
import torch
from members import build, features, fresh, starts, unroll
from naive import attend, close
from torch import Tensor
from torch.nn import functional as F

from memspan.memory import clone_state, make_memory, state_bytes
from memspan.memory.summary_merge import Merge
from memspan.memory.summary_tree import SummaryTree

MEMBERS = ["summary-tree", "summary-tree, high", "summary-tree, low"]


def summary_tree(**settings: Any) -> SummaryTree:
    torch.manual_seed(0)
    memory = make_memory("summary-tree", 8, {"memory_size": 2, "n_layers": 1} | settings)
    assert isinstance(memory, SummaryTree)
    return memory.double()


def no_starts(n_steps: int, n_rows: int) -> Tensor:
    return torch.zeros(n_steps, n_rows, dtype=torch.bool)


class NaiveLayer:
    """Window and summaries of one layer as lists of (time of the newest step, content)."""

    def __init__(self, n_levels: int) -> None:
        self.window: list[tuple[int, Tensor]] = []
        self.levels: list[list[tuple[int, Tensor]]] = [[] for _ in range(n_levels)]

    def add(self, memory: SummaryTree, merge: Merge, time: int, u: Tensor) -> Tensor:
        """One step more; returns what merging has lost."""
        self.window.append((time, u))
        lost = u.new_zeros(())
        if len(self.window) > memory.memory_size + 1:
            newest, slot = self.window.pop(0)
            level = 0
            while self.levels[level] and level < memory.n_levels - 1:
                _, older = self.levels[level].pop()
                target = torch.cat([older, slot]).detach()
                guess = merge.split(self.merged(merge, target, level))
                lost = lost + ((guess - target) ** 2).sum() / len(target)
                slot = self.merged(merge, torch.cat([older, slot]), level)
                level += 1
            self.levels[level] = [(newest, slot)]  # of the highest level, one that was there is dropped
        return lost

    def merged(self, merge: Merge, both: Tensor, level: int) -> Tensor:
        hidden = (merge.up.weight @ both + merge.level[level]).clamp(min=0)
        s = merge.mix.weight @ both + merge.down.weight @ hidden + merge.down.bias
        return (s - s.mean()) / (s.var(correction=0) + 1e-5).sqrt()

    def read(self) -> list[tuple[int, Tensor]]:
        return self.window + [summary for level in self.levels for summary in level]

    def leave(self, n_steps: int) -> None:
        """What a block leaves to the next one: without gradient, times counted from there."""
        for slots in (self.window, *self.levels):
            slots[:] = [(time - n_steps, slot.detach()) for time, slot in slots]


def run_row(
    memory: SummaryTree, layers: list[NaiveLayer], x: Tensor, episode_starts: Tensor
) -> tuple[Tensor, list[float]]:
    """One row (T, D): (T, D + 1) features and losses, T effective memories."""
    answers, effective = [], []
    for t, now in enumerate(x):
        if episode_starts[t]:
            layers[:] = [NaiveLayer(memory.n_levels) for _ in layers]
        h, lost, n_read = now, [], 0
        for layer, merge, kept in zip(memory.layers, memory.merges, layers, strict=True):
            u = F.layer_norm(h, h.shape)
            lost.append(kept.add(memory, merge, t, u))
            read = [(t - time, slot, slot.new_ones(())) for time, slot in kept.read()]
            n_read += len(read) - 1
            h = h + attend(layer, u, read, memory.longest_distance)
            feed_forward = layer.feed_forward
            h = h + feed_forward.down(feed_forward.up(feed_forward.norm(h)).clamp(min=0))
        answers.append(torch.cat([memory.norm(h), torch.stack(lost).mean()[None]]))
        effective.append(n_read / len(layers))
    return torch.stack(answers), effective


@pytest.mark.parametrize("pattern", ["never", "middle", "random"])
@pytest.mark.parametrize("member", MEMBERS)
def test_two_blocks_equal_the_loops(member: str, pattern: str) -> None:
    """Features, loss, effective memory, and gradients, those of the merging too."""
    memory = build(member)
    assert isinstance(memory, SummaryTree)
    n_rows, lengths = 2, (9, 18)
    xs = [features(t, n_rows, seed=t).requires_grad_() for t in lengths]
    state = fresh(memory, n_rows)
    fast, slow = [], []
    kept = [[NaiveLayer(memory.n_levels) for _ in memory.layers] for _ in range(n_rows)]
    for x in xs:
        episode_starts = starts(pattern, len(x), n_rows + 1)[:, :n_rows]
        out = memory(x, state, episode_starts)
        state = out.state
        rows = [run_row(memory, kept[b], x[:, b], episode_starts[:, b]) for b in range(n_rows)]
        for row in kept:
            for layer in row:
                layer.leave(len(x))
        fast.append(torch.cat([out.features, out.losses["summary"][..., None]], dim=-1))
        slow.append(torch.stack([answer for answer, _ in rows], dim=1))
        effective = torch.tensor([counts for _, counts in rows], dtype=x.dtype).T
        torch.testing.assert_close(out.stats["effective_memory"], effective)
    close(torch.cat(fast), torch.cat(slow))
    torch.manual_seed(7)
    weight = torch.randn_like(fast[-1])
    # Of the second block alone: what it reads of the first is without gradient.
    wanted = [xs[1], *memory.parameters()]
    got = torch.autograd.grad((fast[-1] * weight).sum(), wanted, retain_graph=True)
    expected = torch.autograd.grad((slow[-1] * weight).sum(), wanted, retain_graph=True)
    for one, other in zip(got, expected, strict=True):
        close(one, other)
        assert one.abs().sum() > 0
    assert torch.autograd.grad(fast[-1].sum(), xs[0], allow_unused=True) == (None,)


@torch.no_grad()
def test_thousands_of_steps_in_a_few_slots() -> None:
    """One layer: a summary for each 1 of the steps that have left; the first step of all still counts."""
    memory = summary_tree(memory_size=5, n_levels=14)
    window = make_memory("transformer-xl", 8, {"memory_size": 5, "n_layers": 1}).double()
    x = features(5000, 1)
    other = x.clone()
    other[0, :, 0] += 1
    bytes_at_first = state_bytes(memory.initial_state(1))
    last = []
    for torso in memory, window:
        for inputs in x, other:
            state, effective = fresh(torso, 1), []
            for block in inputs.split(400):
                out = torso(block, state, no_starts(len(block), 1))
                state = out.state
                effective += out.stats["effective_memory"][:, 0].tolist()
            last.append(out.features[-1])
            if torso is memory:
                assert effective == [min(t, 5) + max(t - 5, 0).bit_count() for t in range(5000)]
                assert max(effective) <= memory.capacity
                assert state_bytes(state) == state_bytes(fresh(memory, 1))
    assert state_bytes(memory.initial_state(1)) == bytes_at_first == 8 * (6 + 14) * 4 + 8
    assert (last[0] - last[1]).abs().max() > 1e-6
    assert torch.equal(last[2], last[3])


@torch.no_grad()
def test_steps_equal_a_block_late_in_an_episode() -> None:
    """Where a carry goes up many levels, and positions are thousands of steps away."""
    memory = build("summary-tree, high")
    x, state = features(1100, 2), fresh(memory, 2)
    state = memory(x[:1020], state, starts("one row's first step", 1020, 2)).state
    block = memory(x[1020:], state, no_starts(80, 2))
    stepped = unroll(memory, x[1020:], clone_state(state), no_starts(80, 2))
    torch.testing.assert_close(stepped.features, block.features, atol=1e-9, rtol=0)
    torch.testing.assert_close(stepped.losses["summary"], block.losses["summary"])


@torch.no_grad()
def test_what_the_highest_level_sums_up_is_replaced() -> None:
    """One layer, two levels: of what left the window, three steps at most."""
    memory = summary_tree(n_levels=2)
    x = features(12, 1)
    last = memory(x, fresh(memory, 1), no_starts(12, 1))
    # Steps that have left the window: 1 to 9 after the first three. Of level 1 there is one from 2 on, of
    # level 0 where the number is odd.
    assert last.stats["effective_memory"][:, 0].tolist() == [0, 1, 2, 3, 3, 4, 3, 4, 3, 4, 3, 4]
    for t in range(12):
        other = x.clone()
        other[t, :, 0] += 1
        changed = memory(other, fresh(memory, 1), no_starts(12, 1)).features[-1]
        # In full: 9, 10, 11. Level 0: 8. Level 1: 6 and 7.
        assert torch.equal(changed, last.features[-1]) == (t < 6), t


def test_what_is_read_teaches_the_merging_back_to_the_blocks_steps() -> None:
    """One layer, one block: the last answer depends on every step, by way of the summaries."""
    memory = build("summary-tree, high")
    memory.layers, memory.merges = memory.layers[:1], memory.merges[:1]
    x = features(21, 1).requires_grad_()
    out = memory(x, fresh(memory, 1), no_starts(21, 1))
    wanted = [x, *(p for name, p in memory.merges.named_parameters() if "split" not in name)]
    grads = torch.autograd.grad(out.features[-1].square().sum(), wanted)
    assert (grads[0].abs().sum(-1) > 0).all()
    assert all(grad.abs().sum() > 0 for grad in grads[1:])


def test_the_loss_teaches_the_merging_alone() -> None:
    """And not the steps to be easy to sum up."""
    memory = build("summary-tree")
    x = features(21, 1).requires_grad_()
    loss = memory(x, fresh(memory, 1), no_starts(21, 1)).losses["summary"]
    loss.sum().backward()
    assert x.grad is None
    reached = {name.split(".")[0] for name, p in memory.named_parameters() if p.grad is not None}
    assert reached == {"merges"}
    # A step that merges nothing has nothing to lose; 1, 2 and 0 merges as the count goes on.
    left = torch.arange(21) - 3
    merging = (left > 0) & (left % 2 == 0)
    assert ((loss[:, 0] > 0) == merging).all()


def test_merging_learns_to_keep_what_it_can() -> None:
    """Steps of two dimensions: two of them fit into a summary of eight."""
    memory = summary_tree(n_levels=2)
    optimizer = torch.optim.Adam(memory.merges.parameters(), lr=0.03)
    losses = []
    for seed in range(60):
        x = F.pad(features(12, 8, seed)[..., :2], (0, 6))
        loss = memory(x, fresh(memory, 8), no_starts(12, 8)).losses["summary"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5]), losses


@torch.no_grad()
def test_two_merge_to_about_their_mean_at_first() -> None:
    merge = Merge(8, n_levels=3)
    older, newer = F.layer_norm(torch.randn(2, 5, 8), (8,))
    for level in range(2):
        summary, _ = merge(older, newer, level)
        torch.testing.assert_close(summary, F.layer_norm((older + newer) / 2, (8,)))


@torch.no_grad()
def test_levels_are_told_apart() -> None:
    merge = Merge(8, n_levels=3)
    merge.level.normal_()
    merge.down.weight.normal_()
    older, newer = torch.randn(2, 5, 8)
    assert not torch.allclose(merge(older, newer, 0)[0], merge(older, newer, 1)[0])


@torch.no_grad()
def test_what_is_remembered() -> None:
    """Two steps in full and 13 = 1101b that have left, after step 15; the next one makes 14 = 1110b."""
    memory = summary_tree(n_levels=6)
    state = memory(features(16, 1), fresh(memory, 1), no_starts(16, 1)).state
    (layer,) = memory.remembered(state)
    assert layer.made is not None
    shown = [
        tuple(int(each[0, i]) for each in (layer.age, layer.made, layer.steps_left))
        for i in range(layer.age.shape[1])
        if layer.age[0, i] >= 0
    ]
    # Steps 13, 14 and 15 in full; 12; 8 to 11; 0 to 7.
    assert sorted(shown) == [(0, 0, 2), (1, 1, 1), (2, 2, 0), (3, 1, 0), (4, 2, 2), (8, 6, 2)]
    assert ((layer.strength[0] == 1) == (layer.age[0] >= 0)).all()


@torch.no_grad()
def test_attention_without_pieces_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on other devices than a CPU."""
    memory = build("summary-tree, high")
    x, episode_starts = features(40, 9), starts("all kinds", 40, 9)
    state = memory(x, fresh(memory, 9), starts("middle", 40, 9)).state
    pieces = memory(x, state, episode_starts).features
    monkeypatch.setattr("memspan.memory.summary_tree.cut_block", lambda *_, **__: None)
    torch.testing.assert_close(memory(x, state, episode_starts).features, pieces)


@torch.no_grad()
def test_frequencies_reach_as_far_as_anything_is_read() -> None:
    memory = summary_tree(memory_size=3, n_levels=4)
    state, oldest = fresh(memory, 1), 0
    for now in features(60, 1):
        state = memory.step(now, state, torch.tensor([False])).state
        oldest = max(oldest, int(memory.remembered(state)[0].age.max()))
    assert memory.longest_distance == oldest == 3 + 8
    torch.testing.assert_close(memory.layers[0].frequencies.min().item(), 1 / 11)
