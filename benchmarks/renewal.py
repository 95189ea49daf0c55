"""What renewals are for: cards that all look alike, one of which turns out to matter.

    python benchmarks/renewal.py [--seeds 2] [--updates 1000] [--penalty 0.02]

Every step shows a card: a key of 12 signs and one of 4 colours. One step, the marker, repeats the key of one
of the last three cards; the last step, the question, repeats it again and asks for that card's colour. Steps
between marker and question are 1 to 27 further cards. No card can be told from another when it is seen.

Expire-Span has to give all cards a span as long as the gap, or none. Refresh-Span can let all go soon and
renew the marked one. Both have one layer: with two, the marker's own memory in the second could hold what the
first has read, and the card would no longer be needed. Keys and queries of attention start as the card's key,
so that it is what is kept that has to be learnt. The penalty is the same throughout: its coefficient times
`losses["span"]`.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from memspan.memory import make_memory

SIGNS, COLOURS, WIDTH, STEPS, ROWS = 12, 4, 24, 32, 64
LONG = 12
"""Gaps from marker to question above this are counted apart."""
SHARED = {
    "n_layers": 1,
    "n_heads": 1,
    "max_span": 64,
    "ramp": 4,
    "copy_at_first": True,
    "span_learning_rate": 0.006,
}
CONTENDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "expire-span, long first spans": ("expire-span", {"initial_span": 0.9}),
    "expire-span, short first spans": ("expire-span", {"initial_span": 0.1}),
    "refresh-span": ("refresh-span", {"initial_span": 0.1, "renewal_width": WIDTH, "initial_renewal": -0.96}),
}


class Batch(NamedTuple):
    """Episodes of the task."""

    x: Tensor
    """(T, B, D): signs, colour, flags of marker and question."""
    colour: Tensor
    """(B,) of the marked card."""
    gap: Tensor
    """(B,) steps from marker to question."""


class Result(NamedTuple):
    """Means over the last updates' batches, each measured before the update."""

    accuracy: float
    accuracy_long: float
    effective_memory: float
    at_question: float


def draw(generator: torch.Generator) -> Batch:
    """Episodes that nobody has seen."""
    signs = torch.randint(2, (STEPS, ROWS, SIGNS), generator=generator) * 2.0 - 1
    colours = torch.randint(COLOURS, (STEPS, ROWS), generator=generator)
    marker = torch.randint(4, STEPS - 1, (ROWS,), generator=generator)
    card = marker - torch.randint(1, 4, (ROWS,), generator=generator)
    rows = torch.arange(ROWS)
    x = torch.zeros(STEPS, ROWS, WIDTH)
    x[..., :SIGNS] = signs
    x[..., SIGNS : SIGNS + COLOURS] = 2.0 * F.one_hot(colours, COLOURS)
    question = torch.full_like(marker, STEPS - 1)
    for step, flag in (marker, SIGNS + COLOURS), (question, SIGNS + COLOURS + 1):
        x[step, rows] = 0
        x[step, rows, :SIGNS] = signs[card, rows]
        x[step, rows, flag] = 3
    return Batch(x, colours[card, rows], question - marker)


def train(contender: str, seed: int, updates: int, penalty: float) -> Result:
    """Trains from scratch; the last 50 updates are measured."""
    name, settings = CONTENDERS[contender]
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    memory, read_out = make_memory(name, WIDTH, SHARED | settings), nn.Linear(WIDTH, COLOURS)
    (attention,) = memory.layers  # type: ignore[misc, union-attr]
    with torch.no_grad():
        attention.query.weight.copy_(1.6 * torch.diag((torch.arange(WIDTH) < SIGNS).float()))
        attention.key.weight.copy_(attention.query.weight)
    groups = memory.parameter_groups()
    paced = {id(parameter) for group in groups for parameter in group.parameters}
    others = [p for p in [*memory.parameters(), *read_out.parameters()] if id(p) not in paced]
    optimizer = torch.optim.Adam(
        [
            {"params": others, "lr": 3e-3},
            *({"params": g.parameters, "lr": g.learning_rate, **g.optimizer_settings} for g in groups),
        ]
    )
    episode_starts = torch.zeros(STEPS, ROWS, dtype=torch.bool)
    episode_starts[0] = True
    state = memory.initial_state(ROWS)
    measured = []
    for update in range(updates):
        batch = draw(generator)
        out = memory(batch.x, state, episode_starts, keep_state=False)
        logits = read_out(out.features[-1])
        # The task first: 30 updates without a penalty.
        coefficient = penalty if update >= 30 else 0.0
        optimizer.zero_grad()
        (F.cross_entropy(logits, batch.colour) + coefficient * out.losses["span"].mean()).backward()
        optimizer.step()
        if update >= updates - 50:
            right = (logits.argmax(-1) == batch.colour).float()
            effective = out.stats["effective_memory"]
            measured.append(
                torch.stack(
                    [right.mean(), right[batch.gap > LONG].mean(), effective.mean(), effective[-1].mean()]
                )
            )
    return Result(*torch.stack(measured).mean(0).tolist())


def main() -> None:
    """Trains all and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--penalty", type=float, default=0.02)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(
        "memory", "seed", "accuracy", f"gaps above {LONG}", "effective memory", "at the question",
        title=f"The marked card's colour; penalty {options.penalty}, {options.updates} updates",
    )  # fmt: skip
    trials = [(name, seed) for name in CONTENDERS for seed in range(options.seeds)]
    for name, seed in track(trials, "training"):
        result = train(name, seed, options.updates, options.penalty)
        table.add_row(name, str(seed), *(f"{v:.2f}" for v in result[:2]), *(f"{v:.1f}" for v in result[2:]))
    Console(width=max(Console().width, 110)).print(table)


if __name__ == "__main__":
    main()
