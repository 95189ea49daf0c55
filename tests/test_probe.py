import dataclasses
import json

import pytest
import torch

from memspan import cli
from memspan.memory import MEMORIES
from memspan.probes import PROBES, ProbeResults, Result, Training
from memspan.show.probe_figure import draw_probe
from memspan.show.probe_table import legend

torch.set_num_threads(1)

SMALL = ["--steps", "2", "--batch-size", "4", "--width", "8", "--test-sequences", "8"]
SIZES = {"recall": "--gaps", "copy": "--gaps", "capacity": "--pairs", "sort": "--lengths"}


def refused(capsys, *args):
    """Exit code 2, and one line that says why."""
    assert cli.main(["probe", *map(str, args)]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert not out
    return err


@pytest.mark.parametrize("name", PROBES)
def test_end_to_end(name, tmp_path, capsys):
    folder = tmp_path / "results"
    memories = ["none", "lstm", "lstm,units=4"]
    args = [name, SIZES[name], "12", "5", "--memory", *memories, "--out", str(folder), *SMALL]
    assert cli.main(["probe", *args]) == 0
    told = json.loads((folder / "results.json").read_text())
    assert told["probe"] == name
    assert told["settings"]["seed"] == 0
    assert told["training"]["steps"] == 2
    assert told["command"].startswith(f"memspan probe {name} ")
    assert {"memspan_version", "torch_version", "git_commit"} <= told.keys()
    entrants = [("none", ""), ("lstm", ""), ("lstm", "units=4")]
    assert [(one["memory"], one["label"], one["size"]) for one in told["results"]] == [
        (*entrant, size) for entrant in entrants for size in (5, 12)
    ]
    for one in told["results"]:
        assert one["ci"][0] <= one["score"] <= one["ci"][1]
        assert one["updates"] == one["curve"]["update"][-1] == 2
        assert "scores" not in one
    assert told["results"][-1]["memory_kwargs"]["units"] == 4
    assert told["results"][-1]["memory_kwargs"]["longest_dependency"] >= 12
    assert (folder / f"{name}.png").stat().st_size > 10_000
    assert (folder / f"{name}.svg").is_file()
    out = capsys.readouterr().out
    assert "chance" in out
    assert f"{told['results'][0]['score']:.3f}" in out
    assert str(folder / "results.json") in out
    assert all(len(line) <= 100 for line in out.splitlines() if str(tmp_path) not in line)


def test_results_are_kept_unless_they_are_to_be_replaced(tmp_path, capsys):
    args = ["recall", "--gaps", "3", "--memory", "none", "--out", tmp_path, *SMALL]
    assert cli.main(["probe", *map(str, args)]) == 0
    capsys.readouterr()
    before = (tmp_path / "results.json").read_bytes()
    assert f"{tmp_path}: has results already; choose another --out, or" in refused(capsys, *args)
    assert (tmp_path / "results.json").read_bytes() == before
    assert cli.main(["probe", *map(str, args), "--overwrite", "--seed", "1"]) == 0
    assert json.loads((tmp_path / "results.json").read_text())["settings"]["seed"] == 1


def test_a_memory_alone_does_as_it_does_among_others(tmp_path):
    scores = []
    for i, memories in enumerate((["lstm"], ["none", "lstm"])):
        folder = tmp_path / str(i)
        args = ["probe", "copy", "--gaps", "5", "--out", str(folder), *SMALL]
        # A memory can be named in one list, or one by one.
        assert cli.main([*args, *(word for memory in memories for word in ("--memory", memory))]) == 0
        result = json.loads((folder / "results.json").read_text())["results"][-1]
        scores.append({key: value for key, value in result.items() if key != "seconds"})
    assert scores[0] == scores[1]


def test_interrupt_keeps_what_is_done(tmp_path, monkeypatch, capsys):
    from memspan import probe

    real, calls = probe.run, []

    def run(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(probe, "run", run)
    args = ["recall", "--gaps", "3", "4", "--memory", "none", "--out", str(tmp_path), *SMALL]
    assert cli.main(["probe", *args]) == cli.INTERRUPTED
    assert len(json.loads((tmp_path / "results.json").read_text())["results"]) == 1
    assert "Stopped; what was done is in" in capsys.readouterr().out


def test_who_diverges_is_named_and_the_others_are_kept(tmp_path, monkeypatch, capsys):
    from memspan import probe

    real = probe.run

    def run(probed, entrant, size, training, on_update):
        if entrant.memory == "gru" and size == 4:
            training = dataclasses.replace(training, learning_rate=1e30)
        return real(probed, entrant, size, training, on_update)

    monkeypatch.setattr(probe, "run", run)
    args = ["recall", "--gaps", "3", "4", "--memory", "gru", "none", "--out", str(tmp_path), *SMALL]
    assert cli.main(["probe", *args]) == 1
    told = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [(one["memory"], one["size"]) for one in told] == [("gru", 3), ("none", 3), ("none", 4)]
    out = capsys.readouterr().out
    assert "Missing: [2/4] gru, gap 4: diverged at " in out
    assert (tmp_path / "recall.png").is_file()


def test_all_memories_by_default(tmp_path, monkeypatch):
    from memspan import probe

    probed, training, options = probe.parse(["recall"])
    assert [entrant.memory for entrant in options.entrants] == list(MEMORIES)
    assert training == Training()
    assert probed == PROBES["recall"]()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["recal"], ["probe='recal'", "did you mean recall?"]),
        (["xyz"], ["probe='xyz'", "must be one of", "sort"]),
        (["recall", "--gaps", "10", "0"], ["gaps=10 0: must be", "at least 1"]),
        (["recall", "--gaps"], ["gaps=", "one number or more"]),
        (["recall", "--seed", "-1"], ["seed=-1: must be at least 0"]),
        (["recall", "--n-symbols", "1"], ["n_symbols=1: must be at least 2"]),
        (["copy", "--length", "0"], ["length=0: must be at least 1"]),
        (["capacity", "--n-questions", "0"], ["n_questions=0: must be at least 1"]),
        (["sort", "--n-questions", "39"], ["n_questions=39: must be from 1 to 38"]),
        (["recall", "--steps", "0"], ["steps=0: must be at least 1"]),
        (["recall", "--block-size", "0"], ["block_size=0: must be at least 1"]),
        (["recall", "--learning-rate", "0"], ["learning_rate=0.0: must be above 0"]),
        (["recall", "--final-learning-rate", "1"], ["final_learning_rate=1.0: must be from 0"]),
        (["recall", "--memory-loss-coef", "-1"], ["memory_loss_coef=-1.0: must be at least 0"]),
        (["recall", "--threads", "0"], ["threads=0: must be at least 1"]),
        (["recall", "--memory", "lstn"], ["memory='lstn'", "lstm"]),
        (["recall", "--memory", "lstm,units"], ["memory='lstm,units'", "key=value", "'units'"]),
        (["recall", "--memory", "lstm,units=0"], ["units=0: must be at least 1"]),
        (["recall", "--memory", "lstm,unit=3"], ["unit=3", "no such setting", "units"]),
        (["recall", "--memory", "lstm,units=[a"], ["memory=", "no YAML"]),
        (["recall", "--memory", "lstm,units=many"], ["units='many'", "must be a whole number"]),
        (["recall", "--memory", "lstm", "lstm"], ["memory='lstm': must be named once"]),
        (["recall", "--width", "30", "--memory", "transformer-xl"], ["n_heads=4", "width 30"]),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line(args, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, *args)
    for word in words:
        assert word in line
    assert not any(tmp_path.iterdir())


def test_a_file_in_the_way_is_one_line(tmp_path, capsys):
    (tmp_path / "out").write_text("no folder")
    line = refused(capsys, "recall", "--memory", "none", "--out", tmp_path / "out" / "here")
    assert str(tmp_path / "out") in line
    assert "must be a folder that can be written to" in line


@pytest.mark.parametrize("args", [[], ["--help"]])
def test_help_lists_the_probes(args, capsys):
    assert cli.main(["probe", *args]) == 0
    out = capsys.readouterr().out
    for name, probe in PROBES.items():
        assert f"  {name} " in out
        assert probe.__doc__ in out


@pytest.mark.parametrize("name", PROBES)
def test_help_says_something_of_every_option(name, capsys):
    from memspan.probe import Options

    with pytest.raises(SystemExit) as stop:
        cli.main(["probe", name, "--help"])
    assert stop.value.code == 0
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    for field in (
        *dataclasses.fields(PROBES[name]),
        *dataclasses.fields(Training),
        *dataclasses.fields(Options),
    ):
        flag = f"--{field.name.replace('_', '-')}"
        at = next(i for i, line in enumerate(lines) if line.split(" ")[0].rstrip(",") == flag)
        text = " ".join(lines[at : at + 2]).partition("(default")[0].split()
        assert len(text) > 2, flag


def found_at(*entrants: tuple[str, str]) -> ProbeResults:
    results = [
        Result(memory, label, size, 0.5, [0.5], 1, False, {}, 1.0, 1.0, 1, {}, 0.0, (0.4, 0.6))
        for memory, label in entrants
        for size in (10, 100)
    ]
    training = dataclasses.asdict(Training())
    return ProbeResults(
        "recall", "accuracy", 0.125, "gaps", "gap (steps)", {"seed": 0}, training, "", results
    )


def test_the_figure_names_every_line_and_chance():
    found = found_at(("lstm", ""), ("lstm", "units=4"), ("module:Mine", ""))
    (axes,) = draw_probe(found).axes
    assert {text.get_text() for text in axes.texts} == {"lstm", "lstm, units=4", "Mine", "chance (0.125)"}
    colours = [line.get_color() for line in axes.get_lines()]
    assert len(set(colours)) == 4
    with pytest.raises(ValueError, match="results=\\[\\]"):
        draw_probe(dataclasses.replace(found, results=[]))


def test_what_all_of_a_memory_share_is_said_once():
    found = found_at(("lstm", "units=4, depth=2"), ("lstm", "units=8, depth=2"), ("module:Mine", "size=3"))
    figure = draw_probe(found)
    names = {text.get_text() for text in figure.axes[0].texts}
    assert names == {"lstm, units=4", "lstm, units=8", "Mine, size=3", "chance (0.125)"}
    (caption,) = (text.get_text() for text in figure.texts)
    assert caption.startswith("Every lstm with depth=2.\nBands")
    assert "Every" not in draw_probe(found_at(("lstm", "units=4"), ("gru", "units=4"))).texts[0].get_text()


@pytest.mark.parametrize("measure", ["accuracy", "error"])
def test_signs_are_explained_where_they_are(measure):
    found = dataclasses.replace(found_at(("lstm", "")), measure=measure)
    clear, unclear = ([1.0] * 256, [0.0] * 256) if measure == "accuracy" else ([0.0] * 256, [1.0] * 256)
    begins = "" if measure == "accuracy" else "0 is best"
    for scores, explained in ((clear, False), (unclear, True)):
        results = [dataclasses.replace(one, scores=scores) for one in found.results]
        told = legend(dataclasses.replace(found, results=results))
        assert told.startswith(begins)
        assert ("~: the 95 % interval" in told) == explained
