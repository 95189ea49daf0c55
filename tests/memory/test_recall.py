"""Can it learn to remember at all? One symbol, then noise, then the question."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from memspan.memory import MEMORIES, make_memory

WIDTH, N_STEPS = 32, 13
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "lstm": {},
    "gru": {},
    "transformer-xl": {"n_layers": 1, "memory_size": 16},
    "gated-transformer-xl": {"n_layers": 1, "memory_size": 16},
    "adaptive-span": {"n_layers": 1, "max_span": 32, "ramp": 4},
    "compressive": {"n_layers": 1, "memory_size": 4, "compression_rate": 3, "compressed_size": 4},
    "expire-span": {"n_layers": 1, "max_span": 32, "ramp": 4},
    "refresh-span": {"n_layers": 1, "max_span": 32, "ramp": 4, "initial_span": 0.5},
    "linear-attention": {"n_layers": 1},
    "state-space": {"n_layers": 1, "longest_dependency": 32},
    # The symbol is in the long-term memory alone when it is asked for.
    "infinity-former": {"n_layers": 1, "memory_size": 4, "chunk": 4, "n_basis": 16},
    "summary-tree": {"n_layers": 1, "memory_size": 4, "n_levels": 5},  # 8 steps are one summary at the end
}


@pytest.mark.parametrize("name", MEMORIES)
def test_recall_of_the_first_symbol(name: str) -> None:
    """Which of two symbols was shown twelve noisy steps ago; without a memory it stays a guess."""
    torch.manual_seed(0)
    memory = make_memory(name, WIDTH, SETTINGS[name])
    symbols = torch.randn(2, WIDTH)
    read_out = nn.Linear(WIDTH, 2)
    optimizer = torch.optim.Adam([*memory.parameters(), *read_out.parameters()], lr=3e-3)
    episode_starts = torch.zeros(N_STEPS, 64, dtype=torch.bool)
    episode_starts[0] = True
    state = memory.initial_state(64)
    correct = []
    for _ in range(120):
        answer = torch.randint(2, (64,))
        x = torch.randn(N_STEPS, 64, WIDTH)
        x[0] = symbols[answer]
        logits = read_out(memory(x, state, episode_starts).features[-1])
        optimizer.zero_grad()
        F.cross_entropy(logits, answer).backward()
        optimizer.step()
        correct.append((logits.argmax(-1) == answer).float().mean().item())
    accuracy = sum(correct[-20:]) / 20
    if name == "none":
        assert 0.4 < accuracy < 0.6
    else:
        assert accuracy > 0.95
