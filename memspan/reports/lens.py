"""The memory lens: one episode, step by step, with what the agent remembers of it at each.

Dimension letters: T steps of the episode, S slots.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from memspan.evaluation.looks import look_of
from memspan.memory import Remembered
from memspan.reports.data import ReportRun
from memspan.runs import load_model
from memspan.runs.environments import environment_spec
from memspan.show.environments import make_rendered_env, short
from memspan.show.frames import Frame, Player

MOST_STEPS = 500
"""Of an episode; a longer one is cut."""
LARGEST_SIDE = 400
"""Pixels of a picture."""
THOUSAND = 1000


@dataclass
class Lens:
    """An episode as the page replays it; lists are short for JSON."""

    title: str
    memory: str
    colour: str
    run: str
    outcome: str = ""
    capacity: float = 0.0
    pictures: list[str] = field(default_factory=list)
    """Data URIs, each picture once."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    """Per step: `p` picture, `a` action, `r` reward, `v` value, `e` effective memory, `l` layers, each
    flat: past step, steps that it will last (-1: without end), attention in thousandths, and so on."""
    vectors: bool = False
    """Whether the memory has vectors of constant size in place of slots."""
    cut: bool = False


def play_lens(run: ReportRun, seed: int, on_step: Callable[[int], None] | None = None) -> Lens:
    """Plays an episode with a run's last weights.

    Args:
        run: with a checkpoint.
        seed: of environment and actions.
        on_step: called with the number of every step.

    Raises:
        ValueError: the run cannot be loaded, or its environment draws no pictures.
    """
    config, model = load_model(run.folder, device="cpu")
    torch.set_num_threads(config.threads)
    torch.manual_seed(seed)
    env = make_rendered_env(environment_spec(config.env), config.env_kwargs, "window")
    player = Player(config, model.policy, env, seed)
    lens = Lens(
        title=f"{run.label} in {config.env.rpartition(':')[2]}",
        memory=config.memory.rpartition(":")[2],
        colour=look_of(config.memory).colour,
        run=run.label,
    )
    known: dict[bytes, int] = {}
    try:
        for frame in player.frames(1, deterministic=False):
            _add(lens, frame, known)
            if on_step is not None:
                on_step(frame.step)
            if len(lens.steps) >= MOST_STEPS and not frame.outcome:
                lens.cut = True
                break
    finally:
        player.env.close()
    return lens


def _add(lens: Lens, frame: Frame, known: dict[bytes, int]) -> None:
    picture = np.ascontiguousarray(frame.drawing)
    key = picture.tobytes()
    if key not in known:
        known[key] = len(lens.pictures)
        lens.pictures.append(encode(picture))
    lens.capacity = frame.capacity
    lens.outcome = frame.outcome or lens.outcome
    lens.vectors = bool(frame.layers) and not any(layer.age.shape[1] for layer in frame.layers)
    lens.steps.append(
        {
            "p": known[key],
            "a": frame.action or frame.outcome,
            "r": short(frame.reward),
            "v": round(frame.value, 3),
            "e": round(frame.effective, 2),
            "l": [slots(layer, frame.seen) for layer in frame.layers],
        }
    )


def slots(layer: Remembered, seen: int) -> list[int]:
    """The readable slots of a layer, flat: past step, steps left, attention in thousandths, and so on.

    Args:
        layer: one row.
        seen: steps that the memory was shown; the last is step `seen` - 1.
    """
    age = layer.age[0].cpu().numpy()
    readable = np.flatnonzero(
        (age >= 0) & (age < seen) & ((layer.strength[0].cpu().numpy() > 0) | (age == 0))
    )
    left = layer.steps_left[0].cpu().numpy()
    shares = np.zeros(len(age)) if layer.attention is None else layer.attention[0].cpu().numpy()
    flat: list[int] = []
    for slot in readable[np.argsort(-age[readable])]:
        lasts = int(left[slot]) if np.isfinite(left[slot]) else -1
        flat += [int(seen - 1 - age[slot]), lasts, round(float(shares[slot]) * THOUSAND)]
    return flat


def encode(picture: np.ndarray) -> str:
    """(height, width, 3) as a data URI, small enough for a page."""
    image = Image.fromarray(picture.astype(np.uint8))
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.quantize(64, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
