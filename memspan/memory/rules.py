"""Whether somebody's memory keeps the rules of `Memory`, seen from a few steps on random numbers.

A glance before work starts, which takes milliseconds; `tests/memory/test_contract.py` looks at more, harder.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memspan.memory.base import Memory, MemoryOutput, State, clone_state

N_STEPS, N_ROWS = 4, 3
START = 2
"""Step at which an episode starts, in the last row only."""


def check_rules(memory: Memory) -> None:
    """Runs four steps in three rows; training mode and torch's random numbers stay as they are.

    Raises:
        ValueError: names the class and the first rule that it breaks.
    """
    training = memory.training
    memory.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            _check(memory, torch.randn(N_STEPS, N_ROWS, memory.width))
        finally:
            memory.train(training)


def _check(memory: Memory, x: Tensor) -> None:
    def require(kept: bool, rule: str) -> None:
        if not kept:
            raise ValueError(f"memory={type(memory).__name__}: {rule} (docs/write-your-own-memory.md)")

    starts = torch.zeros(N_STEPS, N_ROWS, dtype=torch.bool)
    starts[0] = True
    starts[START, -1] = True
    empty = memory.initial_state(N_ROWS)
    require(_is_state(empty), "initial_state must give a dict of tensors whose first dimension is the batch")
    require(float(memory.capacity) >= 0, "capacity must be a number of memory vectors")
    out = memory(x, empty, starts)
    require(isinstance(out, MemoryOutput), f"forward must give a MemoryOutput, not {type(out).__name__}")
    require(
        out.features.shape == x.shape,
        f"features must have the shape of x, {tuple(x.shape)}, not {tuple(out.features.shape)}",
    )
    require(_is_state(out.state), "the state after a block must have the batch as its first dimension")
    require(not any(one.requires_grad for one in out.state.values()), "the state must be detached")
    require("effective_memory" in out.stats, 'stats must have "effective_memory"')
    for kind, values in (("stats", out.stats), ("losses", out.losses)):
        for name, value in values.items():
            require(
                value.shape == x.shape[:2],
                f"{kind}[{name!r}] must be of shape (T, B), {tuple(x.shape[:2])}, not {tuple(value.shape)}",
            )

    with torch.no_grad():
        others = x.clone()
        others[:, 0] += 1
        require(
            _equal(memory(others, empty, starts).features[:, 1:], out.features[:, 1:]),
            "rows must not affect each other",
        )
        fresh = memory(x[START:], memory.initial_state(N_ROWS), starts[START:]).features
        require(
            _equal(out.features[START:, -1], fresh[:, -1]),
            "episode_starts must clear the state: after a start it still depends on what was before",
        )
        state, stepped = clone_state(memory.initial_state(N_ROWS)), []
        for t in range(N_STEPS):
            one = memory.step(x[t], state, starts[t])
            stepped.append(one.features)
            state = one.state
        require(
            stepped[0].shape == x[0].shape and _equal(torch.stack(stepped), out.features),
            "steps one by one must give what a block gives",
        )


def _is_state(state: State) -> bool:
    return isinstance(state, dict) and all(
        isinstance(one, Tensor) and one.ndim > 0 and len(one) == N_ROWS for one in state.values()
    )


def _equal(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4)
