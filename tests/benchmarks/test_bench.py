"""The benchmark's arithmetic and page, and that what is compared is what it says; nothing about time."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
torch.set_num_threads(1)


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def test_ratios_are_those_of_the_turns(load):
    side = load("side_by_side")
    row = side.Row("what", [10.0, 30.0, 20.0], "peer", [5.0, 10.0, 20.0], side.Target("ratio", at_least=2))
    assert row.ratios == [2.0, 3.0, 1.0]
    assert row.target.met(row)
    assert not side.Target("ratio", at_most=1.9).met(row)
    assert side.Target("ours", at_most=20).met(row)
    text = side.markdown(side.Table("title", "steps/s", [row, side.Row("alone", [1234.0])], notes=["a note"]))
    assert "| what | 20 [10 .. 30] | peer | 10 [5 .. 20] | 2 [1 .. 3] | ratio >= 2 | yes |" in text
    assert "| alone | 1,230 |  |  |  |  |  |" in text
    assert text.endswith("\n- a note\n")


def test_everyone_takes_a_turn_and_who_begins_changes(load):
    side = load("side_by_side")
    order = []

    def turn(name):
        return lambda: order.append(name) or {"rate": float(len(order))}

    found = side.in_turns({name: turn(name) for name in "abc"}, 3, lambda _: None)
    assert "".join(order) == "abcbcacab"
    assert found == {"a": {"rate": [1, 6, 8]}, "b": {"rate": [2, 4, 9]}, "c": {"rate": [3, 5, 7]}}


def test_a_section_is_replaced_and_the_others_stay(load):
    bench = load("bench")
    page = bench.put_into(bench.INTRODUCTION, "Training", "first")
    page = bench.put_into(page, "Environments", "other\n\n| a |\n|---|")
    again = bench.put_into(page, "Training", "second")
    assert again == page.replace("first", "second")
    assert again.startswith(bench.INTRODUCTION)
    assert again.index("## Environments") < again.index("## Training")
    assert bench.put_into(again, "Training", "second") == again


def test_wrong_arguments_are_refused(load, capsys):
    bench = load("bench")
    for args, said in ((["nothing"], "section 'nothing'"), (["--turns", "0"], "--turns 0")):
        with pytest.raises(SystemExit):
            bench.main(args)
        assert said in capsys.readouterr().err


@pytest.fixture
def forgetting(load):
    return load("forgetting")


def test_what_is_kept_is_the_cue_and_the_ramp(forgetting):
    model = forgetting.expire_span(reach=100, n_envs=3, n_steps=8, corridor=200)
    forgetting.fill(model, 90, lambda _: None, block=16)
    kept = forgetting.slots_kept(model)
    # The cue, and what the next step can still read: of the ramp, or one more where a span is just above 0.
    assert all(n in (forgetting.RAMP, forgetting.RAMP + 1) for n in kept)
    ages = model.policy.memory.remembered(model._memory_state)[0].age
    assert (ages == 89).sum(1).tolist() == [1, 1, 1]  # the first step's


def test_the_window_is_full_and_stays_so(forgetting):
    model = forgetting.transformer_xl(reach=30, n_envs=2, n_steps=8, corridor=200)
    forgetting.fill(model, 30, lambda _: None, block=7)
    before = {name: value.clone() for name, value in model.policy.named_parameters()}
    assert forgetting.slots_kept(model) == [30, 30]
    turn = forgetting.learning(model, 2)()
    assert min(turn.values()) > 0
    assert model.num_timesteps == 2 * 2 * 8
    assert min(forgetting.slots_kept(model)) >= 30
    assert (model.get_env().env.get_state()["x"] > 30).all()
    # A learning rate of 0: what was measured stays what it was.
    assert all(torch.equal(value, before[name]) for name, value in model.policy.named_parameters())


def test_bytes_are_those_of_the_storage(forgetting):
    whole = torch.zeros(4, 10, 3)
    state = {"hidden.0": whole[:, :5], "age.0": torch.zeros(4, 5, dtype=torch.long), "same": whole[:, 5:]}
    assert forgetting.bytes_held(state) == 10 * 3 * 4 + 5 * 8


def test_published_agents_go_on(forgetting):
    model = forgetting.published(reach=60, n_envs=2, n_steps=8, corridor=200)
    assert model.policy.memory.max_span == 75
    forgetting.fill(model, 60, lambda _: None)
    assert forgetting.slots_kept(model)[0] < 20
    before = model.policy.memory.span_predictors[0].weight.clone()
    forgetting.learning(model, 1)()
    assert torch.equal(model.policy.memory.span_predictors[0].weight, before)
    assert (model.get_env().env.get_state()["x"] > 60).all()  # it walks by itself
