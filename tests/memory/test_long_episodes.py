"""Episodes of millions of steps: counters and ages neither overflow nor lose steps.

Nobody can wait for them: what an episode has counted is set to where it would be after so many steps.
"""

import math

import pytest
import torch
from torch import Tensor

from memspan.memory import MEMORIES, Memory, State, make_memory
from memspan.memory.base import FREE

WIDTH, ROWS = 8, 3
SETTINGS = {
    "transformer-xl": {"memory_size": 6},
    "gated-transformer-xl": {"memory_size": 6},
    "adaptive-span": {"max_span": 8, "ramp": 3},
    "compressive": {"memory_size": 5, "compression_rate": 3, "compressed_size": 4},
    "expire-span": {"max_span": 8, "ramp": 3, "initial_span": 0.9},
    "refresh-span": {"max_span": 8, "ramp": 3, "initial_span": 0.9, "renewal_width": 3},
    "infinity-former": {"memory_size": 6, "n_basis": 4, "chunk": 3},
    "summary-tree": {"memory_size": 4, "n_levels": 4},
}
PERIOD = math.lcm(*range(1, 17))
"""After so many more steps, everything above stands where it stood: in columns, groups, chunks and levels."""
LONG = {
    "1 M": 10**6,
    "the last whole number of single precision": 2**24,
    "the last of 32 bits": 2**31,
    "beyond double precision": 2**53,
}


def later(state: State, steps: int) -> State:
    """The state of the same rows after so many more steps of which nothing else differs: a whole period."""
    counters = {name for name, value in state.items() if value.dtype == torch.long and value.ndim == 1}
    return {name: value + steps if name in counters else value.clone() for name, value in state.items()}


def after(memory: Memory, x: Tensor, state: State, starts: Tensor) -> State:
    for t in range(len(x)):
        state = memory.step(x[t], state, starts[t]).state
    return state


@pytest.mark.parametrize("steps", LONG.values(), ids=LONG)
@pytest.mark.parametrize("name", MEMORIES)
def test_counters_that_are_large(name: str, steps: int) -> None:
    """The same bits, by steps and by blocks, with an episode that starts in the middle."""
    torch.manual_seed(0)
    memory = make_memory(name, WIDTH, SETTINGS.get(name, {}))
    x = torch.randn(60, ROWS, WIDTH)
    starts = torch.zeros(60, ROWS, dtype=torch.bool)
    starts[50, 1] = True
    with torch.no_grad():
        near = after(memory, x[:40], memory.initial_state(ROWS), starts[:40])
        far = later(near, -(-steps // PERIOD) * PERIOD)
        blocks = [memory(x[40:], state, starts[40:]) for state in (near, far)]
        assert torch.equal(blocks[0].features, blocks[1].features)
        for key, value in blocks[0].stats.items():
            assert torch.equal(value, blocks[1].stats[key])
        for t in range(40, 60):
            outs = [memory.step(x[t], state, starts[t]) for state in (near, far)]
            near, far = (out.state for out in outs)
            assert torch.equal(outs[0].features, outs[1].features)
            torch.testing.assert_close(outs[1].features, blocks[1].features[t - 40], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("age", [*LONG.values(), 2**62])
@pytest.mark.parametrize("name", [name for name in MEMORIES if name in SETTINGS])
def test_ages_that_are_large_are_over(name: str, age: int) -> None:
    """A slot that is older than what can be read is free, whatever its age; nothing wraps around."""
    torch.manual_seed(0)
    memory = make_memory(name, WIDTH, SETTINGS[name])
    state = memory.initial_state(ROWS)
    if "age.0" not in state:
        pytest.skip("has no ages")
    starts, x = torch.zeros(1, ROWS, dtype=torch.bool), torch.randn(1, ROWS, WIDTH)
    with torch.no_grad():
        fresh = memory(x, memory.initial_state(ROWS), starts).features[0]
        for layer in range(2):
            state[f"age.{layer}"] = torch.full((ROWS, 4), age)
            state[f"hidden.{layer}"] = torch.randn(ROWS, 4, state[f"hidden.{layer}"].shape[-1])
        block = memory(x, {key: value.clone() for key, value in state.items()}, starts)
        out = memory.step(x[0], state, starts[0])
    torch.testing.assert_close(block.features[0], fresh)
    torch.testing.assert_close(out.features, fresh)
    ages = memory.compact(out.state)["age.0"]
    assert ((ages == FREE) | (ages == 0)).all()


@pytest.mark.parametrize("name", MEMORIES)
def test_counters_are_whole_numbers(name: str) -> None:
    """A count in single precision would stand still at 2 ** 24."""
    state = make_memory(name, WIDTH, SETTINGS.get(name, {})).initial_state(ROWS)
    for key, value in state.items():
        if key.startswith(("age", "steps", "index")):
            assert value.dtype == torch.long
