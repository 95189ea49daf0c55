"""Draws what each memory can read of a past, from the memories themselves.

    python docs/figures.py          # writes docs/images/masks.svg, and masks-NAME.svg for each memory

A memory of slots is asked, step by step, what it holds (`Memory.remembered`). A memory with one
state of fixed size keeps no steps apart; there, each input is hidden in turn, and how much that
changes what comes out later is drawn.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from memspan.evaluation.looks import look_of
from memspan.memory import Memory, make_memory
from memspan.memory.expire_span import SpanPredictor

IMAGES = Path(__file__).parent / "images"
STEPS, WIDTH = 40, 16
MARKED = (3, 17)
"""Steps whose input is a cue; all others are noise."""

ONE_LAYER = {"n_layers": 1, "n_heads": 2}
SETTINGS = {
    "transformer-xl": ONE_LAYER | {"memory_size": 12},
    "gated-transformer-xl": ONE_LAYER | {"memory_size": 12},
    "adaptive-span": ONE_LAYER | {"max_span": 40, "ramp": 8, "initial_span": 0.3},
    "expire-span": ONE_LAYER | {"max_span": 40, "ramp": 6},
    "refresh-span": ONE_LAYER | {"max_span": 12, "ramp": 6},
    "compressive": ONE_LAYER | {"memory_size": 8, "compression_rate": 4, "compressed_size": 6},
    "infinity-former": ONE_LAYER | {"memory_size": 8, "n_basis": 8, "chunk": 4},
    "summary-tree": ONE_LAYER | {"memory_size": 8, "n_levels": 6},
    "lstm": {"longest_dependency": 40},
    "gru": {"longest_dependency": 40},
    "linear-attention": ONE_LAYER,
    "state-space": ONE_LAYER | {"longest_dependency": 40},
}
SAYS = {
    "transformer-xl": "the last M steps",
    "gated-transformer-xl": "the last M steps",
    "adaptive-span": "as far as its longest head",
    "expire-span": "the cues, and others for a ramp",
    "refresh-span": "what is renewed, for longer",
    "compressive": "the last steps, older ones 4 to 1",
    "infinity-former": "the last steps, and a signal",
    "summary-tree": "the last steps, and summaries",
    "lstm": "one state: what is left of a step",
    "gru": "one state: what is left of a step",
    "linear-attention": "one matrix: what is left of a step",
    "state-space": "one matrix: what is left of a step",
}
SHARED = {"compressive", "summary-tree"}
"""Memories in which a slot can stand for several steps: those since the next older slot."""
Matrix = npt.NDArray[np.float64]


def inputs() -> torch.Tensor:
    """(T, 1, D) noise, with the same cue at some steps."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(STEPS, 1, WIDTH, generator=generator)
    x[list(MARKED)] = cue()
    return x


def cue() -> torch.Tensor:
    """(D,) what is worth remembering."""
    return 2.0 * torch.where(torch.arange(WIDTH) % 2 == 0, 1.0, -1.0)


def build(name: str) -> Memory:
    """The memory; where spans are learnt, with predictors that give cues the longest."""
    torch.manual_seed(0)
    memory = make_memory(name, WIDTH, SETTINGS[name]).eval()
    for module in memory.modules():
        if isinstance(module, SpanPredictor):
            with torch.no_grad():
                module.weight.copy_(cue() * 0.2)
                module.bias.fill_(-4.0 / WIDTH**0.5)
    return memory


@torch.no_grad()
def reads(name: str) -> Matrix:
    """(T, T), row by step: the share of a memory vector that each earlier step has, from 0 to 1."""
    memory, x = build(name), inputs()
    state, matrix = memory.initial_state(1), np.zeros((STEPS, STEPS))
    for now in range(STEPS):
        state = memory.step(x[now], state, torch.tensor([now == 0])).state
        (layer,) = memory.remembered(state)
        slots = {
            now - int(age): float(strength)
            for age, strength in zip(layer.age[0], layer.strength[0], strict=False)
        }
        slots = {step: strength for step, strength in slots.items() if step < now and strength > 0}
        older = -1
        for step, strength in sorted(slots.items()):
            first = older + 1 if name in SHARED else step
            if name == "compressive":
                first = max(first, step - SETTINGS[name]["compression_rate"] + 1)
            matrix[now, first : step + 1] = strength / (step + 1 - first) ** 0.5
            older = step
        if name == "infinity-former":
            matrix[now, : max(now - SETTINGS[name]["memory_size"], 0)] = 0.25  # they share the signal
    return matrix


@torch.no_grad()
def is_left(name: str) -> Matrix:
    """(T, T), row by step: how much hiding each earlier input changes what comes out, 1 at most."""
    memory, x = build(name), inputs()
    starts = torch.zeros(STEPS, 1, dtype=torch.bool)
    starts[0] = True

    def features(x: torch.Tensor) -> torch.Tensor:
        return memory(x, memory.initial_state(1), starts).features[:, 0]

    matrix, plain = np.zeros((STEPS, STEPS)), features(x)
    for step in range(STEPS):
        changed = x.clone()
        changed[step] = 0
        matrix[:, step] = (features(changed) - plain).norm(dim=-1).numpy()
    matrix[np.triu_indices(STEPS)] = 0
    return matrix / matrix.max()


def draw(axes: Axes, name: str) -> None:
    """One memory: rows are steps, from above; columns are what they read."""
    memory = build(name)
    state = memory.step(inputs()[0], memory.initial_state(1), torch.tensor([True])).state
    of_slots = memory.remembered(state)[0].age.shape[1] > 0
    matrix = reads(name) if of_slots else is_left(name) ** 0.5
    colours = LinearSegmentedColormap.from_list(name, ["#ffffff", look_of(name).colour])
    axes.imshow(matrix, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    axes.fill_between([-0.5, STEPS - 0.5], [-0.5, STEPS - 0.5], -0.5, color="#eeeeee", linewidth=0)
    axes.set(title=f"{name}\n{SAYS[name]}", xticks=MARKED, yticks=[], xlim=(-0.5, STEPS - 0.5))
    axes.set_xticklabels(["cue"] * len(MARKED))
    axes.tick_params(length=3, labelsize=8)
    axes.title.set_fontsize(9)


def save(figure: matplotlib.figure.Figure, name: str) -> None:
    path = IMAGES / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    # matplotlib leaves blanks at ends of lines.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    plt.close(figure)


def main() -> None:
    matplotlib.rcParams["svg.hashsalt"] = "memspan"
    figure, grid = plt.subplots(3, 4, figsize=(9.6, 9.0), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12)
    for name, axes in zip(SETTINGS, grid.flat, strict=True):
        draw(axes, name)
    figure.supxlabel("which earlier step", fontsize=10)
    figure.supylabel("what a step reads, from the first step (above) to the last", fontsize=10)
    save(figure, "masks")
    for name in SETTINGS:
        figure, axes = plt.subplots(figsize=(3.2, 3.2), layout="constrained")
        draw(axes, name)
        axes.set_xlabel("which earlier step", fontsize=8)
        axes.set_ylabel("step, the first above", fontsize=8)
        save(figure, f"masks-{name}")


if __name__ == "__main__":
    main()
