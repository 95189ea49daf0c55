"""The benchmark of what a step costs after a long past: its pieces, at sizes that tell nothing about time."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from memspan.memory import MEMORIES, clone_state, make_memory, state_bytes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
torch.set_num_threads(1)


@pytest.fixture
def past(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("past")
    yield module
    for name in ("past", "past_figure"):
        sys.modules.pop(name, None)


@pytest.fixture
def tiny(past, monkeypatch):
    for name, value in {
        "WIDTH": 8, "FILL_BLOCK": 7, "TRAIN_BLOCK": 4, "ACT_STEPS": 2, "ACT_REPEATS": 1, "TRAIN_REPEATS": 1,
        "TRIED": 30,
    }.items():  # fmt: skip
        monkeypatch.setattr(past, name, value)
    return past


def test_every_memory_is_measured_and_drawn(tiny, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{tiny.MARK}\nold\n{tiny.MARK}\nafter\n")
    tiny.main(["--out", str(tmp_path), "--lengths", "20", "5", "--note", "beside others"])
    told = json.loads((tmp_path / "past.json").read_text())
    assert [p["past"] for p in told["points"]] == len(told["points"]) // 2 * [5, 20]
    assert {p["memory"] for p in told["points"]} == set(MEMORIES)
    for point in told["points"]:
        low, high = point["act_range"]
        assert 0 < low <= point["act_seconds"] <= high
        assert point["train_seconds"] > 0
        assert 0 <= point["effective_memory"] <= point["capacity"]
    assert {path.name for path in tmp_path.iterdir()} == {"past.json", "past.png", "past.svg", "README.md"}
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "beside others" in text
    # Four tables, a row of each for every line of the figure.
    lines = {(p["memory"], p["label"]) for p in told["points"]}
    assert text.count("\n| ") == 4 * (len(lines) + 1)
    assert capsys.readouterr().out.count("vectors") == len(told["points"])


def test_the_past_is_read_whole_whatever_the_blocks(past):
    memory = make_memory("transformer-xl", past.WIDTH, {"memory_size": 600}).eval()
    state = past.read(memory, memory.initial_state(1), past.noise(550))
    assert past.acting(memory, state)[1] == 550
    # Slots of D floats and an age, in two layers.
    assert state_bytes(state) == 2 * 550 * (4 * past.WIDTH + 8)


def test_every_repeat_starts_from_the_same_past(past):
    # Writes into the state that it is given.
    memory = make_memory("summary-tree", past.WIDTH).eval()
    state = past.read(memory, memory.initial_state(1), past.noise(100))
    before = clone_state(state)
    past.acting(memory, state)
    past.training(memory, state)
    assert all(torch.equal(value, before[name]) for name, value in state.items())


def test_one_input_in_so_many_is_kept(past):
    memory = make_memory("expire-span", past.WIDTH, {"max_span": 100_000, "ramp": 16}).eval()
    assert past.keep_one_in(memory, 20)
    state = past.read(memory, memory.initial_state(1), past.noise(2_000))
    kept = past.acting(memory, state)[1] - 15 * 19 / 20  # the rest fades within its ramp
    assert kept == pytest.approx(2_000 / 20, rel=0.35)
    spans = memory.spans(0, state["hidden.0"])
    assert ((spans < 1) | (spans > 99_999)).float().mean() > 0.9
    assert not past.keep_one_in(make_memory("lstm", past.WIDTH), 20)


def test_a_past_that_takes_too_long_is_cut_short(past, monkeypatch):
    def measure(name, label, n_steps):
        seconds = 1e-3 * n_steps + {"linear": 0, "square": 1e-6}[name] * n_steps**2
        return past.Point(name, label, n_steps, 1, (1, 1), 1, (1, 1), 1, 1, 1, seconds, {})

    monkeypatch.setattr(past, "measure", measure)

    def pasts(name, seconds):
        return [point.past for point in past.series(name, "", past.LENGTHS, seconds)]

    assert pasts("linear", 100) == list(past.LENGTHS)
    assert pasts("linear", 60) == [10, 100, 1000, 10_000, 60_000]
    # 1e-3 T + 1e-6 T^2 = 60.
    assert pasts("square", 60) == [10, 100, 1000, 7200]
