"""Attention in pieces against dense attention, values and gradients."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memspan.memory.attention import AttentionLayer
from memspan.memory.block_attention import Piece, cut_block, dense_attention, piece_attention


@st.composite
def blocks(draw: st.DrawFn) -> tuple[Tensor, list[int], int]:
    """Starts (B, T), cached slots in use, B numbers, and how many columns there are for them."""
    n_rows, n_steps = draw(st.integers(1, 3)), draw(st.integers(1, 25))
    chance = draw(st.sampled_from([0.0, 0.05, 0.4, 1.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    starts = torch.rand(n_rows, n_steps, generator=generator) < chance
    n_columns = draw(st.integers(0, 9))
    n_cached = torch.randint(0, n_columns + 1, (n_rows,), generator=generator)
    n_cached[starts[:, 0]] = 0
    return starts, n_cached.tolist(), n_columns


def readable(starts: Tensor, n_cached: list[int], n_cache_columns: int, per_step: int) -> Tensor:
    """(B, T, K) bool: same episode and not the future, key by key."""
    n_rows, n_steps = starts.shape
    mask = torch.zeros(n_rows, n_steps, n_cache_columns + n_steps, dtype=torch.bool)
    for row in range(n_rows):
        for t in range(n_steps):
            mask[row, t, n_cache_columns + t] = True
            for i in range(t):
                mask[row, t, n_cache_columns + i] = not starts[row, i + 1 : t + 1].any()
            if not starts[row, : t + 1].any():
                mask[row, t, n_cache_columns - n_cached[row] : n_cache_columns] = True
    cached, block = mask[..., :n_cache_columns], mask[..., n_cache_columns:]
    return torch.cat([cached, block.repeat_interleave(per_step, dim=-1)], dim=-1)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(blocks(), st.sampled_from([1, 2, 5, 64]), st.booleans(), st.booleans(), st.integers(1, 2))
def test_pieces_equal_dense_attention(
    block: tuple[Tensor, list[int], int],
    longest: int,
    bias_learns: bool,
    heads_differ: bool,
    per_step: int,
) -> None:
    starts, n_cached, n_cache_columns = block
    n_rows, n_steps = starts.shape
    n_columns = n_cache_columns + per_step * n_steps
    pieces = cut_block(starts, n_cached, n_columns, longest, per_step)
    mask = readable(starts, n_cached, n_cache_columns, per_step)
    # Every query is in one piece, whose columns hold all that it may read.
    covered = torch.zeros(n_rows, n_steps, dtype=torch.long)
    for row, first, last, left, right, _ in pieces:
        assert 1 <= last - first <= max(longest, 1)
        covered[row, first:last] += 1
        assert not mask[row, first:last, :left].any()
        assert not mask[row, first:last, right:].any()
    assert (covered == 1).all()

    generator = torch.Generator().manual_seed(5)
    if heads_differ:
        mask = mask[:, None].repeat(1, 2, 1, 1)
        mask[:, 1, :, :n_cache_columns] = False  # one of them reads less
    shapes = [(n_rows, 2, n_steps, 3), (n_rows, 2, n_columns, 3), (n_rows, 2, n_columns, 4), mask.shape]
    inputs = [
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes
    ]
    inputs[3].requires_grad_(bias_learns)
    q, k, v, extra = inputs
    bias = extra.masked_fill(~mask, -torch.inf)
    # Queries in rows one after the other; of the keys, for each row what is in use.
    used = torch.arange(n_columns) >= n_cache_columns - torch.tensor(n_cached)[:, None]  # (B, K)
    packed = [part.transpose(1, 2)[used] for part in (k, v)]
    fast = piece_attention(q.transpose(1, 2).flatten(0, 1), *packed, bias, pieces)
    fast = fast.unflatten(0, (n_rows, n_steps)).transpose(1, 2)
    slow = dense_attention(q, k, v, bias)
    torch.testing.assert_close(fast, slow)
    weight = torch.randn(slow.shape, generator=generator, dtype=torch.float64)
    wanted = inputs if bias_learns else inputs[:3]
    for one, other in zip(
        torch.autograd.grad((fast * weight).sum(), wanted, retain_graph=True),
        torch.autograd.grad((slow * weight).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_the_pieces_of_the_drawing() -> None:
    """Row 0 has three cached slots and no start, row 1 has one, and an episode starts at t=4."""
    starts = torch.zeros(2, 8, dtype=torch.bool)
    starts[1, 4] = True
    assert cut_block(starts, [3, 1], n_columns=12, longest=4) == [
        Piece(row=0, first=0, last=4, left=1, right=8, packed_left=0),
        Piece(row=0, first=4, last=8, left=1, right=12, packed_left=0),
        Piece(row=1, first=0, last=4, left=3, right=8, packed_left=11),
        Piece(row=1, first=4, last=8, left=8, right=12, packed_left=16),
    ]


def test_a_step_tells_distances_by_a_table_or_slot_by_slot():
    torch.manual_seed(0)
    layer = AttentionLayer(8, 2, 3, horizon=50, ff_factor=1, position_values=True).double()
    torch.nn.init.normal_(layer.position_query.weight)
    x, slots = torch.randn(2, 8).double(), torch.randn(2, 4, 8).double()
    distance = torch.tensor([[0, 3, 1, 6], [5, 0, 2, 4]])
    bias = torch.zeros(2, 4).double()
    bias[0, 3] = -torch.inf
    found = [layer.attend_step(x, layer.normalise(x), slots, distance, n, bias) for n in (7, 1_000_000, None)]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])
    # 8 slots in all: the first has a table. It matters how far back they are.
    other = layer.attend_step(x, layer.normalise(x), slots, distance.flip(1), 7, bias)
    assert not torch.allclose(found[0], other)
