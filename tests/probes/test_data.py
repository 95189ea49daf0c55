"""What is asked can be answered from what was shown, and from nothing else."""

import dataclasses

import pytest
import torch
from torch import Tensor

from memspan.probes import PROBES, Probe, Sequences
from memspan.probes.capacity import Capacity
from memspan.probes.copy import Copy
from memspan.probes.recall import Recall
from memspan.probes.sort import Sort

VARIANTS: dict[str, tuple[Probe, int]] = {
    "recall": (Recall(), 20),
    "copy": (Copy(), 20),
    "copy, unnumbered": (Copy(unnumbered=True), 20),
    "capacity": (Capacity(), 20),
    "capacity, replaced": (Capacity(replace=True), 20),
    "sort": (Sort(), 60),
}


def draw(label: str, batch_size: int = 400, seed: int = 0) -> tuple[Probe, Sequences]:
    probe, size = VARIANTS[label]
    probe = dataclasses.replace(probe, seed=seed)
    return probe, probe.draw(size, batch_size, probe.generator("here"))


def oracle(label: str, probe: Probe, x: Tensor, n_questions: int) -> Tensor:
    """Answers (Q, B) or (Q, B, O), in plain loops over what was shown, by somebody who forgets nothing."""
    answers = []
    shown, asked = x[:-n_questions], x[-n_questions:]
    for row in range(x.shape[1]):
        of_row = []
        for q in range(n_questions):
            if isinstance(probe, Recall):
                of_row.append((probe.symbols - shown[0, row, :-1]).square().sum(-1).argmin())
            elif isinstance(probe, Copy):
                place = int(asked[q, row, -probe.length :].argmax()) if not probe.unnumbered else q
                of_row.append(shown[place, row, : probe.n_symbols].argmax())
            elif isinstance(probe, Capacity):
                key = int(asked[q, row].nonzero()[0])
                steps = [t for t in range(len(shown)) if shown[t, row, key] == 1]
                of_row.append(2 * shown[steps[-1], row, -5:-1])
            else:
                n = probe.n_symbols
                counts = shown[:, row, :n].sum(0)
                a, b = int(asked[q, row, n : 2 * n].argmax()), int(asked[q, row, 2 * n :].argmax())
                assert counts[a] != counts[b]
                of_row.append(torch.tensor(int(counts[b] > counts[a])))
        answers.append(torch.stack(of_row))
    return torch.stack(answers, dim=1)


@pytest.mark.parametrize("label", VARIANTS)
def test_who_forgets_nothing_is_always_right(label: str) -> None:
    probe, sequences = draw(label, batch_size=40)
    told = oracle(label, probe, sequences.x, len(sequences.answers))
    torch.testing.assert_close(told, sequences.answers)
    outputs = told if probe.measure == "error" else torch.eye(probe.n_outputs(VARIANTS[label][1]))[told]
    scores = probe.scores(outputs, sequences.answers)
    assert scores.shape == sequences.answers.shape[:2]
    assert probe.solved(float(scores.mean()))
    assert not probe.solved(probe.chance)


@pytest.mark.parametrize("label", VARIANTS)
def test_the_question_alone_tells_nothing(label: str) -> None:
    """The strongest constant answer to each question, fitted on one half, is at chance on the other."""
    probe, sequences = draw(label, batch_size=4000)
    asked = sequences.x[-len(sequences.answers) :].flatten(0, 1)
    answers = sequences.answers.flatten(0, 1)
    half = len(asked) // 2
    targets = answers if answers.is_floating_point() else torch.eye(probe.n_outputs(20))[answers]
    columns = torch.cat([asked, torch.ones(len(asked), 1)], dim=1)
    fitted = torch.linalg.lstsq(columns[:half], targets[:half], driver="gelsd").solution
    scores = probe.scores(columns[half:] @ fitted, answers[half:])
    assert scores.mean().item() == pytest.approx(probe.chance, abs=0.05)


@pytest.mark.parametrize("label", VARIANTS)
def test_shapes_and_lengths(label: str) -> None:
    probe, sequences = draw(label)
    size = VARIANTS[label][1]
    x, answers = sequences.x, sequences.answers
    assert x.shape[1:] == (400, probe.n_inputs(size))
    assert len(x) == size * (2 if label == "capacity, replaced" else 1) + {
        "recall": 2, "copy": 20, "copy, unnumbered": 20, "sort": 16,
    }.get(label, 8)  # fmt: skip
    lengths = x.norm(dim=-1)
    assert lengths.max() < 4
    assert label.startswith("copy") or 0.5 < lengths.mean() < 2
    if answers.is_floating_point():
        assert answers.mean().abs() < 0.1
        assert answers.var().item() == pytest.approx(1, abs=0.1)
    else:
        share = torch.bincount(answers.flatten()) / answers.numel()
        assert len(share) == probe.n_outputs(size)
        assert share.min() > 0.6 / len(share)


@pytest.mark.parametrize("label", VARIANTS)
def test_a_seed_gives_its_own_data_and_always_the_same(label: str) -> None:
    first, again, other = (draw(label, seed=seed)[1] for seed in (1, 1, 2))
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.answers, again.answers)
    assert not torch.equal(first.answers, other.answers)
    probe = VARIANTS[label][0]
    test = probe.draw(20, 5, probe.generator("test 20")).answers
    assert not torch.equal(test, probe.draw(20, 5, probe.generator("train 20")).answers)


def test_training_sizes_are_log_uniform_up_to_the_tested_one() -> None:
    probe = Recall()
    generator = probe.generator("sizes")
    drawn = torch.tensor([probe.training_size(1000, generator) for _ in range(5000)])
    assert drawn.min() == 1
    assert drawn.max() > 990
    assert (drawn <= 31).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_capacity_trains_with_any_number_of_keys_up_to_the_tested_one() -> None:
    probe = Capacity(pairs=(16, 64))
    generator = probe.generator("sizes")
    drawn = torch.tensor([probe.training_size(64, generator) for _ in range(5000)])
    assert drawn.unique().tolist() == list(range(1, 65))
    assert (drawn == 64).float().mean().item() == pytest.approx(0.5 + 0.5 / 64, abs=0.03)
    assert (drawn <= 16).float().mean().item() == pytest.approx(0.125, abs=0.03)
    few, many = (probe.draw(size, 400, generator).x for size in (3, 64))
    assert few.shape[2] == many.shape[2] == probe.n_inputs(3)
    assert few[:, :, :3].sum() == few[:, :, :64].sum() == 400 * (3 + 8), "few keys are the first ones"


def test_capacity_shows_every_key_once_or_some_again() -> None:
    for label in ("capacity", "capacity, replaced"):
        _, sequences = draw(label, batch_size=20)
        times = sequences.x[:-8, :, :20].sum(0)
        assert (times == 1).all() == (label == "capacity")
        assert (times.sum(1) == len(sequences.x) - 8).all()


def test_sort_drifts_and_asks_even_where_all_are_equal() -> None:
    probe = Sort()
    shown = probe.draw(200, 300, probe.generator("drift")).x[:-16, :, :20]
    # Halves of one stream differ more than by chance, which is what makes its beginning worth keeping.
    halves, odd_even = ((a.mean(0) - b.mean(0)).square().sum(-1).mean() for a, b in (
        (shown[:100], shown[100:]), (shown[::2], shown[1::2]),
    ))  # fmt: skip
    assert halves > 1.1 * odd_even
    few = Sort(n_symbols=2, n_questions=2)
    x = few.draw(2, 50, few.generator("few")).x
    assert (x[:2, :, :2].sum(0).amax(-1) == 2).all()


@pytest.mark.parametrize("name", PROBES)
def test_sizes_rise_and_come_once(name: str) -> None:
    probe = PROBES[name](**{PROBES[name].size_name: (30, 5, 30)})
    assert probe.sizes == (5, 30)
    probe.validate()
