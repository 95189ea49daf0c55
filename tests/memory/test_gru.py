"""The packed GRU against the equations, one step and one row at a time."""

import pytest
import torch
from members import build, features, fresh, starts
from torch import Tensor, nn

from memspan.memory import make_memory
from memspan.memory.gru import GRU
from memspan.memory.packed_gru import packed_gru


def cell(memory: GRU, layer: int, x: Tensor, h: Tensor) -> Tensor:
    """h' = z h + (1 - z) n, one row."""
    gru = memory.gru
    w_r, w_z, w_n = getattr(gru, f"weight_ih_l{layer}").chunk(3)
    u_r, u_z, u_n = getattr(gru, f"weight_hh_l{layer}").chunk(3)
    b_r, b_z, b_n = getattr(gru, f"bias_ih_l{layer}").chunk(3)
    r = 1 / (1 + torch.exp(-(w_r @ x + u_r @ h + b_r)))
    z = 1 / (1 + torch.exp(-(w_z @ x + u_z @ h + b_z)))
    n = torch.tanh(w_n @ x + b_n + r * (u_n @ h))
    return z * h + (1 - z) * n


def run_row(
    memory: GRU, x: Tensor, episode_starts: Tensor, carried: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """One row (T, D), from the hidden vector of each layer."""
    answers = []
    for now, start in zip(x, episode_starts, strict=True):
        if start:
            carried = [torch.zeros_like(h) for h in carried]
        to_next, after = memory.input_norm(now), []
        for n, h in enumerate(carried):
            to_next = cell(memory, n, to_next, h)
            after.append(to_next)
        carried = after
        answers.append(memory.norm(memory.feed_forward(now + memory.out(to_next))))
    return torch.stack(answers), carried


@pytest.mark.parametrize("pattern", ["never", "first step", "all kinds"])
@pytest.mark.parametrize("member", ["gru", "gru, 2 layers"])
def test_two_blocks_equal_the_loops(member: str, pattern: str) -> None:
    """Features and states; gradients of the inputs and of all weights."""
    memory = build(member)
    assert isinstance(memory, GRU)
    n_rows, lengths = 9, (6, 9)
    xs = [features(t, n_rows, seed=t).requires_grad_() for t in lengths]
    state = fresh(memory, n_rows)
    zero = torch.zeros(memory.gru.hidden_size, dtype=torch.float64)
    carried = [[zero] * memory.gru.num_layers for _ in range(n_rows)]
    fast: list[Tensor] = []
    slow: list[Tensor] = []
    for x in xs:
        episode_starts = starts(pattern, len(x), n_rows)
        out = memory(x, state, episode_starts)
        state = out.state
        fast.append(out.features)
        rows = [run_row(memory, x[:, b], episode_starts[:, b], carried[b]) for b in range(n_rows)]
        slow.append(torch.stack([row[0] for row in rows], dim=1))
        carried = [[h.detach() for h in row[1]] for row in rows]
        torch.testing.assert_close(state["hidden"], torch.stack([torch.stack(row) for row in carried]))
    torch.testing.assert_close(torch.cat(fast), torch.cat(slow))
    weight = features(sum(lengths), n_rows, seed=7)
    wanted = [*xs, *(p for p in memory.parameters() if p.requires_grad)]
    got = torch.autograd.grad((torch.cat(fast) * weight).sum(), wanted)
    expected = torch.autograd.grad((torch.cat(slow) * weight).sum(), wanted)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)
        assert one.abs().sum() > 0


@torch.no_grad()
def test_one_episode_equals_the_gru_of_torch() -> None:
    memory = build("gru, 2 layers")
    assert isinstance(memory, GRU)
    x = features(11, 3)
    out, hidden = memory.gru(memory.input_norm(x))
    block = memory(x, fresh(memory, 3), starts("first step", 11, 3))
    torch.testing.assert_close(block.features, memory.norm(memory.feed_forward(x + memory.out(out))))
    torch.testing.assert_close(block.state["hidden"], hidden.transpose(0, 1))


@pytest.mark.parametrize("batch_sizes", [[3], [3, 3, 3], [4, 3, 3, 1, 1], [5, 1]])
def test_gradient_of_a_packed_layer(batch_sizes: list[int]) -> None:
    """Finite differences, sequences of unequal lengths."""
    torch.manual_seed(0)
    units, n = 3, batch_sizes[0]
    hidden = torch.randn(n, units, dtype=torch.float64)
    from_input = torch.randn(sum(batch_sizes), 3 * units, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3 * units, units, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: packed_gru(x, w, hidden, batch_sizes), (from_input, weight))


def test_first_update_gates() -> None:
    """Bias 1, or time constants up to the longest dependency (chrono initialisation)."""
    units = 50
    for longest in 0, 100:
        torch.manual_seed(0)
        memory = make_memory("gru", 8, {"units": units, "longest_dependency": longest})
        assert isinstance(memory, GRU)
        bias = memory.gru.bias_ih_l0 + memory.gru.bias_hh_l0
        r, z, n = bias.detach().split(units)
        assert (r == 0).all()
        assert (n == 0).all()
        if longest:
            assert (1 + z.exp()).min() >= 2 - 1e-4
            assert 80 < (1 + z.exp()).max() <= 100
        else:
            assert (z == 1).all()


@torch.no_grad()
def test_the_update_gate_keeps() -> None:
    """Wide open, what was remembered stays as it is; closed, nothing of it does."""
    memory = build("gru")
    assert isinstance(memory, GRU)
    nn.init.zeros_(memory.gru.weight_hh_l0)
    nn.init.zeros_(memory.gru.weight_ih_l0)
    x, state = features(5, 2), {"hidden": torch.full((2, 1, 8), 0.3, dtype=torch.float64)}
    for bias, kept in (1e3, 1.0), (-1e3, 0.0):
        memory.gru.bias_ih_l0.copy_(torch.cat([torch.zeros(8), torch.full((8,), bias), torch.zeros(8)]))
        after = memory(x, state, starts("never", 5, 2)).state["hidden"]
        torch.testing.assert_close(after, kept * state["hidden"])


def test_capacity_is_state_floats_by_width() -> None:
    assert make_memory("gru", 8, {"units": 20}).capacity == 20 / 8
    # Per layer, as for the Transformers.
    assert make_memory("gru", 8, {"units": 20, "n_layers": 3}).capacity == 20 / 8
