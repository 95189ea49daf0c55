"""What every memory promises, whichever paper it is from."""

import pytest
import torch
from members import (
    MEMBERS,
    RENEWING,
    WIDTH,
    assert_same,
    build,
    features,
    fresh,
    in_blocks,
    starts,
    unroll,
)
from torch import Tensor

from memspan.memory import MEMORIES, Memory, State, attention, clone_state, select_rows, state_bytes

ROWS = 3
PATTERNS = {"never": 2, "first step": 2, "all kinds": 9}
"""Where episodes start -> rows to show it."""


@pytest.fixture(params=MEMBERS)
def member(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def memory(member: str) -> Memory:
    return build(member)


def warm(memory: Memory, n_rows: int = ROWS) -> State:
    """What is remembered after a block in which two rows start an episode."""
    with torch.no_grad():
        return memory(features(7, n_rows, seed=9), fresh(memory, n_rows), starts("middle", 7, n_rows)).state


def test_every_memory_is_under_test() -> None:
    # Those with a colon are somebody's own.
    assert {name for name, _ in MEMBERS.values() if ":" not in name} == set(MEMORIES)


# Time


@pytest.mark.parametrize("pattern", PATTERNS)
@torch.no_grad()
def test_steps_equal_a_block(memory: Memory, pattern: str) -> None:
    n_rows = PATTERNS[pattern]
    x, episode_starts = features(13, n_rows), starts(pattern, 13, n_rows)
    state = warm(memory, n_rows)
    block = memory(x, state, episode_starts)
    stepped = unroll(memory, x, clone_state(state), episode_starts)
    assert_same(block, stepped)
    # The states mean the same: both go on alike, in a block and in steps.
    x, episode_starts = features(5, n_rows, seed=2), starts("never", 5, n_rows)
    after = memory(x, block.state, episode_starts)
    assert_same(after, memory(x, stepped.state, episode_starts))
    assert_same(after, unroll(memory, x, clone_state(block.state), episode_starts))


@torch.no_grad()
def test_steps_equal_a_block_in_single_precision(member: str) -> None:
    memory = build(member, torch.float32)
    x, episode_starts = features(13, ROWS, dtype=torch.float32), starts("random", 13, ROWS)
    state = fresh(memory, ROWS)
    block = memory(x, state, episode_starts)
    assert block.features.dtype == torch.float32
    assert_same(block, unroll(memory, x, clone_state(state), episode_starts), tolerance=1e-4)


@pytest.mark.parametrize("pattern", PATTERNS)
@torch.no_grad()
def test_cutting_a_block_changes_nothing(memory: Memory, pattern: str) -> None:
    n_steps, n_rows = 11, PATTERNS[pattern]
    x, episode_starts = features(n_steps, n_rows), starts(pattern, n_steps, n_rows)
    state = warm(memory, n_rows)
    whole = memory(x, state, episode_starts)
    x_after, no_start = features(3, n_rows, seed=2), starts("never", 3, n_rows)
    after = memory(x_after, whole.state, no_start)
    for cuts in [1], [5], [6], [10], [3, 4, 9], list(range(1, n_steps)):
        cut = in_blocks(memory, x, state, episode_starts, cuts)
        assert_same(whole, cut)
        assert_same(after, memory(x_after, cut.state, no_start))


@torch.no_grad()
def test_a_block_longer_than_any_memory(memory: Memory) -> None:
    x, episode_starts = features(150, ROWS), starts("random", 150, ROWS)
    episode_starts[20:, 0] = False
    state = fresh(memory, ROWS)
    assert_same(memory(x, state, episode_starts), unroll(memory, x, clone_state(state), episode_starts))


# Episodes


@torch.no_grad()
def test_a_start_forgets_everything(memory: Memory) -> None:
    x, episode_starts = features(9, ROWS), starts("never", 9, ROWS)
    episode_starts[4] = True
    state = warm(memory)
    whole = memory(x, state, episode_starts)
    alone = memory(x[4:], fresh(memory, ROWS), episode_starts[4:])
    torch.testing.assert_close(whole.features[4:], alone.features)
    for name, value in alone.stats.items():
        torch.testing.assert_close(whole.stats[name][4:], value)


def poisoned(state: State, rows: Tensor) -> State:
    """NaN in all numbers of some rows."""
    return {
        key: value.clone().index_fill_(0, rows, float("nan")) if value.is_floating_point() else value.clone()
        for key, value in state.items()
    }


@pytest.mark.parametrize("by", ["block", "steps"])
@torch.no_grad()
def test_nan_before_an_episode_does_no_harm(memory: Memory, by: str) -> None:
    """Selection clears a state; multiplication by 0 would keep its NaN."""
    x, episode_starts = features(6, ROWS), starts("one row's first step", 6, ROWS)
    state = warm(memory)
    bad = poisoned(state, torch.tensor([1]))
    run = memory if by == "block" else lambda x, state, s: unroll(memory, x, clone_state(state), s)
    clean, out = run(x, state, episode_starts), run(x, bad, episode_starts)
    assert_same(clean, out)
    assert_same(memory(x, clean.state, episode_starts), memory(x, out.state, episode_starts))


@torch.no_grad()
def test_nan_in_free_slots_does_no_harm_to_a_block(memory: Memory) -> None:
    if not any(layer.age.numel() for layer in memory.remembered(fresh(memory, ROWS))):
        return  # has no slots
    x, episode_starts = features(6, ROWS), starts("never", 6, ROWS)
    bad = poisoned(fresh(memory, ROWS), torch.arange(ROWS))
    assert_same(memory(x, fresh(memory, ROWS), episode_starts), memory(x, bad, episode_starts))


def test_no_gradient_crosses_a_start(memory: Memory) -> None:
    x, episode_starts = features(9, ROWS).requires_grad_(), starts("never", 9, ROWS)
    episode_starts[4, 0] = True
    out = memory(x, warm(memory), episode_starts)
    (grad,) = torch.autograd.grad(out.features[4:, 0].square().sum(), x, retain_graph=True)
    assert (grad[:4] == 0).all()
    assert (grad[:, 1:] == 0).all()  # nor does it reach other rows
    assert (grad[4:, 0].abs().sum(-1) > 0).all()
    for loss in out.losses.values():
        (reached,) = torch.autograd.grad(loss[4:, 0].sum(), x, retain_graph=True, allow_unused=True)
        assert reached is None or (reached[:4] == 0).all()
    # Within an episode it flows, to the step before at least.
    (grad,) = torch.autograd.grad(out.features[5, 0].square().sum(), x)
    if memory.capacity:
        assert grad[4, 0].abs().sum() > 0
    else:
        assert (grad[4] == 0).all()
    assert (grad[6:] == 0).all()  # causal


# Rows


@pytest.mark.parametrize("by", ["block", "steps"])
@torch.no_grad()
def test_rows_do_not_affect_each_other(memory: Memory, by: str) -> None:
    run = memory if by == "block" else lambda x, state, s: unroll(memory, x, clone_state(state), s)
    x, episode_starts, state = features(9, ROWS), starts("middle", 9, ROWS), warm(memory)
    before = run(x, state, episode_starts)
    x, episode_starts = x.clone(), episode_starts.clone()
    x[:, 1] += 3.0
    episode_starts[:, 1] = ~episode_starts[:, 1]
    state = poisoned(state, torch.tensor([1]))
    state |= {key: value for key, value in warm(memory).items() if not value.is_floating_point()}
    after = run(x, state, episode_starts)
    others = torch.tensor([0, 2])
    torch.testing.assert_close(after.features[:, others], before.features[:, others])
    for name, value in before.stats.items():
        torch.testing.assert_close(after.stats[name][:, others], value[:, others])


@torch.no_grad()
def test_rows_can_be_selected(memory: Memory) -> None:
    """In any order, more than once, by index or by mask."""
    x, episode_starts, state = features(9, ROWS), starts("middle", 9, ROWS), warm(memory)
    whole = memory(x, state, episode_starts)
    for picked in [2, 0, 1], [1], [0, 0, 2, 1], [True, False, True]:
        rows = torch.tensor(picked)
        some = memory(x[:, rows], select_rows(state, rows), episode_starts[:, rows])
        torch.testing.assert_close(some.features, whole.features[:, rows])
        x_after, no_start = features(3, ROWS, seed=2), starts("never", 3, ROWS)
        torch.testing.assert_close(
            memory(x_after[:, rows], some.state, no_start[:, rows]).features,
            memory(x_after, whole.state, no_start).features[:, rows],
        )


# State and measurements


def test_forward_leaves_the_state_as_it_is(memory: Memory) -> None:
    for state in (fresh(memory, ROWS), warm(memory)):
        before = clone_state(state)
        memory(features(6, ROWS), state, starts("middle", 6, ROWS))
        assert state.keys() == before.keys()
        for key, value in state.items():
            torch.testing.assert_close(value, before[key], rtol=0, atol=0)


@torch.no_grad()
def test_the_state_after_a_block_can_be_left_out(memory: Memory) -> None:
    x, episode_starts, state = features(6, ROWS), starts("middle", 6, ROWS), warm(memory)
    without = memory(x, state, episode_starts, keep_state=False)
    assert_same(memory(x, state, episode_starts), without, tolerance=0)


def test_a_step_with_gradients_leaves_the_state_out_of_the_graph(memory: Memory) -> None:
    x = features(1, ROWS).requires_grad_()
    state = memory.step(x[0], fresh(memory, ROWS), starts("first step", 1, ROWS)[0]).state
    assert not any(value.requires_grad for value in state.values())


def test_the_state_is_batch_first_and_not_part_of_the_graph(memory: Memory) -> None:
    x = features(6, ROWS).requires_grad_()
    states = [fresh(memory, ROWS), memory(x, fresh(memory, ROWS), starts("middle", 6, ROWS)).state]
    with torch.no_grad():
        states.append(unroll(memory, x, fresh(memory, ROWS), starts("middle", 6, ROWS)).state)
    for state in states:
        assert state.keys() == states[0].keys()
        for value in state.values():
            assert len(value) == ROWS
            assert not value.requires_grad
        assert state_bytes(state) == sum(value[0].nbytes for value in state.values())


@pytest.mark.parametrize("by", ["block", "steps"])
def test_what_is_measured(memory: Memory, by: str) -> None:
    x, episode_starts = features(40, ROWS), starts("never", 40, ROWS)
    episode_starts[0] = episode_starts[25, 1] = True
    run = memory if by == "block" else lambda x, state, s: unroll(memory, x, state, s)
    out = run(x, fresh(memory, ROWS), episode_starts)
    for name, value in {**out.losses, **out.stats}.items():
        assert value.shape == (40, ROWS), name
        assert value.isfinite().all()
    assert not any(value.requires_grad for value in out.stats.values())
    effective = out.stats["effective_memory"]
    assert effective.dtype == x.dtype
    assert (effective >= 0).all()
    assert (effective <= memory.capacity).all()
    # Vectors of constant size always count; the step itself is no memory, and of an episode's past there is
    # only so much.
    layers = memory.remembered(fresh(memory, ROWS))
    floats = sum(value[0].numel() for layer in layers for value in layer.vectors.values())
    constant = floats / WIDTH / max(len(layers), 1)
    age = torch.arange(40)[:, None].repeat(1, ROWS)
    age[25:, 1] -= 25
    assert (effective[0] == constant).all()
    assert effective[25, 1] == constant
    assert (effective >= constant).all()
    assert (effective <= constant + age).all()


@torch.no_grad()
def test_what_is_remembered_is_what_is_counted(memory: Memory) -> None:
    x, episode_starts, state = features(40, ROWS), starts("random", 40, ROWS), fresh(memory, ROWS)
    episode_starts[12:, 0] = False  # longer than most memories last
    for t, (now, start) in enumerate(zip(x, episode_starts, strict=True)):
        out = memory.step(now, state, start)
        state = out.state
        layers = memory.remembered(state)
        counts = [
            layer.readable.sum(-1) + sum(value[0].numel() for value in layer.vectors.values()) / WIDTH
            for layer in layers
        ]
        counted = torch.stack(counts).to(x.dtype).mean(0) if counts else x.new_zeros(ROWS)
        torch.testing.assert_close(counted, out.stats["effective_memory"], msg=f"at step {t}")
        for layer in layers:
            assert layer.age.shape == layer.strength.shape == layer.steps_left.shape
            assert ((layer.strength >= 0) & (layer.strength <= 1)).all()
            assert (layer.strength[layer.age < 0] == 0).all()
            assert all(len(value) == ROWS for value in layer.vectors.values())
            if layer.made is not None:  # of older ones, so that none is as new as what it holds
                assert layer.made.shape == layer.age.shape
                assert ((layer.made >= 0) == (layer.age >= 0)).all()
                assert (layer.made <= layer.age).all()


@torch.no_grad()
def test_attention_that_is_shown_is_that_of_the_step(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found again in the state; the step's own softmax says what it was."""
    given: list[torch.Tensor] = []
    softmax = torch.softmax

    def noted(scores: torch.Tensor, dim: int) -> torch.Tensor:
        weights = softmax(scores, dim=dim)
        given.append(weights.mean(1))
        return weights

    x, episode_starts, state = features(40, ROWS), starts("random", 40, ROWS), fresh(memory, ROWS)
    episode_starts[12:, 0] = False
    for now, start in zip(x, episode_starts, strict=True):
        given.clear()
        with monkeypatch.context() as patched:
            patched.setattr(torch, "softmax", noted)
            # What computes by torch, whose softmax can be noted; kernels give the same (test_kernels.py).
            patched.setattr(attention, "are_few", lambda x: False)
            patched.setattr(attention, "read_slots", attention.read_slots_densely)
            state = memory.step(now, state, start).state
        slots = [layer for layer in memory.remembered(state) if layer.age.numel()]
        for layer in slots:
            assert layer.attention is not None
            matching = [one for one in given if one.shape == layer.age.shape]
            assert any(torch.allclose(layer.attention, one, atol=1e-5) for one in matching)
            assert (layer.attention[layer.strength == 0] == 0).all()
    shown = memory.remembered(fresh(memory, ROWS))
    assert all((layer.attention == 0).all() for layer in shown if layer.age.numel())


@torch.no_grad()
def test_memories_can_be_read_for_as_long_as_they_say(member: str, memory: Memory) -> None:
    """After k more steps those are readable that had k or more steps left, and what was made since.

    Where slots can be renewed it may be more, but nothing that was unreadable once.
    """
    x, no_start = features(45, ROWS), starts("never", 45, ROWS)
    state = unroll(memory, x[:20], fresh(memory, ROWS), no_start[:20]).state
    promised = memory.remembered(state)
    alive = [[set(then.age[row].tolist()) for row in range(ROWS)] for then in promised]
    for k in range(1, 25):
        state = memory.step(x[19 + k], state, no_start[0]).state
        for n, (then, now) in enumerate(zip(promised, memory.remembered(state), strict=True)):
            for row in range(ROWS):
                lasting = then.readable[row] & (then.steps_left[row] >= k)
                since = now.age if now.made is None else now.made
                old = now.readable[row] & (since[row] > k)
                expected = set(then.age[row][lasting].tolist())
                found = set((now.age[row][old] - k).tolist())
                if MEMBERS[member][0] in RENEWING:
                    assert expected <= found <= alive[n][row]
                else:
                    assert expected == found
                alive[n][row] = found


@torch.no_grad()
def test_looking_at_a_memory_leaves_it_alone(memory: Memory) -> None:
    x, state = features(9, ROWS), warm(memory)
    looked = memory.step(x[0], state, starts("never", 1, ROWS)[0]).state
    before = clone_state(looked)
    memory.train()
    shown = memory.remembered(looked)
    memory.eval()
    assert all(torch.equal(looked[key], value) for key, value in before.items())
    kept = [layer.age.clone() for layer in shown]
    memory.step(x[1], looked, starts("never", 1, ROWS)[0])
    assert all(torch.equal(layer.age, age) for layer, age in zip(shown, kept, strict=True))


def test_the_same_seed_gives_the_same_memory(member: str) -> None:
    a, b = build(member, seed=5), build(member, seed=5)
    x, episode_starts = features(9, ROWS), starts("middle", 9, ROWS)
    outs = [memory(x, fresh(memory, ROWS), episode_starts) for memory in (a, b, a)]
    for out in outs[1:]:
        torch.testing.assert_close(out.features, outs[0].features, rtol=0, atol=0)
    other = build(member, seed=6)(x, fresh(a, ROWS), episode_starts)
    assert not torch.equal(outs[0].features, other.features)


def test_one_row_and_one_step(memory: Memory) -> None:
    x, episode_starts = features(1, 1), starts("first step", 1, 1)
    block = memory(x, fresh(memory, 1), episode_starts)
    assert block.features.shape == (1, 1, WIDTH)
    step = memory.step(x[0], fresh(memory, 1), episode_starts[0])
    assert step.features.shape == (1, WIDTH)
    torch.testing.assert_close(step.features, block.features[0])


# Parameters


def test_gradients_are_those_of_the_outputs(memory: Memory) -> None:
    """Finite differences of features and losses of a block, with a start and a warm state.

    Not of losses that, on purpose, do not reach the features at all.
    """
    with torch.no_grad():
        for name, parameter in memory.named_parameters():
            if name.startswith(("span_predictors", "gates")) and name.endswith("weight"):
                parameter.zero_()  # spans pass no gradient on to what they are read from, on purpose
    state, episode_starts = warm(memory), starts("middle", 5, ROWS)
    x = features(5, ROWS).requires_grad_()
    # Losses that take all that they read as given pass no gradient on, either.
    losses = memory(x, state, episode_starts).losses
    names = [name for name, loss in losses.items() if loss.requires_grad and reaches(loss, x)]

    def run(x: Tensor) -> tuple[Tensor, ...]:
        out = memory(x, state, episode_starts)
        return (out.features, *(out.losses[name] for name in names))

    assert torch.autograd.gradcheck(run, x, fast_mode=True)


def reaches(loss: Tensor, x: Tensor) -> bool:
    """Whether a gradient does."""
    (grad,) = torch.autograd.grad(loss.sum(), x, allow_unused=True)
    return grad is not None


def test_every_parameter_that_learns_is_used(memory: Memory) -> None:
    """By the block as by the step: else an update would leave behind what acting depends on."""
    out = memory(features(40, ROWS), fresh(memory, ROWS), starts("first step", 40, ROWS))
    total = out.features.square().sum() + sum(value.sum() for value in out.losses.values())
    total.backward()
    learning = {key: parameter for key, parameter in memory.named_parameters() if parameter.requires_grad}
    unused = [key for key, parameter in learning.items() if parameter.grad is None]
    assert not unused


def test_parameter_groups_are_the_memorys_own(memory: Memory) -> None:
    own = {id(parameter) for parameter in memory.parameters()}
    seen: set[int] = set()
    for group in memory.parameter_groups():
        assert group.learning_rate >= 0
        found = {id(parameter) for parameter in group.parameters}
        assert found <= own
        assert not found & seen
        seen |= found


def test_parameters_can_be_saved_and_loaded(member: str) -> None:
    """Also into a memory that has been used; nothing else decides what comes out."""
    a, b = build(member, seed=5), build(member, seed=6)
    b.load_state_dict(a.state_dict())
    x, episode_starts = features(9, ROWS), starts("middle", 9, ROWS)
    assert_same(a(x, fresh(a, ROWS), episode_starts), b(x, fresh(b, ROWS), episode_starts), tolerance=0)
