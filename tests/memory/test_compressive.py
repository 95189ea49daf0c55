"""The Compressive Transformer against plain loops, when it compresses, and who learns from what."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from members import MEMBERS, WIDTH, assert_same, build, features, fresh, in_blocks, starts, unroll
from naive import attend, close, score
from torch import Tensor
from torch.nn import functional as F

from memspan.memory import Memory, clone_state, make_memory
from memspan.memory.attention import AttentionLayer
from memspan.memory.compression import Compressor
from memspan.memory.compressive import Compressive

COMPRESSIVE = [member for member, (name, _) in MEMBERS.items() if name == "compressive"]
SMALL = {"memory_size": 3, "compression_rate": 2, "compressed_size": 2, "n_layers": 1, "n_heads": 2}
POOLED = {"compression": "mean", "compression_loss": "none"}


# In loops


@dataclass
class Step:
    """One step in full."""

    index: int
    slot: Tensor
    attention: list[float] = field(default_factory=list)
    """What later steps gave to it."""


@dataclass
class Layer:
    """What the loops keep of a layer: steps in full, and last step and content of compressed memories."""

    full: list[Step] = field(default_factory=list)
    compressed: list[tuple[int, Tensor]] = field(default_factory=list)

    def later(self) -> "Layer":
        """The same for the next block, without gradient."""
        full = [Step(step.index, step.slot.detach(), list(step.attention)) for step in self.full]
        return Layer(full, [(last, slot.detach()) for last, slot in self.compressed])


def compress(function: str, weights: dict[str, Tensor], members: list[Step]) -> Tensor:
    slots = [step.slot for step in members]
    n = len(slots)
    match function:
        case "mean":
            return sum(slots) / n  # type: ignore[return-value]
        case "max":
            out = slots[0]
            for slot in slots[1:]:
                out = torch.maximum(out, slot)
            return out
        case "most-used":
            means = [sum(step.attention) / len(step.attention) for step in members]
            return slots[means.index(max(means))]
        case "conv":
            kernel = weights["linear.weight"].view(WIDTH, n, WIDTH).transpose(1, 2)
            out = F.conv1d(torch.stack(slots, dim=1)[None], kernel, weights["linear.bias"], stride=n)
            assert out.shape == (1, WIDTH, 1)
            return out[0, :, 0]
        case "dilated-conv":
            dilation, level = 1, 0
            while dilation < n:
                new = []
                for i, slot in enumerate(slots):
                    before = slots[max(i - dilation, 0)]
                    up = (
                        weights[f"up.{level}.weight"] @ torch.cat([before, slot])
                        + weights[f"up.{level}.bias"]
                    )
                    down = weights[f"down.{level}.weight"] @ up.clamp(min=0) + weights[f"down.{level}.bias"]
                    new.append((before + slot) / 2 + down)
                slots, dilation, level = new, 2 * dilation, level + 1
            assert f"up.{level}.weight" not in weights
            return slots[-1]
    raise ValueError(function)


def by_content(layer: AttentionLayer, u: Tensor, slots: list[Tensor]) -> Tensor:
    """attn(h, m) = softmax((h Q)(m K)') (m V), with Q, K and V as they are."""
    d = WIDTH // layer.n_heads
    heads = []
    for head in range(layer.n_heads):
        part = slice(head * d, (head + 1) * d)
        q = layer.query.weight.detach()[part] @ u + layer.query.bias.detach()[part]
        weights = [(q @ (layer.key.weight.detach()[part] @ m) / math.sqrt(d)).exp() for m in slots]
        values = [layer.value.weight.detach()[part] @ m + layer.value.bias.detach()[part] for m in slots]
        heads.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    return torch.cat(heads)


@dataclass
class Row:
    features: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    effective: list[float] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    index: int = -1


def run_row(member: str, memory: Compressive, x: Tensor, episode_starts: Tensor, before: Row | None) -> Row:
    """One row (T, D) of a block."""
    settings = {"compression": "conv", "compression_loss": "attention-reconstruction"} | MEMBERS[member][1]
    window, rate = settings["memory_size"], settings["compression_rate"]
    out = Row(layers=[Layer() for _ in memory.layers])
    if before is not None:
        out = Row(layers=[layer.later() for layer in before.layers], index=before.index)
    for now, starting in zip(x, episode_starts, strict=True):
        if starting:
            out.layers, out.index = [Layer() for _ in memory.layers], -1
        out.index += 1
        t = out.index
        h, losses, effective = now, [], 0
        for layer, compressor, kept in zip(memory.layers, memory.compressors, out.layers, strict=True):
            assert isinstance(compressor, Compressor)
            u = F.layer_norm(h, h.shape)
            loss = h.new_zeros(())
            live = dict(compressor.function.named_parameters())
            given = {name: weight.detach() for name, weight in live.items()}
            if len(kept.full) >= rate and t - kept.full[rate - 1].index > window:
                whole = len(kept.full) // rate
                groups = [kept.full[g * rate : (g + 1) * rate] for g in range(whole)]
                detached = [[Step(s.index, s.slot.detach(), s.attention) for s in group] for group in groups]
                if settings["compression_loss"] == "auto-encoding":
                    old = torch.cat([step.slot for step in detached[0]])
                    new = compress(settings["compression"], live, detached[0])
                    loss = (compressor.decode(new) - old).square().mean()
                if settings["compression_loss"] == "attention-reconstruction":
                    old_memories = [step.slot for group in detached for step in group]
                    new_memories = [compress(settings["compression"], live, group) for group in detached]
                    error = by_content(layer, u.detach(), old_memories) - by_content(
                        layer, u.detach(), new_memories
                    )
                    loss = error.square().mean()
                weights = live if settings["compression_loss"] == "bptt" else given
                new = compress(settings["compression"], weights, groups[0])
                kept.compressed.append((groups[0][-1].index, new))
                kept.compressed = kept.compressed[-settings["compressed_size"] :]
                kept.full = kept.full[rate:]
            losses.append(loss)
            kept.full.append(Step(t, u))
            longest = window + rate * settings["compressed_size"]
            for head in range(layer.n_heads) if settings["compression"] == "most-used" else ():
                scores = [
                    score(layer, head, u, step.slot, t - step.index, longest).exp().item()
                    for step in kept.full
                ]
                for step, value in zip(kept.full[:-1], scores[:-1], strict=True):
                    if head == 0:
                        step.attention.append(0.0)
                    step.attention[-1] += value / sum(scores)
            one = torch.ones((), dtype=x.dtype)
            read = [(t - last, slot, one) for last, slot in kept.compressed]
            read += [(t - step.index, step.slot, one) for step in kept.full]
            effective += len(read) - 1
            h = h + attend(layer, u, read, longest)
            feed_forward = layer.feed_forward
            h = h + feed_forward.down(feed_forward.up(feed_forward.norm(h)).clamp(min=0))
        out.features.append(memory.norm(h))
        out.losses.append(sum(losses) / len(losses))
        out.effective.append(effective / len(memory.layers))
    return out


@pytest.mark.parametrize("pattern", ["never", "middle", "random"])
@pytest.mark.parametrize("member", COMPRESSIVE)
def test_two_blocks_equal_the_loops(member: str, pattern: str) -> None:
    memory = build(member)
    assert isinstance(memory, Compressive)
    n_rows, lengths = 1 if pattern == "never" else 2, (5, 9)
    xs = [features(t, n_rows, seed=t).requires_grad_() for t in lengths]
    state = fresh(memory, n_rows)
    rows: list[Row | None] = [None] * n_rows
    fast: list[Tensor] = []
    slow: list[Tensor] = []
    for x in xs:
        episode_starts = starts(pattern, len(x), n_rows + 1)[:, :n_rows]
        out = memory(x, state, episode_starts)
        state = out.state
        rows = [run_row(member, memory, x[:, b], episode_starts[:, b], rows[b]) for b in range(n_rows)]
        effective = torch.tensor([row.effective for row in rows], dtype=x.dtype).T
        torch.testing.assert_close(out.stats["effective_memory"], effective)
        losses = torch.stack([torch.stack(row.losses) for row in rows], dim=1)
        weight = features(len(x), n_rows, seed=7)
        slow += [torch.stack([torch.stack(row.features) for row in rows], dim=1) * weight]
        fast += [out.features * weight]
        if out.losses:
            slow, fast = [*slow, losses * weight[..., 0]], [*fast, out.losses["compression"] * weight[..., 0]]
        else:
            assert not losses.any()
    for one, other in zip(fast, slow, strict=True):
        close(one, other)
    wanted = [*xs, *memory.parameters()]
    got = torch.autograd.grad(sum(each.sum() for each in fast), wanted, materialize_grads=True)
    expected = torch.autograd.grad(sum(each.sum() for each in slow), wanted, materialize_grads=True)
    for one, other in zip(got, expected, strict=True):
        close(one, other)
        assert one.any() or pattern != "never"  # episodes may end before anything is compressed


# When it compresses


@torch.no_grad()
def test_what_is_read_when() -> None:
    """As drawn: a window of 3, pairs, two compressed memories."""
    memory = make_memory("compressive", WIDTH, SMALL | {"n_layers": 2})
    x = features(12, 1, dtype=torch.float32)
    state, ages = memory.initial_state(1), []
    for now in x:
        state = memory.step(now, state, torch.tensor([False])).state
        for layer in memory.remembered(state):
            assert torch.equal(layer.age >= 0, layer.strength > 0)
        ages.append(sorted(layer.age[layer.age >= 0].tolist(), reverse=True))
    assert ages[3:10] == [
        [3, 2, 1, 0],
        [4, 3, 2, 1, 0],  # the first waits for the second
        [4, 3, 2, 1, 0],  # both are one, as old as the second
        [5, 4, 3, 2, 1, 0],
        [6, 4, 3, 2, 1, 0],
        [7, 5, 4, 3, 2, 1, 0],
        [6, 4, 3, 2, 1, 0],  # the first pair is gone
    ]
    out = memory(x, memory.initial_state(1), torch.zeros(12, 1, dtype=torch.bool))
    assert out.stats["effective_memory"][:, 0].tolist() == [0, 1, 2, 3, 4, 4, 5, 5, 6, 5, 6, 5]
    assert memory.capacity == 6
    charged = out.losses["compression"][:, 0] > 0
    assert charged.nonzero().squeeze(-1).tolist() == [5, 7, 9, 11]


@pytest.mark.parametrize("n_steps", [20, 21, 22])
@torch.no_grad()
def test_how_far_back_it_reads(n_steps: int) -> None:
    """One layer: groups whose last step is n_m + c n_cm steps back at most, whole, and no step before."""
    memory = make_memory("compressive", WIDTH, SMALL | POOLED | {"compression_rate": 3})
    x, no_start = features(n_steps, 1, dtype=torch.float32), torch.zeros(n_steps, 1, dtype=torch.bool)
    last = memory(x, memory.initial_state(1), no_start).features[-1]
    for i in range(n_steps):
        other = x.clone()
        other[i, :, 0] += 1
        changed = memory(other, memory.initial_state(1), no_start).features[-1]
        group_end = i // 3 * 3 + 2
        assert torch.equal(changed, last) == (n_steps - 1 - group_end > 3 + 3 * 2), i


@torch.no_grad()
def test_the_state_is_as_documented() -> None:
    memory = make_memory("compressive", WIDTH, SMALL | POOLED)
    x = features(10, 1, dtype=torch.float32)
    state = memory(x, memory.initial_state(1), torch.zeros(10, 1, dtype=torch.bool)).state
    slots = memory.layers[0].normalise(x[:, 0])
    hidden = state["hidden.0"][0]
    assert state["index"].tolist() == [9]
    assert hidden.shape == (2 + 3 + 2, WIDTH)
    for group in (1, 2):
        torch.testing.assert_close(hidden[group % 2], slots[2 * group : 2 * group + 2].mean(0))
    for step in (6, 7, 8, 9):
        torch.testing.assert_close(hidden[2 + step % 5], slots[step])
    assert not hidden[2 + 5 % 5].any()  # compressed


# Who learns from what


def parts(memory: Memory) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters of compressions, and all others."""
    compressors = [p for name, p in memory.named_parameters() if name.startswith("compressors.")]
    return compressors, [p for name, p in memory.named_parameters() if not name.startswith("compressors.")]


@pytest.mark.parametrize("compression", ["conv", "dilated-conv"])
@pytest.mark.parametrize("loss", ["auto-encoding", "attention-reconstruction"])
def test_a_compressions_loss_teaches_it_alone(loss: str, compression: str) -> None:
    torch.manual_seed(0)
    settings = SMALL | {"compression_loss": loss, "compression": compression, "n_layers": 2}
    memory = make_memory("compressive", WIDTH, settings)
    x = features(20, 3, dtype=torch.float32).requires_grad_()
    out = memory(x, memory.initial_state(3), starts("first step", 20, 3))
    compressors, others = parts(memory)
    assert compressors
    total = out.losses["compression"].sum()
    assert total > 0
    grads = torch.autograd.grad(total, compressors, retain_graph=True, allow_unused=True)
    assert all(grad is not None for grad in grads)
    assert any(grad.abs().sum() > 0 for grad in grads if grad is not None)
    for grad in torch.autograd.grad(total, [x, *others], retain_graph=True, allow_unused=True):
        assert grad is None
    for grad in torch.autograd.grad(out.features.square().sum(), compressors, allow_unused=True):
        assert grad is None


def test_with_bptt_the_task_teaches_it() -> None:
    """Through what was compressed and read in the block, the members being from before it or not."""
    torch.manual_seed(0)
    memory = make_memory("compressive", WIDTH, SMALL | {"compression_loss": "bptt"})
    x = features(7, 1, dtype=torch.float32)
    no_start = torch.zeros(7, 1, dtype=torch.bool)
    compressors, _ = parts(memory)
    whole = memory(x, memory.initial_state(1), no_start)
    assert not whole.losses
    state = memory(x[:5], memory.initial_state(1), no_start[:5]).state
    late = memory(x[5:], state, no_start[5:])
    for out in (whole, late):
        for grad in torch.autograd.grad(out.features.pow(3).sum(), compressors):
            assert grad.abs().sum() > 0
    # What was compressed before the block is given.
    later = memory(x[6:], memory(x[:6], memory.initial_state(1), no_start[:6]).state, no_start[6:])
    for grad in torch.autograd.grad(later.features.pow(3).sum(), compressors, allow_unused=True):
        assert grad is None or not grad.any()


@pytest.mark.parametrize("loss", ["bptt", "attention-reconstruction"])
def test_the_task_shapes_what_will_be_compressed(loss: str) -> None:
    """Its gradient passes through compressed memories to the steps of the block that they are made of."""
    torch.manual_seed(0)
    memory = make_memory("compressive", WIDTH, SMALL | {"compression_loss": loss})
    x = features(8, 1, dtype=torch.float32).requires_grad_()
    out = memory(x, memory.initial_state(1), torch.zeros(8, 1, dtype=torch.bool))
    (grad,) = torch.autograd.grad(out.features[-1].pow(3).sum(), x)
    assert grad[0].abs().sum() > 0


@pytest.mark.parametrize("loss", ["auto-encoding", "attention-reconstruction"])
def test_the_loss_can_be_learnt(loss: str) -> None:
    """Where the members of a group are equal, one of them says it all: no loss is left."""
    torch.manual_seed(0)
    settings: dict[str, Any] = SMALL | {"memory_size": 8, "compressed_size": 1, "compression_loss": loss}
    memory = make_memory("compressive", WIDTH, settings)
    compressors, _ = parts(memory)
    with torch.no_grad():
        for parameter in compressors:
            parameter.add_(0.3 * torch.randn_like(parameter))
    optimizer = torch.optim.Adam(compressors, lr=2e-2)
    found = []
    for _ in range(80):
        x = torch.randn(20, 16, WIDTH)
        x[::2] = x[1::2]
        loss_now = (
            memory(x, memory.initial_state(16), starts("first step", 20, 16)).losses["compression"].mean()
        )
        optimizer.zero_grad()
        loss_now.backward()
        optimizer.step()
        found.append(loss_now.item())
    assert sum(found[-10:]) < 0.1 * sum(found[:10])


# Compressions


@pytest.mark.parametrize(("compression", "rate"), [("conv", 3), ("dilated-conv", 4)])
@torch.no_grad()
def test_compressions_start_as_the_mean(compression: str, rate: int) -> None:
    settings = SMALL | {"compression_rate": rate}
    learning = make_memory("compressive", WIDTH, settings | {"compression": compression})
    pooling = make_memory("compressive", WIDTH, settings | POOLED)
    shared = {key: value for key, value in learning.state_dict().items() if "compressors" not in key}
    pooling.load_state_dict(shared)
    x, episode_starts = features(20, 3, dtype=torch.float32), starts("middle", 20, 3)
    one, other = (memory(x, memory.initial_state(3), episode_starts) for memory in (learning, pooling))
    close(one.features, other.features)


@torch.no_grad()
def test_the_most_used_is_kept_as_it_is() -> None:
    """With attention to one kind of step alone, that is what stays of a group, wherever it stood."""
    settings = SMALL | {"compression_rate": 4, "compression": "most-used", "compression_loss": "none"}
    memory = make_memory("compressive", WIDTH, settings)
    x = 0.1 * features(15, 1, dtype=torch.float32)
    wanted = [2, 4]
    for i in wanted:
        x[i, 0, 0] += 9
    layer = memory.layers[0]
    layer.query.weight.zero_()
    layer.query.bias.copy_(torch.ones(WIDTH))
    layer.key.weight.zero_()
    layer.key.weight[:, 0] = 3
    layer.position_query.weight.zero_()
    no_start = torch.zeros(15, 1, dtype=torch.bool)
    for run in (memory, lambda x, state, s: unroll(memory, x, clone_state(state), s)):
        state = run(x, memory.initial_state(1), no_start).state
        torch.testing.assert_close(state["hidden.0"][0, :2], layer.normalise(x[wanted, 0]))


@torch.no_grad()
def test_usage_goes_on_where_a_block_is_cut() -> None:
    """Long enough for what is chosen to depend on attention from several blocks."""
    memory = build("compressive, most used")
    x, episode_starts = features(60, 2), starts("middle", 60, 2)
    whole = memory(x, fresh(memory, 2), episode_starts)
    for cuts in [20, 40], [7, 9, 11, 33], list(range(1, 60)):
        cut = in_blocks(memory, x, fresh(memory, 2), episode_starts, cuts)
        assert_same(whole, cut)
        for key, value in whole.state.items():
            torch.testing.assert_close(cut.state[key], value)
