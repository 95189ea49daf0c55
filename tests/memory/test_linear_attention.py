"""Linear attention against plain loops over time, and its rules' limits."""

from typing import Any

import pytest
import torch
from members import WIDTH, features, fresh, starts
from torch import Tensor

from memspan.memory import Memory, make_memory
from memspan.memory.feature_maps import EPS, Favor
from memspan.memory.linear_attention import LinearAttention, LinearAttentionLayer

SETTINGS: dict[str, dict[str, Any]] = {
    "elu, sum": {"feature_map": "elu", "update_rule": "sum"},
    "elu, delta": {"feature_map": "elu", "update_rule": "delta"},
    "favor, sum": {"feature_map": "favor", "update_rule": "sum", "n_random": 3},
    "favor, delta": {"feature_map": "favor", "update_rule": "delta", "n_random": 6},
    "dpfp-1, sum": {"feature_map": "dpfp", "update_rule": "sum"},
    "dpfp-3, sum": {"feature_map": "dpfp", "update_rule": "sum", "nu": 3},
    "dpfp-2, delta": {"feature_map": "dpfp", "update_rule": "delta", "nu": 2},
}


def build(settings: dict[str, Any]) -> LinearAttention:
    torch.manual_seed(0)
    memory = make_memory("linear-attention", WIDTH, {"n_heads": 2, **settings}).double()
    assert isinstance(memory, LinearAttention)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return memory


def phi(layer: LinearAttentionLayer, settings: dict[str, Any], x: Tensor) -> Tensor:
    """The features of one vector."""
    if settings["feature_map"] == "elu":
        return torch.where(x > 0, x + 1, x.exp())
    if settings["feature_map"] == "favor":
        assert isinstance(layer.phi, Favor)
        x = x / len(x) ** 0.25
        fall = (x * x).sum() / 2
        return torch.cat([(layer.phi.directions @ x - fall).exp(), (-layer.phi.directions @ x - fall).exp()])
    y = torch.cat([x.clamp(min=0), (-x).clamp(min=0)])
    ring = range(len(y))
    return torch.cat([y * y[[(i + r) % len(y) for i in ring]] for r in range(1, settings.get("nu", 1) + 1)])


def by_sum(features: Tensor, settings: dict[str, Any]) -> Tensor:
    # Where features are never 0 there is nothing to guard against: favor divides exactly.
    return features / (features.sum() + (0 if settings["feature_map"] == "favor" else EPS))


def naive_row(
    memory: LinearAttention, settings: dict[str, Any], x: Tensor, episode_starts: Tensor, kept: dict
) -> Tensor:
    """One row (T, D). `kept`: (layer, head) -> W (E, P) and z (P,); is written to."""
    out = []
    for t, now in enumerate(x):
        if episode_starts[t]:
            kept.clear()
        h = now
        for n, layer in enumerate(memory.layers):
            u = memory.input_norms[n](h)
            q, k, v = layer.project(u).view(3, layer.n_heads, -1)
            heads = []
            for head in range(layer.n_heads):
                phi_q, phi_k = phi(layer, settings, q[head]), phi(layer, settings, k[head])
                value = v[head]
                zero = torch.zeros(len(value), len(phi_k), dtype=x.dtype), torch.zeros_like(phi_k)
                w, z = kept.get((n, head), zero)
                phi_q = by_sum(phi_q, settings)
                if settings["update_rule"] == "sum":
                    w, z = w + torch.outer(value, phi_k), z + phi_k
                    heads.append(w @ phi_q / (z @ phi_q + EPS))
                else:
                    phi_k = by_sum(phi_k, settings)
                    rate = 1 / (1 + torch.exp(-layer.rate(u)[head]))
                    w = w + rate * torch.outer(value - w @ phi_k, phi_k)
                    heads.append(w @ phi_q)
                kept[n, head] = w, z
            h = h + layer.out(torch.cat(heads))
            feed_forward = layer.feed_forward
            h = h + feed_forward.down(feed_forward.up(feed_forward.norm(h)).clamp(min=0))
        out.append(memory.norm(h))
    return torch.stack(out)


@pytest.mark.parametrize("pattern", ["middle", "random"])
@pytest.mark.parametrize("name", SETTINGS)
def test_two_blocks_equal_the_loops(name: str, pattern: str) -> None:
    """Features, and gradients of inputs and all parameters; blocks of one chunk and of two uneven ones."""
    settings = SETTINGS[name]
    memory = build(settings)
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
        kept = [{key: tuple(part.detach() for part in row[key]) for key in row} for row in kept]
        rows = [naive_row(memory, settings, x[:, b], episode_starts[:, b], kept[b]) for b in range(n_rows)]
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
def test_features_that_meet_nothing_read_nothing() -> None:
    """dpfp: keys and queries with no feature in common give 0, not 0 / 0, in a block as in a step."""
    memory = make_memory("linear-attention", 8, {"n_heads": 1, "n_layers": 1, "update_rule": "sum"})
    layer = memory.layers[0]
    assert isinstance(layer, LinearAttentionLayer)
    for parameter in layer.project.parameters():
        parameter.zero_()
    layer.project.bias[:2] = 1.0  # query: its first two entries
    layer.project.bias[8 + 4 : 8 + 6] = 1.0  # key: others
    layer.project.bias[16:] = 1.0
    x, no_start = torch.randn(5, 2, 8), torch.zeros(5, 2, dtype=torch.bool)
    expected = memory.norm(layer.feed_forward(x + layer.out.bias))
    state = memory.initial_state(2)
    torch.testing.assert_close(memory(x, state, no_start).features, expected)
    torch.testing.assert_close(memory.step(x[0], state, no_start[0]).features, expected[0])


@torch.no_grad()
def test_sum_reads_a_mean_of_values() -> None:
    """All features equal: the mean over the episode; `softmax` is gone, the weights still sum to 1."""
    memory = make_memory(
        "linear-attention", 8, {"n_heads": 1, "n_layers": 1, "update_rule": "sum", "feature_map": "elu"}
    ).double()
    layer = memory.layers[0]
    assert isinstance(layer, LinearAttentionLayer)
    layer.project.weight[:16] = 0.0
    layer.project.bias[:16] = 0.0
    layer.feed_forward = torch.nn.Identity()
    memory.norm = torch.nn.Identity()
    x = features(4, 1)
    out = memory(x, fresh(memory, 1), torch.zeros(4, 1, dtype=torch.bool)).features
    value = layer.project(memory.input_norms[0](x))[..., 16:]
    mean = value.cumsum(0) / torch.arange(1, 5)[:, None, None]
    torch.testing.assert_close(out, x + layer.out(mean), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("settings", "n_features"),
    [
        ({"feature_map": "elu"}, 16),
        ({"feature_map": "favor", "n_random": 20}, 40),
        ({"feature_map": "dpfp"}, 32),
        ({"feature_map": "dpfp", "nu": 3}, 96),
    ],
)
def test_capacity_is_state_floats_by_width(settings: dict[str, Any], n_features: int) -> None:
    """Per layer: heads, features and values; the normaliser counts, too."""
    for rule, extra in ("sum", 1), ("delta", 0):
        memory: Memory = make_memory("linear-attention", 64, {**settings, "update_rule": rule, "n_layers": 3})
        assert memory.capacity == 4 * n_features * (16 + extra) / 64
        assert {value.shape for value in memory.initial_state(2).values()} == {(2, 4, n_features, 16 + extra)}


@torch.no_grad()
def test_what_is_remembered_is_shown_by_name() -> None:
    memory = build(SETTINGS["elu, sum"])
    x = features(3, 2)
    state = memory(x, fresh(memory, 2), starts("never", 3, 2)).state
    shown = memory.remembered(state)[0].vectors
    assert {name: value.shape for name, value in shown.items()} == {
        "fast_weights": (2, 2 * 4 * 4),
        "normaliser": (2, 2 * 4),
    }
    layer = memory.layers[0]
    assert isinstance(layer, LinearAttentionLayer)
    keys = layer.phi(layer.project(memory.input_norms[0](x))[..., WIDTH : 2 * WIDTH].view(3, 2, 2, 4))
    torch.testing.assert_close(shown["normaliser"], keys.sum(0).flatten(1))
    assert set(build(SETTINGS["elu, delta"]).remembered(fresh(memory, 2))[0].vectors) == {"fast_weights"}


def test_random_directions_come_with_the_parameters() -> None:
    """A loaded memory reads what the saved one wrote."""
    a, b = (build(SETTINGS["favor, sum"]) for _ in range(2))
    b.layers[0].phi.directions.normal_()
    b.load_state_dict(a.state_dict())
    assert torch.equal(b.layers[0].phi.directions, a.layers[0].phi.directions)
