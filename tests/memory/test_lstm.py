"""The packed LSTM against `nn.LSTMCell`, one step and one row at a time."""

import pytest
import torch
from members import build, features, fresh, starts
from torch import Tensor, nn

from memspan.memory import Memory, make_memory
from memspan.memory.lstm import LSTM
from memspan.memory.packed_lstm import packed_lstm


def cells_of(memory: LSTM) -> list[nn.LSTMCell]:
    """Cells with a copy of the weights."""
    cells = []
    for n in range(memory.lstm.num_layers):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        own = {name: getattr(memory.lstm, f"{name}_l{n}") for name in names}
        cell = nn.LSTMCell(own["weight_ih"].shape[1], memory.lstm.hidden_size, dtype=torch.float64)
        cell.load_state_dict(own)
        cells.append(cell)
    return cells


@pytest.mark.parametrize("pattern", ["never", "first step", "all kinds"])
@pytest.mark.parametrize("member", ["lstm", "lstm, 2 layers"])
def test_two_blocks_equal_the_cells(member: str, pattern: str) -> None:
    """Features and states; gradients of the inputs and of all weights."""
    memory = build(member)
    assert isinstance(memory, LSTM)
    cells = cells_of(memory)
    n_rows, units = 9, memory.lstm.hidden_size
    xs = [features(t, n_rows, seed=t).requires_grad_() for t in (6, 9)]
    state = fresh(memory, n_rows)
    carried = [(torch.zeros(n_rows, units, dtype=torch.float64),) * 2 for _ in cells]
    fast: list[Tensor] = []
    slow: list[Tensor] = []
    for x in xs:
        episode_starts = starts(pattern, len(x), n_rows)
        out = memory(x, state, episode_starts)
        state = out.state
        fast.append(out.features)
        carried = [(h.detach(), c.detach()) for h, c in carried]
        for now, start in zip(x, episode_starts, strict=True):
            to_next = memory.input_norm(now)
            for n, cell in enumerate(cells):
                h, c = (torch.where(start[:, None], 0.0, part) for part in carried[n])
                carried[n] = cell(to_next, (h, c))
                to_next = carried[n][0]
            slow.append(memory.norm(memory.feed_forward(now + memory.out(to_next))))
        for n, (h, c) in enumerate(carried):
            torch.testing.assert_close(state["hidden"][:, n], h.detach())
            torch.testing.assert_close(state["cell"][:, n], c.detach())
    torch.testing.assert_close(torch.cat(fast), torch.stack(slow))
    weight = features(15, n_rows, seed=7)
    (torch.cat(fast) * weight).sum().backward()
    got = [x.grad for x in xs]
    for x in xs:
        x.grad = None
    (torch.stack(slow) * weight).sum().backward()
    for one, x in zip(got, xs, strict=True):
        torch.testing.assert_close(one, x.grad)
    for n, cell in enumerate(cells):
        for name in ("weight_ih", "weight_hh", "bias_ih"):
            torch.testing.assert_close(getattr(memory.lstm, f"{name}_l{n}").grad, getattr(cell, name).grad)


@pytest.mark.parametrize("batch_sizes", [[3], [3, 3, 3], [4, 3, 3, 1, 1], [5, 1]])
def test_gradient_of_a_packed_layer(batch_sizes: list[int]) -> None:
    """Finite differences, sequences of unequal lengths."""
    torch.manual_seed(0)
    units, n = 3, batch_sizes[0]
    hidden, cell = torch.randn(2, n, units, dtype=torch.float64)
    from_input = torch.randn(sum(batch_sizes), 4 * units, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4 * units, units, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: packed_lstm(x, w, hidden, cell, batch_sizes)[0], (from_input, weight)
    )


def test_first_forget_gates() -> None:
    """Bias 1, or time constants up to the longest dependency (chrono initialisation)."""
    units = 50
    for longest in 0, 100:
        torch.manual_seed(0)
        memory = make_memory("lstm", 8, {"units": units, "longest_dependency": longest})
        assert isinstance(memory, LSTM)
        bias = memory.lstm.bias_ih_l0 + memory.lstm.bias_hh_l0
        i, f, g, o = bias.detach().split(units)
        assert (g == 0).all()
        assert (o == 0).all()
        assert (i == 0).all()
        if longest:
            time_constants = 1 + f.exp()
            assert time_constants.min() >= 2 - 1e-4
            assert 80 < time_constants.max() <= 100
        else:
            assert (f == 1).all()


def test_capacity_is_state_floats_by_width() -> None:
    memory: Memory = make_memory("lstm", 8, {"units": 20})
    assert memory.capacity == 2 * 20 / 8
    # Per layer, as for the Transformers.
    assert make_memory("lstm", 8, {"units": 20, "n_layers": 3}).capacity == 2 * 20 / 8
