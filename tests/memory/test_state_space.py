"""The gated delta rule against plain loops over time, and how long it keeps."""

import pytest
import torch
from members import WIDTH, build, features, fresh, starts
from torch import Tensor

from memspan.memory import make_memory
from memspan.memory.state_space import GatedDeltaLayer, StateSpace


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def naive_row(memory: StateSpace, x: Tensor, episode_starts: Tensor, kept: dict) -> Tensor:
    """One row (T, D). `kept`: (layer, head) -> S (values, keys); is written to."""
    out = []
    for t, now in enumerate(x):
        if episode_starts[t]:
            kept.clear()
        h = now
        for n, layer in enumerate(memory.layers):
            u = memory.input_norms[n](h)
            q, k, v = silu(layer.project(u)).view(3, layer.n_heads, -1)
            heads = []
            for head in range(layer.n_heads):
                query, key = q[head] / q[head].norm(), k[head] / k[head].norm()
                a = torch.exp(-torch.log(1 + torch.exp(-layer.decay(u)[head])))
                b = 1 / (1 + torch.exp(-layer.rate(u)[head]))
                s = kept.get((n, head), torch.zeros(len(key), len(key), dtype=x.dtype))
                s = s @ (a * (torch.eye(len(key)) - b * torch.outer(key, key))) + b * torch.outer(
                    v[head], key
                )
                kept[n, head] = s
                read = s @ query
                heads.append(read / (read.square().mean() + 1e-5).sqrt() * layer.read_norm.weight)
            h = h + layer.out(torch.cat(heads) * silu(layer.gate(u)))
            feed_forward = layer.feed_forward
            h = h + feed_forward.down(feed_forward.up(feed_forward.norm(h)).clamp(min=0))
        out.append(memory.norm(h))
    return torch.stack(out)


@pytest.mark.parametrize("pattern", ["middle", "random"])
@pytest.mark.parametrize("member", ["state-space", "state-space, 1 layer"])
def test_two_blocks_equal_the_loops(member: str, pattern: str) -> None:
    """Features, and gradients of inputs and all parameters; blocks of one chunk and of two uneven ones."""
    memory = build(member)
    assert isinstance(memory, StateSpace)
    n_rows, lengths = 2, (5, 35)
    xs = [features(t, n_rows, seed=t).requires_grad_() for t in lengths]
    state = fresh(memory, n_rows)
    fast: list[Tensor] = []
    slow: list[Tensor] = []
    kept: list[dict] = [{} for _ in range(n_rows)]
    for x in xs:
        episode_starts = starts(pattern, len(x), n_rows)
        out = memory(x, state, episode_starts)
        state = out.state
        fast.append(out.features)
        kept = [{key: s.detach() for key, s in row.items()} for row in kept]
        rows = [naive_row(memory, x[:, b], episode_starts[:, b], kept[b]) for b in range(n_rows)]
        slow.append(torch.stack(rows, dim=1))
    torch.testing.assert_close(torch.cat(fast), torch.cat(slow))
    weight = features(sum(lengths), n_rows, seed=7)
    wanted = [*xs, *memory.parameters()]
    got = torch.autograd.grad((torch.cat(fast) * weight).sum(), wanted)
    expected = torch.autograd.grad((torch.cat(slow) * weight).sum(), wanted)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)
        assert one.abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("n_heads", [1, 4])
@pytest.mark.parametrize("longest", [2, 256])
def test_first_time_constants(longest: int, n_heads: int) -> None:
    """1 / (1 - a) for any input: evenly spaced on a logarithmic scale, the last the longest."""
    memory = make_memory("state-space", 8, {"longest_dependency": longest, "n_heads": n_heads})
    for layer in memory.layers:
        assert isinstance(layer, GatedDeltaLayer)
        log_decay = layer.inputs(torch.randn(3, 8)).log_decay
        assert log_decay is not None
        time_constants = 1 / (1 - log_decay.double().exp())
        expected = torch.tensor([longest ** ((h + 1) / n_heads) for h in range(n_heads)])
        torch.testing.assert_close(time_constants, expected.double().expand(3, -1), rtol=1e-3, atol=0)


@torch.no_grad()
def test_queries_and_keys_have_length_1() -> None:
    memory = build("state-space")
    layer = memory.layers[0]
    assert isinstance(layer, GatedDeltaLayer)
    for scale in 0.01, 1.0, 10.0:
        inputs = layer.inputs(scale * features(4, 3))
        for each in inputs.query, inputs.key:
            torch.testing.assert_close(each.norm(dim=-1), torch.ones_like(each[..., 0]))


@torch.no_grad()
def test_the_state_stays_bounded() -> None:
    """Keys of length 1 and shares below 1: no episode is too long for what is written."""
    memory = build("state-space, 1 layer", torch.float32)
    state = fresh(memory, 3)
    for seed in range(5):
        x = 5 * features(400, 3, seed=seed, dtype=torch.float32)
        out = memory(x, state, starts("never", 400, 3))
        state = out.state
        assert out.features.isfinite().all()
    layer = memory.layers[0]
    assert isinstance(layer, GatedDeltaLayer)
    largest = layer.inputs(memory.input_norms[0](x)).value.norm(dim=-1).max()
    assert torch.linalg.matrix_norm(state["matrix.0"], 2).max() < 10 * largest


def test_capacity_is_state_floats_by_width() -> None:
    for n_layers in 1, 3:
        memory = make_memory("state-space", 64, {"n_layers": n_layers})
        assert memory.capacity == 4 * 16 * 16 / 64
        assert {value.shape for value in memory.initial_state(2).values()} == {(2, 4, 16, 16)}
        assert len(memory.initial_state(2)) == n_layers
    shown = memory.remembered(memory.initial_state(WIDTH))
    assert [layer.vectors["matrix"].shape for layer in shown] == [(WIDTH, 4 * 16 * 16)] * 3
