"""The memories under test: a new one joins every contract test by a line in `MEMBERS`."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from memspan.memory import Memory, MemoryOutput, State, make_memory

WIDTH = 8

MEMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "lstm": ("lstm", {}),
    "lstm, 2 layers": ("lstm", {"n_layers": 2, "units": 5, "longest_dependency": 9}),
    "gru": ("gru", {}),
    "gru, 2 layers": ("gru", {"n_layers": 2, "units": 5, "longest_dependency": 9}),
    "transformer-xl": ("transformer-xl", {"memory_size": 4, "n_heads": 2, "n_frequencies": 3}),
    "transformer-xl, 1 step": ("transformer-xl", {"memory_size": 1, "n_heads": 1, "n_layers": 1}),
    "transformer-xl, all steps": ("transformer-xl", {"memory_size": 50, "n_heads": 4}),
    "transformer-xl, position values": (
        "transformer-xl",
        {"memory_size": 4, "n_heads": 2, "n_frequencies": 3, "position_values": True},
    ),
    "gated-transformer-xl": ("gated-transformer-xl", {"memory_size": 4, "n_heads": 2, "n_frequencies": 3}),
    "gated-transformer-xl, position values": (
        "gated-transformer-xl",
        {"memory_size": 6, "n_layers": 1, "n_heads": 1, "gate_bias": 0.5, "position_values": True},
    ),
    "adaptive-span": ("adaptive-span", {"max_span": 8, "ramp": 3, "n_heads": 2}),
    "adaptive-span, long": ("adaptive-span", {"max_span": 60, "ramp": 4, "position_values": True}),
    "adaptive-span, short": ("adaptive-span", {"max_span": 1, "ramp": 1, "n_layers": 1, "n_heads": 1}),
    "expire-span": (
        "expire-span",
        {"max_span": 8, "ramp": 3, "n_heads": 2, "penalty": "ramp", "initial_span": 0.5},
    ),
    "expire-span, long": (
        "expire-span",
        {
            "max_span": 60,
            "ramp": 4,
            "divide_logit_by_ramp": True,
            "initial_span": 0.5,
            "position_values": True,
        },
    ),
    "expire-span, short": ("expire-span", {"max_span": 1, "ramp": 1, "n_layers": 1, "initial_span": 0.9}),
    "refresh-span": (
        "refresh-span",
        {
            "max_span": 12,
            "ramp": 3,
            "n_heads": 2,
            "initial_span": 0.2,
            "initial_renewal": -0.5,
            "renewal_width": 3,
        },
    ),
    "refresh-span, long": (
        "refresh-span",
        {"max_span": 60, "ramp": 4, "n_heads": 2, "initial_renewal": -0.8, "position_values": True},
    ),
    "refresh-span, short": ("refresh-span", {"max_span": 2, "ramp": 1, "n_layers": 1, "renewal_width": 1}),
    "linear-attention": ("linear-attention", {"n_heads": 2, "nu": 2}),
    "linear-attention, sum": (
        "linear-attention",
        {"n_heads": 1, "update_rule": "sum", "feature_map": "elu", "n_layers": 1},
    ),
    "linear-attention, random features": (
        "linear-attention",
        {"n_heads": 2, "update_rule": "sum", "feature_map": "favor", "n_random": 5},
    ),
    "state-space": ("state-space", {"n_heads": 2, "longest_dependency": 9}),
    "state-space, 1 layer": ("state-space", {"n_heads": 4, "n_layers": 1}),
    "compressive": (
        "compressive",
        {"memory_size": 3, "compression_rate": 2, "compressed_size": 2, "n_heads": 2, "n_frequencies": 3},
    ),
    "compressive, auto-encoding": (
        "compressive",
        {
            "memory_size": 4,
            "compression_rate": 3,
            "compressed_size": 3,
            "n_heads": 2,
            "compression": "dilated-conv",
            "compression_loss": "auto-encoding",
            "position_values": True,
        },
    ),
    "compressive, bptt": (
        "compressive",
        {
            "memory_size": 1,
            "compression_rate": 4,
            "compressed_size": 1,
            "n_heads": 1,
            "compression_loss": "bptt",
        },
    ),
    "compressive, most used": (
        "compressive",
        {
            "memory_size": 5,
            "compression_rate": 3,
            "compressed_size": 4,
            "n_heads": 2,
            "compression": "most-used",
            "compression_loss": "none",
        },
    ),
    "compressive, mean": (
        "compressive",
        {
            "memory_size": 2,
            "compression_rate": 2,
            "compressed_size": 20,
            "n_heads": 1,
            "n_layers": 1,
            "compression": "mean",
            "compression_loss": "none",
        },
    ),
    "compressive, max": (
        "compressive",
        {
            "memory_size": 2,
            "compression_rate": 5,
            "compressed_size": 2,
            "n_heads": 2,
            "compression": "max",
            "compression_loss": "none",
        },
    ),
    "infinity-former": (
        "infinity-former",
        {"memory_size": 4, "n_heads": 2, "n_basis": 6, "chunk": 3, "tau": 0.6},
    ),
    "infinity-former, not sticky": (
        "infinity-former",
        {"memory_size": 3, "n_heads": 4, "n_basis": 5, "chunk": 2, "sticky": False, "position_values": True},
    ),
    "infinity-former, every step": (
        "infinity-former",
        # With a tau of 0.8 it is chaotic: in 150 steps a change of 1e-15 grows to 3e-8, by torch alone, too.
        {"memory_size": 1, "n_heads": 1, "n_layers": 1, "n_basis": 9, "chunk": 1, "tau": 0.6},
    ),
    "summary-tree": ("summary-tree", {"memory_size": 3, "n_levels": 3, "n_heads": 2, "n_frequencies": 3}),
    "summary-tree, high": (
        "summary-tree",
        {"memory_size": 2, "n_levels": 9, "n_heads": 2, "n_frequencies": 4, "position_values": True},
    ),
    "summary-tree, low": ("summary-tree", {"memory_size": 1, "n_levels": 2, "n_layers": 1, "n_heads": 1}),
}
"""Label -> registered name and settings, small enough that slots are dropped within a few steps."""

RENEWING = {"refresh-span"}
"""Names of memories whose slots may be given a longer life after they were made."""


def build(member: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> Memory:
    """A memory whose parameters are all away from their first values, so that spans differ."""
    torch.manual_seed(seed)
    name, settings = MEMBERS[member]
    memory = make_memory(name, WIDTH, settings).to(dtype)
    with torch.no_grad():
        for parameter in memory.parameters():
            if parameter.requires_grad:
                parameter.add_(0.4 * torch.randn_like(parameter))
    return memory.eval()  # training moves what expire-span takes for the average memory


def fresh(memory: Memory, batch_size: int) -> State:
    """`initial_state` in the memory's own precision."""
    dtype = next(memory.parameters()).dtype
    return {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in memory.initial_state(batch_size).items()
    }


def features(n_steps: int, batch_size: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_steps, batch_size, WIDTH, generator=generator, dtype=torch.float64).to(dtype)


def starts(pattern: str, n_steps: int, batch_size: int) -> Tensor:
    """Where episodes start: (T, B) bool."""
    at = torch.zeros(n_steps, batch_size, dtype=torch.bool)
    middle = n_steps // 2
    match pattern:
        case "never":
            pass
        case "first step":
            at[0] = True
        case "one row's first step":
            at[0, 1] = True
        case "middle":
            at[middle, 0] = at[middle + 1, 1] = True
        case "random":
            at = torch.rand(n_steps, batch_size, generator=torch.Generator().manual_seed(3)) < 0.25
        case "all kinds":
            # row 0 never, row 1 at first, 2 in the middle, 3 in the last step, 4 in a row, 5 in the first two
            # steps, 6 always; from 7 on at random
            at = starts("random", n_steps, batch_size)
            at[:, :7] = False
            at[0, 1] = at[middle, 2] = at[-1, 3] = True
            at[middle : middle + 3, 4] = at[:2, 5] = at[:, 6] = True
        case _:
            raise ValueError(pattern)
    return at


def unroll(memory: Memory, x: Tensor, state: State, episode_starts: Tensor) -> MemoryOutput:
    """T calls of `step`, put together like the answer of one `forward`. Takes `state` over."""
    outs = []
    for now, start in zip(x, episode_starts, strict=True):
        outs.append(memory.step(now, state, start))
        state = outs[-1].state
    return _together(outs, torch.stack)


def in_blocks(
    memory: Memory, x: Tensor, state: State, episode_starts: Tensor, cuts: list[int]
) -> MemoryOutput:
    """Calls of `forward` on a block cut before each step of `cuts`."""
    outs = []
    for first, last in pairwise([0, *cuts, len(x)]):
        outs.append(memory(x[first:last], state, episode_starts[first:last]))
        state = outs[-1].state
    return _together(outs, torch.cat)


def _together(outs: list[MemoryOutput], join: Callable[[list[Tensor]], Tensor]) -> MemoryOutput:
    return MemoryOutput(
        join([out.features for out in outs]),
        outs[-1].state,
        {name: join([out.losses[name] for out in outs]) for name in outs[0].losses},
        {name: join([out.stats[name] for out in outs]) for name in outs[0].stats},
    )


def assert_same(a: MemoryOutput, b: MemoryOutput, tolerance: float = 1e-9) -> None:
    """The same features, losses and measurements; states may be laid out differently."""
    torch.testing.assert_close(a.features, b.features, atol=tolerance, rtol=tolerance)
    assert a.losses.keys() == b.losses.keys()
    assert a.stats.keys() == b.stats.keys()
    for name in a.losses:
        torch.testing.assert_close(a.losses[name], b.losses[name], atol=tolerance, rtol=tolerance)
    for name in a.stats:
        torch.testing.assert_close(a.stats[name], b.stats[name], atol=tolerance, rtol=tolerance)
