"""What renewals are for: cards that all look alike, one of which turns out to matter.

    python benchmarks/renewal.py [--seeds 2] [--updates 400] [--figure renewal.png]

Every step shows a card: a key of 12 signs and one of 4 colours. One step, the marker, repeats the key of one
of the last three cards; the last step, the question, repeats it again and asks for that card's colour. In
between there are up to 26 further cards. No card can be told from another when it is seen.

Expire-Span has to give all cards a span as long as the gap, or none. Refresh-Span can let all go soon and
renew the marked one. Both have one layer: with two, the marker's own memory in the second could hold what the
first has read, and the card would no longer be needed. Keys and queries of attention start as the card's key,
so that it is what is kept that has to be learnt.

All are trained in the same way: first on the task alone, then with a penalty, its coefficient times
`losses["span"]`. Each keeps its own default first spans. What is printed are means over the last batches,
which nobody has seen before.
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

from memspan.memory import make_memory, optimizer_groups

SIGNS, COLOURS, WIDTH, STEPS, ROWS = 12, 4, 24, 32, 64
LONG = 12
"""Gaps from marker to question above this are counted apart."""
WARM_UP = 100
"""Updates without a penalty."""
MEASURED = 50
"""Updates whose batches are measured, the last ones."""
SHARED = {
    "n_layers": 1,
    "n_heads": 1,
    "max_span": 64,
    "ramp": 4,
    "copy_at_first": True,
    "span_learning_rate": 0.006,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "expire-span": {},
    "refresh-span": {"renewal_width": WIDTH, "initial_renewal": -0.96},
}
TRIALS = [("expire-span", 0.0), ("expire-span", 0.05), ("expire-span", 0.08), ("refresh-span", 0.08)]
"""Memories and penalties."""


class Batch(NamedTuple):
    """Episodes of the task."""

    x: Tensor
    """(T, B, D): signs, colour, flags of marker and question."""
    colour: Tensor
    """(B,) of the marked card."""
    gap: Tensor
    """(B,) steps from marker to question."""


class Result(NamedTuple):
    """Means over the last batches, each measured before it is learnt from."""

    accuracy: float
    accuracy_long: float
    """Where the gap is longer than `LONG`."""
    effective_memory: float
    """Over all steps; 15.5 is all that there is."""
    at_question: float
    """Effective memory of the last step; 31 is all that there is."""


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


def train(name: str, seed: int, updates: int, penalty: float) -> Result:
    """Trains a memory from scratch."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    memory, read_out = make_memory(name, WIDTH, SHARED | SETTINGS[name]), nn.Linear(WIDTH, COLOURS)
    (attention,) = memory.layers  # type: ignore[misc]
    with torch.no_grad():
        attention.query.weight.copy_(1.6 * torch.diag((torch.arange(WIDTH) < SIGNS).float()))
        attention.key.weight.copy_(attention.query.weight)
    parameters = [*memory.parameters(), *read_out.parameters()]
    optimizer = torch.optim.Adam(optimizer_groups(memory, parameters), lr=3e-3)
    episode_starts = torch.zeros(STEPS, ROWS, dtype=torch.bool)
    episode_starts[0] = True
    state = memory.initial_state(ROWS)
    measured = []
    for update in range(updates):
        batch = draw(generator)
        out = memory(batch.x, state, episode_starts, keep_state=False)
        logits = read_out(out.features[-1])
        coefficient = penalty if update >= WARM_UP else 0.0
        optimizer.zero_grad()
        (F.cross_entropy(logits, batch.colour) + coefficient * out.losses["span"].mean()).backward()
        optimizer.step()
        if update >= updates - MEASURED:
            right = (logits.argmax(-1) == batch.colour).float()
            effective = out.stats["effective_memory"]
            measured.append(
                torch.stack(
                    [right.mean(), right[batch.gap > LONG].mean(), effective.mean(), effective[-1].mean()]
                )
            )
    return Result(*torch.stack(measured).mean(0).tolist())


def draw_figure(results: dict[tuple[str, float, int], Result], path: str) -> None:
    """Accuracy over effective memory, a marker per run, the penalty beside it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from memspan.evaluation.looks import look_of
    from memspan.evaluation.panels import GREY, STYLE

    with mpl.rc_context(STYLE):
        figure = Figure((6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        labelled: list[tuple[float, float]] = []
        for (name, penalty, _), result in results.items():
            look = look_of(name)
            place = (result.effective_memory, result.accuracy_long)
            (marker,) = axes.plot(*place, look.marker, color=look.colour, ms=8, mec="white", clip_on=False)
            marker.set_label(name)
            # One word for runs that are in one place.
            if all(abs(place[0] - other[0]) + abs(place[1] - other[1]) > 0.5 for other in labelled):
                axes.annotate(f"{penalty:g}", place, xytext=(9, -3), textcoords="offset points", fontsize=9)
                labelled.append(place)
        handles, names = axes.get_legend_handles_labels()
        by_name = dict(zip(names, handles, strict=True))
        axes.legend(by_name.values(), by_name.keys(), loc="upper left", frameon=False)
        axes.axhline(1 / COLOURS, color=GREY, ls=(0, (4, 3)), lw=1.1)
        axes.annotate("chance", (0.1, 1 / COLOURS), xytext=(0, 3), textcoords="offset points", color=GREY)
        axes.set_xlim(0, STEPS / 2 + 1)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("effective memory, mean over steps")
        axes.set_ylabel(f"accuracy, gaps above {LONG}")
        axes.set_title("a marker per run, its penalty beside it", loc="left")
        figure.savefig(path, dpi=150)


def main() -> None:
    """Trains all and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--figure", help="where to draw accuracy over effective memory")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(
        "memory", "penalty", "seed", "accuracy", f"gaps above {LONG}", "effective memory", "at the question",
        title=f"The marked card's colour, {options.updates} updates",
    )  # fmt: skip
    results: dict[tuple[str, float, int], Result] = {}
    for name, penalty, seed in track(
        [(*trial, seed) for trial in TRIALS for seed in range(options.seeds)], "training"
    ):
        result = results[name, penalty, seed] = train(name, seed, options.updates, penalty)
        cells = [f"{value:.2f}" for value in result[:2]] + [f"{value:.1f}" for value in result[2:]]
        table.add_row(name, f"{penalty:g}", str(seed), *cells)
    Console(width=max(Console().width, 110)).print(table)
    if options.figure:
        draw_figure(results, options.figure)


if __name__ == "__main__":
    main()
