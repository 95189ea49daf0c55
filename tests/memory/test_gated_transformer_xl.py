"""GTrXL against plain loops, and its gates."""

import math

import pytest
import torch
from members import build, features, fresh, starts
from naive import close, later, run_row, window
from torch import Tensor

from memspan.memory import make_memory
from memspan.memory.attention import Residual
from memspan.memory.gated_transformer_xl import GatedTransformerXL, GRUGate

MEMBERS = ["gated-transformer-xl", "gated-transformer-xl, position values"]


def gated(gate: Residual, x: Tensor, y: Tensor) -> Tensor:
    """out = (1 - z) x + z h, one step of one row."""
    assert isinstance(gate, GRUGate)
    w_r, w_z, w_h = gate.of_answer.weight.chunk(3)
    u_r, u_z = gate.of_input.weight.chunk(2)
    u_h = gate.of_reset_input.weight
    y = y.clamp(min=0)
    r = 1 / (1 + torch.exp(-(w_r @ y + u_r @ x)))
    z = 1 / (1 + torch.exp(-(w_z @ y + u_z @ x - gate.bias)))
    return (1 - z) * x + z * torch.tanh(w_h @ y + u_h @ (r * x))


@pytest.mark.parametrize("pattern", ["never", "middle", "random"])
@pytest.mark.parametrize("member", MEMBERS)
def test_two_blocks_equal_the_loops(member: str, pattern: str) -> None:
    memory = build(member)
    assert isinstance(memory, GatedTransformerXL)
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
            run_row(memory, window(memory), x[:, b], episode_starts[:, b], cached[b], gated)
            for b in range(n_rows)
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


@pytest.mark.parametrize("position_values", [False, True])
@torch.no_grad()
def test_it_begins_as_the_identity(position_values: bool) -> None:
    """The more, the larger the bias: only the last norm is left."""
    x, episode_starts = features(9, 2, dtype=torch.float32), starts("first step", 9, 2)
    far = []
    for gate_bias in 0.0, 2.0, 5.0, 50.0:
        torch.manual_seed(0)
        settings = {"memory_size": 5, "gate_bias": gate_bias, "position_values": position_values}
        memory = make_memory("gated-transformer-xl", 8, settings)
        out = memory(x, memory.initial_state(2), episode_starts).features
        far.append((out - memory.norm(x)).abs().max().item())
    assert far == sorted(far, reverse=True)
    assert far[0] > 1
    assert far[-1] < 1e-6


@torch.no_grad()
def test_the_bias_shuts_the_gate() -> None:
    """A new gate's share of what is new is sigmoid(-bias), give or take what its weights add."""
    torch.manual_seed(0)
    gate = GRUGate(64, bias=2.0)
    gate.of_reset_input.weight.zero_()
    gate.of_answer.weight[128:].zero_()  # so that what is new is 0
    x = torch.randn(1000, 64)
    kept = (gate(x, torch.randn(1000, 64)) / x).mean().item()
    assert kept == pytest.approx(1 - 1 / (1 + math.exp(2.0)), abs=0.03)


@torch.no_grad()
def test_what_is_below_zero_is_not_said() -> None:
    """A gate reads the sum of the answers after a ReLU."""
    gate = GRUGate(8, bias=2.0)
    x, y = torch.randn(2, 5, 8)
    assert torch.equal(gate(x, -y.abs()), gate(x, torch.zeros_like(y)))
    assert not torch.equal(gate(x, y.abs()), gate(x, torch.zeros_like(y)))
    torch.testing.assert_close(gate(x, y, -0.5 * y), gate(x, 0.5 * y))


def test_a_gate_for_each_sub_layer() -> None:
    """All else has the names that a Transformer-XL's parameters have."""
    settings = {"n_layers": 2, "memory_size": 5}
    plain = set(make_memory("transformer-xl", 8, settings).state_dict())
    gates = set(make_memory("gated-transformer-xl", 8, settings).state_dict()) - plain
    parts = ("of_answer.weight", "of_input.weight", "of_reset_input.weight", "bias")
    places = ("residual", "feed_forward.residual")
    assert gates == {f"layers.{n}.{place}.{part}" for n in range(2) for place in places for part in parts}
