"""Kernels of a CPU against torch: what it computes for the same, values and gradients."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memspan.memory import (
    MEMORIES,
    Memory,
    State,
    few_rows,
    make_memory,
    memory_class,
    span_attention,
)
from memspan.memory.attention import FeedForward
from memspan.memory.base import FREE
from memspan.memory.block_attention import dense_attention
from memspan.memory.fast_exp import exp, sigmoid, tanh
from memspan.memory.few_rows import FEW, FewRows
from memspan.memory.packed_lstm import _PackedLSTM, packed_lstm
from memspan.memory.ramp import log_ramp_mask
from memspan.memory.span_attention import Fading, ReadableKeys
from memspan.memory.step_attention import (
    SlotQuery,
    bias_by_span,
    read_slots,
    read_slots_densely,
    store_in_slots,
)

hypothetical = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def every(function, x):
    """A kernel's function of every number."""
    from numba import njit

    @njit
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    out = np.empty_like(x)
    loop(x, out)
    return out


def test_exponentials():
    x = np.linspace(-86, 87, 20_001, dtype=np.float32)
    np.testing.assert_allclose(every(exp, x), np.exp(x.astype(np.float64)), rtol=3e-7)
    near = np.linspace(-12, 12, 20_001, dtype=np.float32)
    np.testing.assert_allclose(every(tanh, near), np.tanh(near.astype(np.float64)), atol=3e-7)
    np.testing.assert_allclose(every(sigmoid, near), 1 / (1 + np.exp(-near.astype(np.float64))), atol=3e-7)
    ends = np.array([np.nan, np.inf, -np.inf, 1000, -1000], np.float32)
    assert np.isnan(every(exp, ends)[0])
    assert np.isnan(every(tanh, ends)[0])
    np.testing.assert_array_equal(every(tanh, ends)[1:], [1, -1, 1, -1])
    assert (every(exp, ends)[[2, 4]] < 1e-37).all()
    assert (every(exp, ends)[[1, 3]] > 1e38).all()
    np.testing.assert_allclose(
        every(exp, near.astype(np.float64)), np.exp(near.astype(np.float64)), rtol=1e-14
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_sizes", [[3], [3, 3, 3], [9, 5, 5, 1]])
def test_packed_lstm(batch_sizes: list[int], dtype: torch.dtype):
    torch.manual_seed(0)
    units, n = 11, batch_sizes[0]
    hidden, cell = torch.randn(2, n, units, dtype=dtype)
    given = [
        torch.randn(sum(batch_sizes), 4 * units, dtype=dtype, requires_grad=True),
        torch.randn(4 * units, units, dtype=dtype, requires_grad=True),
    ]
    weight = torch.randn(sum(batch_sizes), units, dtype=dtype)
    fast, slow = (run(*given, hidden, cell, batch_sizes) for run in (packed_lstm, _PackedLSTM.apply))
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other)
    got = torch.autograd.grad((fast[0] * weight).sum(), given)
    for one, other in zip(got, torch.autograd.grad((slow[0] * weight).sum(), given), strict=True):
        torch.testing.assert_close(one, other)


@st.composite
def fading_blocks(draw: st.DrawFn) -> tuple[Tensor, list[int], Tensor, int, int]:
    """Starts (B, T), slots in use, their ages (B, S), the ramp, a seed."""
    n_rows, n_steps, n_columns = (draw(st.integers(1, 3)), draw(st.integers(1, 20)), draw(st.integers(0, 6)))
    seed = draw(st.integers(0, 1000))
    generator = torch.Generator().manual_seed(seed)
    starts = torch.rand(n_rows, n_steps, generator=generator) < draw(st.sampled_from([0.0, 0.1, 1.0]))
    used = torch.randint(0, n_columns + 1, (n_rows,), generator=generator)
    used[starts[:, 0]] = 0
    age = torch.randint(0, 12, (n_rows, n_columns), generator=generator)
    age[torch.arange(n_columns) < n_columns - used[:, None]] = FREE
    return starts, used.tolist(), age, draw(st.sampled_from([1, 5])), seed


@hypothetical
@given(fading_blocks(), st.sampled_from([torch.float32, torch.float64]))
def test_attention_over_what_has_not_expired(
    block: tuple[Tensor, list[int], Tensor, int, int], dtype: torch.dtype
) -> None:
    starts, used, age, ramp, seed = block
    n_rows, n_steps = starts.shape
    n_columns = age.shape[1] + n_steps
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n_rows, n_steps, 3, 5), (n_rows, n_columns, 3, 5), (n_rows, n_columns, 3, 4)]
    q, k, v = (torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes)
    span = (12 * torch.rand(n_rows, n_columns, generator=generator, dtype=dtype)).requires_grad_()
    time = torch.arange(n_steps)
    clock = time + 1000 * starts.cumsum(1)
    birth = torch.cat([-1 - age, time.expand(n_rows, -1)], 1)
    distance = clock[:, :, None] - torch.cat([-1 - age, clock], 1)[:, None]
    distance = distance.masked_fill((birth == 0)[:, None] & (torch.arange(n_columns) < age.shape[1]), 10**6)
    bias = log_ramp_mask(span[:, None], distance.to(dtype), ramp)
    slow = dense_attention(*(each.transpose(1, 2) for each in (q, k, v)), bias).transpose(1, 2)

    in_use = torch.arange(n_columns) >= age.shape[1] - torch.tensor(used)[:, None]
    fading = Fading(span[in_use], ramp, {"span": span[in_use]})
    always = pytest.MonkeyPatch()
    always.setattr(span_attention, "COST_OF_AN_ENTRY", -1)
    with always.context():
        keys = ReadableKeys(starts, age, used, fading)
    always.undo()
    fast = span_attention.span_attention(q.flatten(0, 1), k[in_use], v[in_use], fading.span, keys)
    torch.testing.assert_close(keys.counts, (bias > -torch.inf).sum(-1))
    torch.testing.assert_close(keys.made_in_block(fading.losses["span"]), span[:, age.shape[1] :])
    torch.testing.assert_close(fast.view_as(slow), slow)
    weight = torch.randn(slow.shape, generator=generator, dtype=dtype)
    got = torch.autograd.grad((fast.view_as(slow) * weight).sum(), [q, k, v, span])
    for one, other in zip(got, torch.autograd.grad((slow * weight).sum(), [q, k, v, span]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 if dtype == torch.float32 else 1e-9)


@hypothetical
@given(st.integers(1, 5), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_reading_slots(n_heads: int, heads_differ: bool, codes: bool, seed: int) -> None:
    """Odd numbers of heads too; slots that must not be read may hold NaN."""
    torch.manual_seed(seed)
    n_rows, n_slots, width, n_code = 3, 6, 7, 4
    bias = torch.randn(n_rows, n_heads if heads_differ else 1, n_slots)
    bias = bias.masked_fill(torch.rand_like(bias) < 0.4, -torch.inf)
    bias[..., 2] = 0.0
    slots = torch.randn(n_rows, n_slots, width)
    query = SlotQuery(
        torch.randn(n_heads, n_rows, width),
        torch.randn(n_rows, n_heads, n_code),
        torch.randint(0, 9, (n_rows, n_slots)),
        torch.randn(9, n_code),
        bias,
    )
    slow = read_slots_densely(query, slots, codes)
    slots = torch.where((bias > -torch.inf).any(1)[..., None], slots, torch.nan)
    for one, other in zip(read_slots(query, slots, codes), slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@hypothetical
@given(st.integers(0, 1000), st.booleans())
def test_storing_in_slots(seed: int, one_lifetime: bool) -> None:
    """Slot by slot in Python; where a row is full, it and those after it get what is new later."""
    torch.manual_seed(seed)
    n_rows, n_slots = 4, 3
    hidden, age = torch.randn(n_rows, n_slots, 2), torch.randint(-1, 5, (n_rows, n_slots))
    lifetime = torch.tensor(3.0) if one_lifetime else 5 * torch.rand(n_rows, n_slots)
    new = torch.randn(n_rows, 2)
    wanted_age = torch.where(age == FREE, FREE, age + 1)
    wanted_age = torch.where(wanted_age >= lifetime, FREE, wanted_age)
    free = wanted_age == FREE
    wanted = hidden.clone()
    full = store_in_slots(hidden, age, lifetime, new)
    assert full == next((row for row in range(n_rows) if not free[row].any()), None)
    if full is not None:
        more = torch.full((n_rows, 1), FREE)
        age, wanted_age, free = (torch.cat([x, more.to(x.dtype)], 1) for x in (age, wanted_age, free))
        free[:, -1] = True
        hidden, wanted = (torch.cat([x, torch.zeros(n_rows, 1, 2)], 1) for x in (hidden, wanted))
        assert store_in_slots(hidden, age, None, new, full) is None
    for row in range(n_rows):
        slot = int(free[row].to(torch.uint8).argmax())
        wanted[row, slot], wanted_age[row, slot] = new[row], 0
    torch.testing.assert_close(hidden, wanted)
    torch.testing.assert_close(age, wanted_age)


@hypothetical
@given(st.integers(0, 1000), st.sampled_from([1, 4]))
def test_masks_of_slots(seed: int, ramp: int) -> None:
    torch.manual_seed(seed)
    age, span = torch.randint(-1, 9, (3, 5)), 8 * torch.rand(3, 5, dtype=torch.float64)
    wanted = log_ramp_mask(span, age.double(), ramp)
    wanted = torch.where(age == FREE, -torch.inf, torch.where(age == 0, 0.0, wanted))
    bias, count = bias_by_span(age, span, ramp)
    torch.testing.assert_close(bias.squeeze(1), wanted)
    torch.testing.assert_close(count, ((wanted > -torch.inf) & (age > 0)).sum(1).double())


def moved(module: nn.Module) -> nn.Module:
    """With weights that are not those of the start, which hide mistakes behind zeros."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def steps(memory: Memory, x: Tensor, episode_starts: Tensor) -> tuple[Tensor, State]:
    state = memory.initial_state(x.shape[1])
    state = {name: value.to(x.dtype) if value.is_floating_point() else value for name, value in state.items()}
    features = []
    with torch.no_grad():
        for one, start in zip(x, episode_starts, strict=True):
            out = memory.step(one, state, start)
            state = out.state
            features.append(out.features)
    return torch.stack(features), state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MEMORIES)
def test_steps_of_few_rows(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every memory: kernels for few rows, and torch for many, give the same."""
    torch.manual_seed(0)
    sizes = {"position_values": True} if "position_values" in fields_of(name) else {}
    memory = moved(
        make_memory(name, 12, {**sizes, **({"n_heads": 3} if "n_heads" in fields_of(name) else {})})
    )
    memory = memory.to(dtype).eval()
    x = torch.randn(40, 2, 12, dtype=dtype)
    episode_starts = torch.zeros(40, 2, dtype=torch.bool)
    episode_starts[0] = True
    episode_starts[25, 1] = True
    few, after = steps(memory, x, episode_starts)
    monkeypatch.setattr(few_rows, "FEW", 0)
    many, wanted = steps(memory, x, episode_starts)
    torch.testing.assert_close(few, many, rtol=1e-4, atol=1e-5)
    for key, value in wanted.items():
        torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-5)
    if name != "none" and dtype == torch.float32:
        assert not torch.equal(few, many)  # the kernels were there


def fields_of(name: str) -> set[str]:
    return {field.name for field in dataclasses.fields(memory_class(name).Config)}


def test_weights_are_those_of_now() -> None:
    """Written by an optimizer, loaded, moved, replaced; a copy has its own."""
    layer = FeedForward(4, 2)
    x = torch.randn(1, 4)

    def same(one: FeedForward = layer) -> None:
        with torch.no_grad():
            wanted = one.residual(x, one.down(torch.relu(one.up(one.norm(x)))))
            torch.testing.assert_close(one(x), wanted)

    same()
    copied = copy.deepcopy(layer)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, fused=True)
    layer(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    same()
    moved(copied)
    same(copied)
    same()
    layer.load_state_dict(copied.state_dict())
    same()
    layer.up.weight.data = torch.randn(8, 4)
    same()
    layer.up.weight = nn.Parameter(torch.randn(8, 4))
    same()
    x = x.double()
    layer.double()
    same()
    layer.down = nn.Linear(8, 4).double()
    same()


def test_who_listens_to_a_layer_hears_it() -> None:
    layer = FeedForward(4, 2)
    heard: list[Tensor] = []
    with torch.no_grad():
        layer(torch.randn(1, 4))
        layer.up.register_forward_hook(lambda module, given, out: heard.append(out))
        layer(torch.randn(1, 4))
    assert len(heard) == 1


def test_linear_layers_of_few_rows() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.ReLU())
    owner = nn.ModuleDict({"net": net, "last": nn.Linear(3, 2), "other": nn.GELU()})
    few = FewRows(owner, "net", "last")
    for n_rows in 1, FEW:
        x = torch.randn(n_rows, 5)
        with torch.no_grad():
            got = few(x)
            assert got is not None
            torch.testing.assert_close(got, owner["last"](net(x)), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert few(torch.randn(FEW + 1, 5)) is None
        assert FewRows(owner, "net", "other")(x) is None
    assert few(x) is None  # a gradient is asked for
    owner["last"] = nn.Linear(3, 2)
    with torch.no_grad():
        assert few(x) is None
