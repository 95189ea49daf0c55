"""How a memory learns a probe: by gradient, in blocks, with the state carried from one to the next.

A sequence starts from the state that remembers nothing and is read in blocks of `block_size` steps, as in
the training of an agent: gradients stay inside a block, and what was remembered before it comes in as
numbers. So over a gap that is longer than a block, no gradient tells a memory what to keep; shorter ones do,
which are mixed in (`Probe.training_size`).
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memspan.memory import Memory, MemoryOutput, make_config, make_memory, optimizer_groups
from memspan.probes.base import Probe, Sequences
from memspan.probes.entrants import Entrant, far_enough
from memspan.probes.results import Result

CURVE_EVERY = 10
"""Updates that a point of a learning curve is the mean of."""
MAX_GRAD_NORM = 1.0
SOLVED_FOR = 20
"""Updates in a row without an error after which there is nothing more to learn; the last is at full size."""
ROWS = 64
"""Sequences that are tested side by side."""

OnUpdate = Callable[[int, float], None]
"""Is told how many updates were made, and the score of the last."""


@dataclass(frozen=True)
class Training:
    """How long, on what and how fast to learn."""

    steps: int = 400
    """Updates at most, one batch each; fewer where 20 in a row were without an error, the last
    of them at the size of the test."""
    batch_size: int = 32
    """Sequences of a batch."""
    width: int = 64
    """D, width of the memory."""
    block_size: int = 128
    """T, steps of a block: gradients stay inside, the state is carried on."""
    learning_rate: float = 3e-3
    """Of Adam, at the start."""
    final_learning_rate: float | None = None
    """At the last update; it falls linearly. None: constant."""
    memory_loss_coef: float = 0.0
    """Weight of the memory's own losses, like Expire-Span's penalty."""
    test_sequences: int = 256
    """Sequences of the test, which no training has seen."""

    def validate(self) -> None:
        """Raises ValueError that names the field, its value and what is allowed."""
        for name in ("steps", "batch_size", "width", "block_size", "test_sequences"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("learning_rate", 0 < self.learning_rate < float("inf"), "above 0")
        last = self.final_learning_rate
        self._require(
            "final_learning_rate", last is None or 0 <= last <= self.learning_rate, "from 0 to learning_rate"
        )
        self._require("memory_loss_coef", 0 <= self.memory_loss_coef < float("inf"), "at least 0")

    def _require(self, name: str, allowed: bool, what: str) -> None:
        if not allowed:
            raise ValueError(f"{name}={getattr(self, name)!r}: must be {what}")


@dataclass(frozen=True)
class Block:
    """What was answered in a block; q of the Q questions, maybe none, fell into it."""

    outputs: Tensor
    """(q, B, O)."""
    answers: Tensor
    """The right ones: (q, B) or (q, B, O)."""
    memory: MemoryOutput


class ProbeModel(nn.Module):
    """A memory between a linear map of the inputs and one to the answers."""

    def __init__(self, memory: Memory, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(n_inputs, memory.width)
        # Inputs have a length of about 1, features a variance of about 1.
        nn.init.normal_(self.encoder.weight)
        self.memory = memory
        self.read_out = nn.Linear(memory.width, n_outputs)

    def read(self, sequences: Sequences, block_size: int, all_learn: bool = False) -> Iterator[Block]:
        """Reads sequences in blocks, from the state that remembers nothing.

        Args:
            sequences: what is read.
            block_size: steps of a block.
            all_learn: blocks without a question are part of the graph, too.
        """
        x, answers = sequences.x, sequences.answers
        n_steps, n_rows, _ = x.shape
        first_question = n_steps - len(answers)
        state = self.memory.initial_state(n_rows, x.device)
        starts = torch.zeros(n_steps, n_rows, dtype=torch.bool, device=x.device)
        starts[0] = True
        for start in range(0, n_steps, block_size):
            end = min(start + block_size, n_steps)
            learns = all_learn or end > first_question
            with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
                out = self.memory(
                    self.encoder(x[start:end]), state, starts[start:end], keep_state=end < n_steps
                )
                outputs = self.read_out(out.features[max(first_question - start, 0) :])
            state = out.state
            asked = slice(max(start - first_question, 0), max(end - first_question, 0))
            yield Block(outputs, answers[asked], out)


def run(
    probe: Probe, entrant: Entrant, size: int, training: Training, on_update: OnUpdate | None = None
) -> Result:
    """Trains a memory from scratch on a probe of one size, and tests it at that size.

    The numbers depend on the arguments alone. Sequences are the same for every memory, but for the batch of
    full size that proves it has learnt.

    Raises:
        ValueError: the memory cannot be built.
        FloatingPointError: it diverged: the loss or an answer is no number any more.
    """
    begun = time.monotonic()
    n_steps = len(probe.draw(size, 1, probe.generator("size")).x)
    settings = far_enough(entrant, training.width, n_steps)
    torch.manual_seed(random.Random(f"{probe.seed} weights").getrandbits(63))
    memory = make_memory(entrant.memory, training.width, settings)
    model = ProbeModel(memory, probe.n_inputs(size), probe.n_outputs(size))
    curve, solved = _train(model, probe, size, training, on_update)
    scores, effective_memory = _test(model, probe, size, training)
    if not scores.isfinite().all():
        raise FloatingPointError("diverged at the last update; a lower learning rate may help")
    return Result(
        memory=entrant.memory,
        label=entrant.label,
        size=size,
        score=float(scores.mean()),
        scores=scores.tolist(),
        updates=curve["update"][-1],
        solved=solved,
        curve=curve,
        capacity=memory.capacity,
        parameters=sum(one.numel() for one in model.parameters() if one.requires_grad),
        memory_kwargs=dataclasses.asdict(make_config(entrant.memory, settings)),
        seconds=time.monotonic() - begun,
        effective_memory=effective_memory,
    )


def _train(
    model: ProbeModel, probe: Probe, size: int, training: Training, on_update: OnUpdate | None
) -> tuple[dict[str, list[Any]], bool]:
    """Learns until everything is known or time is up; returns the learning curve and which of the two."""
    model.train()
    optimizer = torch.optim.Adam(
        optimizer_groups(model.memory, model.parameters()), lr=training.learning_rate
    )
    last = training.learning_rate if training.final_learning_rate is None else training.final_learning_rate
    # Groups with a pace of their own keep their proportion to the others.
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1, last / training.learning_rate, training.steps)
    recent: deque[float] = deque(maxlen=SOLVED_FOR)
    without_error = 0
    curve: dict[str, list[Any]] = {"update": [], "size": [], "loss": [], "score": []}
    points: list[tuple[float, float, float]] = []
    solved = False
    for update in range(1, training.steps + 1):
        # One for each update: how a memory fares changes nothing about what is drawn later.
        generator = probe.generator(f"train {size} {update}")
        drawn = probe.training_size(size, generator)
        if without_error == SOLVED_FOR - 1:
            # Most sizes are short, and may all be within reach where that of the test is not.
            drawn = size
        sequences = probe.draw(drawn, training.batch_size, generator)
        loss, score = _update(model, optimizer, probe, sequences, training)
        if not (math.isfinite(loss) and math.isfinite(score)):
            raise FloatingPointError(f"diverged at update {update}; a lower learning rate may help")
        falling.step()
        recent.append(score)
        points.append((drawn, loss, score))
        without_error = without_error + 1 if probe.solved(score) else 0
        solved = without_error == SOLVED_FOR
        if update % CURVE_EVERY == 0 or update == training.steps or solved:
            curve["update"].append(update)
            for name, values in zip(("size", "loss", "score"), zip(*points, strict=True), strict=True):
                curve[name].append(sum(values) / len(values))
            points = []
        if on_update is not None:
            on_update(update, sum(recent) / len(recent))
        if solved:
            break
    return curve, solved


def _update(
    model: ProbeModel,
    optimizer: torch.optim.Adam,
    probe: Probe,
    sequences: Sequences,
    training: Training,
) -> tuple[float, float]:
    """Learns from one batch; returns loss and score of the answers."""
    optimizer.zero_grad()
    coefficient = training.memory_loss_coef
    n_questions, n_steps = len(sequences.answers), len(sequences.x)
    loss_sum = score_sum = 0.0
    # Blocks are separate graphs: each goes backward before the next is read.
    for block in model.read(sequences, training.block_size, all_learn=coefficient > 0):
        n_asked = len(block.answers)
        total = block.outputs.new_zeros(())
        if n_asked:
            loss = probe.loss(block.outputs, block.answers) * (n_asked / n_questions)
            loss_sum += loss.item()
            score_sum += probe.scores(block.outputs.detach(), block.answers).sum(0).mean().item()
            total = total + loss
        if coefficient:
            for value in block.memory.losses.values():
                total = total + coefficient * value.sum(0).mean() / n_steps
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
    optimizer.step()
    return loss_sum, score_sum / n_questions


@torch.no_grad()
def _test(model: ProbeModel, probe: Probe, size: int, training: Training) -> tuple[Tensor, float]:
    """Scores (test_sequences,) of unseen sequences, means over questions, and the effective memory there."""
    model.eval()
    generator = probe.generator(f"test {size}")
    scores: list[Tensor] = []
    effective_memory: list[Tensor] = []
    for first in range(0, training.test_sequences, ROWS):
        n_rows = min(ROWS, training.test_sequences - first)
        sequences = probe.draw(size, n_rows, generator)
        of_batch: list[Tensor] = []
        for block in model.read(sequences, training.block_size):
            n_asked = len(block.answers)
            of_batch.append(probe.scores(block.outputs, block.answers))
            if n_asked:
                effective_memory.append(block.memory.stats["effective_memory"][-n_asked:].flatten())
        scores.append(torch.cat(of_batch).mean(0))
    return torch.cat(scores), float(torch.cat(effective_memory).mean())
