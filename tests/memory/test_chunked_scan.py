"""The scan of a block against the recurrence, one step at a time, wherever episodes start."""

import pytest
import torch
from members import starts
from torch import Tensor

from memspan.memory.chunked_scan import ScanInputs, chunked_scan, scan_step

B, H, P, E = 9, 2, 5, 3
KINDS = ["sum", "delta", "sum, decay", "delta, decay"]


def inputs_of(kind: str, n_steps: int, dtype: torch.dtype = torch.float64) -> ScanInputs:
    generator = torch.Generator().manual_seed(n_steps)

    def draw(*shape: int) -> Tensor:
        return torch.randn(n_steps, B, H, *shape, generator=generator, dtype=torch.float64).to(dtype)

    return ScanInputs(
        draw(P).requires_grad_(),
        (draw(P) / P**0.5).requires_grad_(),
        draw(E).requires_grad_(),
        draw().sigmoid().requires_grad_() if "delta" in kind else None,
        (-draw().square()).requires_grad_() if "decay" in kind else None,
    )


def learning(inputs: ScanInputs) -> list[Tensor]:
    return [each for each in inputs if each is not None]


def by_rows(inputs: ScanInputs) -> ScanInputs:
    """(T, B, ..) -> (B, T, ..)."""
    return ScanInputs(*(None if each is None else each.transpose(0, 1) for each in inputs))


def loop(inputs: ScanInputs, episode_starts: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """S <- S a (I - b k k') + b v k', or S <- a S + v k', row by row and head by head; y = S q."""
    n_steps, n_rows, n_heads = inputs.query.shape[:3]
    reads, last = [], []
    for b in range(n_rows):
        for h in range(n_heads):
            s = matrix[b, h].T  # (E, P)
            for t in range(n_steps):
                if episode_starts[t, b]:
                    s = torch.zeros_like(s)
                q, k, v = (each[t, b, h] for each in inputs[:3])
                a = 1.0 if inputs.log_decay is None else inputs.log_decay[t, b, h].exp()
                if inputs.rate is None:
                    s = a * s + torch.outer(v, k)
                else:
                    rate = inputs.rate[t, b, h]
                    s = s @ (a * (torch.eye(len(k)) - rate * torch.outer(k, k))) + rate * torch.outer(v, k)
                reads.append(s @ q)
            last.append(s.T)
    read = torch.stack(reads).view(n_rows, n_heads, n_steps, -1).permute(0, 2, 1, 3)
    return read, torch.stack(last).view(matrix.shape)


@pytest.mark.parametrize(("n_steps", "longest"), [(1, 4), (7, 4), (8, 4), (13, 32), (13, 1)])
@pytest.mark.parametrize("pattern", ["never", "all kinds"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_block_equals_the_loop(kind: str, pattern: str, n_steps: int, longest: int) -> None:
    """Outputs, state and all gradients."""
    inputs, episode_starts = inputs_of(kind, n_steps), starts(pattern, n_steps, B)
    before = torch.randn(B, H, P, E, dtype=torch.float64)
    fast = chunked_scan(by_rows(inputs), episode_starts.T, before, longest)
    slow = loop(inputs, episode_starts, before)
    weights = [torch.randn_like(each) for each in slow]
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other)
    # Both results count: a later block's state has no gradient, but the chunks of one block pass it on.
    got, expected = (
        torch.autograd.grad(
            sum((each * w).sum() for each, w in zip(each_of, weights, strict=True)), learning(inputs)
        )
        for each_of in (fast, slow)
    )
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_the_loop(kind: str) -> None:
    inputs, episode_starts = inputs_of(kind, 6), starts("all kinds", 6, B)
    before = matrix = torch.randn(B, H, P, E, dtype=torch.float64)
    reads = []
    for t in range(6):
        now = ScanInputs(*(None if each is None else each[t] for each in inputs))
        read, matrix = scan_step(now, episode_starts[t], matrix)
        reads.append(read)
    slow_read, slow_matrix = loop(inputs, episode_starts, before)
    torch.testing.assert_close(torch.stack(reads, dim=1), slow_read)
    torch.testing.assert_close(matrix, slow_matrix)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_that_is_left_over_reaches_nothing_after_a_start(kind: str) -> None:
    """Results, and gradients where the block begins an episode, are as if it had not been there."""
    inputs = inputs_of(kind, 7)
    stale = torch.full((B, H, P, E), float("nan"), dtype=torch.float64)
    episode_starts = torch.zeros(7, B, dtype=torch.bool)
    episode_starts[0] = True
    read, matrix = chunked_scan(by_rows(inputs), episode_starts.T, stale, 4)
    assert read.isfinite().all()
    assert matrix.isfinite().all()
    for grad in torch.autograd.grad(read.square().sum() + matrix.square().sum(), learning(inputs)):
        assert grad.isfinite().all()
    for at in 2, 5:  # in the first chunk, in the second
        episode_starts = torch.zeros(7, B, dtype=torch.bool)
        episode_starts[at] = True
        read, matrix = chunked_scan(by_rows(inputs), episode_starts.T, stale, 4)
        assert read[:, :at].isnan().all()
        assert read[:, at:].isfinite().all()
        assert matrix.isfinite().all()


@pytest.mark.parametrize("kind", ["sum, decay", "delta, decay"])
@pytest.mark.parametrize("log_decay", [-1e-4, -30.0, -1e4])
@torch.no_grad()
def test_single_precision_keeps_up_with_slow_and_fast_decay(kind: str, log_decay: float) -> None:
    """Also right after a step that forgets everything; nothing overflows."""
    n_steps = 300
    inputs = inputs_of(kind, n_steps, torch.float32)
    decay = torch.full_like(inputs.value[..., 0], -1e-4)
    decay[::7] = log_decay
    inputs = inputs._replace(log_decay=decay)
    none, no_start = torch.zeros(B, H, P, E), torch.zeros(B, n_steps, dtype=torch.bool)
    read, matrix = chunked_scan(by_rows(inputs), no_start, none)
    exact = ScanInputs(*(None if each is None else each.double() for each in by_rows(inputs)))
    exact_read, exact_matrix = chunked_scan(exact, no_start, none.double(), longest=1)
    torch.testing.assert_close(read.double(), exact_read, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(matrix.double(), exact_matrix, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_keys_at_right_angles_are_read_without_error() -> None:
    """As many as there are features, by either rule; one more key has to share."""
    for rate in None, torch.ones(1, P, 1):
        key = torch.linalg.qr(torch.randn(P, P)).Q.view(1, P, 1, P)
        value, start = torch.randn(1, P, 1, E), torch.zeros(1, P, dtype=torch.bool)
        _, matrix = chunked_scan(ScanInputs(key, key, value, rate), start, torch.zeros(1, 1, P, E), 2)
        torch.testing.assert_close(key[0, :, 0] @ matrix[0, 0], value[0, :, 0])


@torch.no_grad()
def test_delta_writes_in_place_of_what_was_there_and_sum_adds() -> None:
    """The same key twice, with another in between: rate 1 overwrites, 0.5 moves half way."""
    key = torch.eye(P)[[0, 1, 0]].view(1, 3, 1, P)
    value = torch.randn(1, 3, 1, E)
    old, other, new = value[0, :, 0]
    rates = torch.ones(1, 3, 1), torch.tensor([1.0, 1.0, 0.5]).view(1, 3, 1)
    for rate, expected in (None, old + new), (rates[0], new), (rates[1], (old + new) / 2):
        inputs = ScanInputs(key, key, value, rate)
        _, matrix = chunked_scan(inputs, torch.zeros(1, 3, dtype=torch.bool), torch.zeros(1, 1, P, E))
        torch.testing.assert_close(matrix[0, 0, 0], expected)
        torch.testing.assert_close(matrix[0, 0, 1], other)
