"""Learning in blocks with the state carried, and settings that reach far enough."""

import math

import pytest
import torch
from adding import Total

from memspan.memory import make_memory
from memspan.probes import Entrant, ProbeModel, Training, far_enough, parse_entrant, run, training
from memspan.probes.copy import Copy
from memspan.probes.recall import Recall
from memspan.probes.training import SOLVED_FOR, _update

TOTAL = f"{Total.__module__}:Total"
SHORT = Training(steps=3, batch_size=4, width=8, test_sequences=6)


def model_of(probe, size=10, width=8):
    torch.manual_seed(0)
    memory = Total(width)
    return ProbeModel(memory, probe.n_inputs(size), probe.n_outputs(size)), memory


def test_the_state_is_carried_from_block_to_block():
    probe = Copy()
    sequences = probe.draw(10, 5, probe.generator("here"))
    model, memory = model_of(probe)
    whole = torch.cat([block.outputs for block in model.read(sequences, 100)])
    for block_size in (1, 7, 10, 25, 29):
        memory.calls.clear()
        blocks = list(model.read(sequences, block_size))
        torch.testing.assert_close(torch.cat([block.outputs for block in blocks]), whole)
        assert torch.equal(torch.cat([block.answers for block in blocks]), sequences.answers)
        # 30 steps in all; only the first block begins an episode.
        assert [n for n, _, _ in memory.calls] == [
            min(block_size, 30 - start) for start in range(0, 30, block_size)
        ]
        assert [starts for _, starts, _ in memory.calls] == [True] + [False] * (len(blocks) - 1)


def test_only_blocks_with_questions_learn_unless_the_memory_has_losses_of_its_own():
    probe = Copy()
    sequences = probe.draw(10, 5, probe.generator("here"))
    for coefficient, learning in ((0.0, [False, False, True]), (0.5, [True, True, True])):
        model, memory = model_of(probe)
        optimizer = torch.optim.Adam(model.parameters())
        _update(model, optimizer, probe, sequences, Training(block_size=10, memory_loss_coef=coefficient))
        assert [grad for _, _, grad in memory.calls] == learning


def test_the_read_out_learns_the_same_wherever_blocks_end(monkeypatch):
    monkeypatch.setattr(training, "MAX_GRAD_NORM", 1e9)
    probe = Copy()
    sequences = probe.draw(10, 5, probe.generator("here"))
    grads, told = [], []
    for block_size in (100, 23):  # the questions are cut into two blocks
        model, _ = model_of(probe)
        optimizer = torch.optim.SGD(model.parameters(), lr=0)
        told.append(_update(model, optimizer, probe, sequences, Training(block_size=block_size)))
        grads.append(model.read_out.weight.grad.clone())
    torch.testing.assert_close(*grads)
    assert told[0] == pytest.approx(told[1])


def test_same_arguments_same_numbers_whatever_happened_before():
    probe = Recall(gaps=(6,))
    results = []
    for _ in range(2):
        torch.rand(7)
        results.append(run(probe, Entrant("lstm"), 6, SHORT))
    first, second = results
    assert first.scores == second.scores
    assert first.curve == second.curve
    other = run(Recall(gaps=(6,), seed=1), Entrant("lstm"), 6, SHORT)
    assert other.curve["loss"] != first.curve["loss"]


def test_lstm_learns_to_recall_and_stops_early_but_no_memory_guesses():
    probe = Recall(gaps=(10,))
    settings = Training(steps=300, batch_size=32, width=32, block_size=8, test_sequences=200)
    told = run(probe, parse_entrant("lstm"), 10, settings)
    assert told.score > 0.95
    assert told.solved
    assert told.updates < 300
    assert told.curve["update"][-1] == told.updates
    assert told.curve["score"][-1] == 1
    assert told.curve["score"][0] < 0.5
    assert told.effective_memory == told.capacity == 2
    none = run(probe, parse_entrant("none"), 10, Training(steps=40, width=32, test_sequences=200))
    assert abs(none.score - probe.chance) < 4 * math.sqrt(0.125 * 0.875 / 200)
    assert not none.solved
    assert none.updates == 40


def test_what_only_short_sizes_show_is_not_solved(monkeypatch):
    monkeypatch.setattr(Recall, "training_size", lambda probe, size, generator: 1)
    settings = Training(steps=120, width=16, test_sequences=64)
    window = "transformer-xl,memory_size=4,n_layers=1,n_heads=1"
    assert run(Recall(gaps=(3,)), parse_entrant(window), 3, settings).solved
    told = run(Recall(gaps=(9,)), parse_entrant(window), 9, settings)
    assert not told.solved
    assert told.curve["score"][5] > 0.9
    assert max(told.curve["size"]) > 1  # its mean over ten updates: one was at full size


def test_how_a_memory_fares_changes_nothing_about_what_is_drawn_later(monkeypatch):
    long = Training(steps=SOLVED_FOR + 5, batch_size=4, width=8, test_sequences=6)

    def drawn(solved):
        """The training sequences, where the first batches are without an error or not."""
        seen, answers = [], iter([solved] * (SOLVED_FOR - 1) + [False] * 6)
        draw = Recall.draw

        def watch(self, size, batch_size, generator):
            seen.append(draw(self, size, batch_size, generator))
            return seen[-1]

        with monkeypatch.context() as patched:
            patched.setattr(Recall, "draw", watch)
            patched.setattr(Recall, "solved", lambda self, score: next(answers))
            run(Recall(), Entrant(TOTAL), 30, long)
        return [one.x for one in seen if one.x.shape[1] == 4]

    well, badly = drawn(True), drawn(False)
    assert len(well) == len(badly) == long.steps
    same = [torch.equal(one, other) for one, other in zip(well, badly, strict=True)]
    assert [i for i, one in enumerate(same) if not one] == [SOLVED_FOR - 1]


def test_settings_are_raised_to_reach_and_only_then():
    assert far_enough(Entrant("lstm"), 64, 30) == {"longest_dependency": 30}
    assert far_enough(Entrant("transformer-xl"), 64, 150) == {}
    assert far_enough(Entrant("transformer-xl"), 64, 1002) == {"memory_size": 1002}
    assert far_enough(Entrant("transformer-xl", {"memory_size": 9}), 64, 1002) == {"memory_size": 9}
    assert far_enough(Entrant("expire-span", {"ramp": 4}), 64, 400) == {"ramp": 4, "max_span": 500}
    assert far_enough(Entrant("none"), 64, 1000) == {}
    # A window of 64, and the highest summary lasts for 2 ** (n_levels - 1) steps: 2 ** 15, or 2 ** 16.
    assert far_enough(Entrant("summary-tree"), 64, 64 + 2**15) == {}
    assert far_enough(Entrant("summary-tree"), 64, 64 + 2**15 + 1) == {"n_levels": 17}
    # This one holds something else than a window of memory_size: what does not fit goes into compressed ones.
    assert far_enough(Entrant(TOTAL), 8, 100) == {
        "longest_dependency": 100,
        "max_span": 125,
        "compressed_size": 23,
    }


@pytest.mark.parametrize("name", ["lstm", "transformer-xl", "expire-span", "summary-tree"])
def test_every_raised_setting_can_be_built(name):
    for n_steps in (1, 2, 3, 1000):
        make_memory(name, 16, far_enough(Entrant(name), 16, n_steps))


def test_entrants():
    assert parse_entrant("lstm") == Entrant("lstm")
    told = parse_entrant("expire-span,max-span=300,shorten_spans=true,span_learning_rate=null")
    assert told.settings == {"max_span": 300, "shorten_spans": True, "span_learning_rate": None}
    assert told.label == "max_span=300, shorten_spans=True, span_learning_rate=None"
    assert parse_entrant(TOTAL).name == "Total"
