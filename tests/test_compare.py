import json
import re
import shutil
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter

from memspan import cli, compare
from memspan.evaluation.comparison import cost_lines, trajectory
from memspan.evaluation.curves import MEMORY, SUCCESS, Curves, Point
from memspan.evaluation.results import Evaluation
from memspan.runs import RunConfig, run_folder, save_config


def make_run(
    run_dir: Path,
    memory: str = "lstm",
    seed: int = 0,
    success: float | None = 1.0,
    effective: float = 2.0,
    evaluated: bool = True,
    curve: tuple[float, ...] = (2.0, 2.0, 2.0),
    **settings,
) -> Path:
    """A run's folder with events of a training, and with an evaluation; there are no weights to read."""
    config = RunConfig(memory=memory, seed=seed, run_dir=run_dir, **settings)
    folder = run_folder(config)
    save_config(config, folder)
    write_training(folder, curve, success is not None)
    if evaluated:
        save_evaluation(folder, config, success, effective)
    return folder


def write_training(
    folder: Path, curve: tuple[float, ...], tells_success: bool = True, start: int = 0
) -> None:
    with SummaryWriter(folder) as writer:
        for i, memory in enumerate(curve):
            step = (start + i + 1) * 100
            if tells_success:
                writer.add_scalar("rollout/success_rate", i / 10, step)
            writer.add_scalar("rollout/ep_rew_mean", -i, step)
            writer.add_scalar("memory/effective_memory", memory, step)
            writer.add_scalar("time/fps", 1000 + i, step)


def save_evaluation(folder: Path, config: RunConfig, success: float | None, effective: float) -> None:
    Evaluation(
        env=config.env,
        memory=config.memory,
        name=config.name or config.memory,
        seed=config.seed,
        timesteps=300,
        checkpoint="last",
        episodes=10,
        success_rate=success,
        success_ci=None if success is None else (0.0, 1.0),
        mean_return=-5.0,
        return_ci=(-6.0, -4.0),
        mean_length=3.0,
        effective_memory=effective,
        peak_memory=effective,
        capacity=effective,
        state_bytes=8,
        steps_per_second=1.0,
        success_by_length=[],
        length_of="task",
        deterministic=False,
        evaluation_seed=0,
        n_envs=1,
    ).save(folder)


@pytest.fixture
def runs(tmp_path):
    """Three memories on one task and one on another."""
    root = tmp_path / "runs"
    make_run(root, "transformer-xl", 0, 1.0, 66.0, memory_kwargs={"memory_size": 200}, name="long")
    make_run(root, "transformer-xl", 0, 0.6, 8.5, memory_kwargs={"memory_size": 16}, name="short")
    for seed in (0, 1):
        make_run(root, "lstm", seed, 0.9 + seed / 10)
    make_run(root, "expire-span", 2, evaluated=False, curve=(100.0, 60.0, 20.0))
    make_run(root, "gru", 0, 0.2, 1.0, env="memspan/Portal-v0")
    return root


def written(tmp_path: Path, *args: object) -> Path:
    logdir = tmp_path / "comparison"
    assert compare.main([*map(str, args), "--logdir", str(logdir), "--write-only"]) == 0
    return logdir


def events(folder: Path) -> EventAccumulator:
    """What TensorBoard reads of a run."""
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [
        (one.step, round(one.tensor_proto.float_val[0], 6) if one.tensor_proto.float_val else 0.0)
        for one in events(folder).Tensors(tag)
    ]


def layout(logdir: Path, run: str) -> Layout:
    (one,) = events(logdir / run).Tensors("custom_scalars__config__")
    return Layout.FromString(one.tensor_proto.string_val[0])


def hparams(folder: Path, kind: str) -> HParamsPluginData:
    # As TensorBoard gives it: the content of the tag's metadata.
    content = events(folder).PluginTagToContent("hparams")[f"_hparams_/{kind}"]
    return HParamsPluginData.FromString(content)


def test_every_run_has_a_name_of_three_parts(tmp_path, runs, capsys):
    logdir = written(tmp_path, runs)
    folders = {path.parent.relative_to(logdir).as_posix() for path in logdir.rglob("events.*")}
    assert {name for name in folders if not name.startswith("cost/")} == {
        *("Corridor-v0/long/0", "Corridor-v0/short/0", "Corridor-v0/lstm/0", "Corridor-v0/lstm/1"),
        *("Corridor-v0/expire-span/2", "Portal-v0/gru/0"),
    }
    out = capsys.readouterr().out
    assert "6 runs of Corridor-v0, Portal-v0" in out
    assert out.count("not evaluated") == 1
    assert "Corridor-v0/expire-span/2: not evaluated" in out


def test_success_by_effective_memory_is_native(tmp_path, runs):
    logdir = written(tmp_path, runs)
    cost = logdir / "cost" / "Corridor-v0"
    tag = "cost/Corridor-v0/success_rate"
    assert points(cost / "transformer-xl", tag) == [(8500, 0.6), (66000, 1.0)]
    # Two seeds with the same memory: both are there, and steps rise.
    assert points(cost / "lstm", tag) == [(2000, 0.9), (2001, 1.0)]
    assert points(cost / "expire-span (not evaluated)", tag) == [(20000, 0.2)]
    assert points(logdir / "cost/Portal-v0/gru", "cost/Portal-v0/success_rate") == [(1000, 0.2)]
    # One time for all points: there is no "relative" among them.
    assert {one.wall_time for one in events(cost / "transformer-xl").Tensors(tag)} == {3.0}
    about = events(cost / "lstm").SummaryMetadata(tag).summary_description
    assert "20k is 20 vectors" in about
    # A training in which the memory shrinks has a line of its own; steps rise here too.
    run = logdir / "Corridor-v0/expire-span/2"
    line = points(run, "cost_in_training/Corridor-v0/success_rate")
    assert line == [(21000, 0.2), (60000, 0.1), (99000, 0.0)]
    assert (
        "cost_in_training/Corridor-v0/success_rate"
        not in events(logdir / "Corridor-v0/lstm/0").Tags()["tensors"]
    )


def test_layout_has_a_category_per_task_and_finds_its_tags(tmp_path, runs):
    logdir = written(tmp_path, runs)
    told = layout(logdir, "Corridor-v0/expire-span/2")
    assert [category.title for category in told.category] == ["Corridor-v0", "Portal-v0"]
    corridor, portal = told.category
    assert [chart.title for chart in corridor.chart] == [
        "success rate by effective memory (20k = 20 vectors)",
        "success rate while training",
        "effective memory while training (vectors)",
        "speed of training (steps/s)",
        "success rate by effective memory, in training",
    ]
    assert len(portal.chart) == 4
    tags = {
        (path.parent.relative_to(logdir).as_posix(), tag)
        for path in logdir.rglob("events.*")
        for tag in events(path.parent).Tags()["tensors"]
    }
    for category in told.category:
        for chart in category.chart:
            (pattern,) = chart.multiline.tag
            found = {run for run, tag in tags if re.match(pattern, tag)}
            assert found, chart.title
            assert all(category.title in run for run in found)


def test_curves_are_those_of_the_training(tmp_path, runs):
    logdir = written(tmp_path, runs)
    run = logdir / "Corridor-v0/expire-span/2"
    assert points(run, "Corridor-v0/success_rate") == [(100, 0.0), (200, 0.1), (300, 0.2)]
    assert points(run, "Corridor-v0/effective_memory") == [(100, 100.0), (200, 60.0), (300, 20.0)]
    assert points(run, "Corridor-v0/steps_per_second") == [(100, 1000.0), (200, 1001.0), (300, 1002.0)]


def test_hparams_have_the_same_keys_everywhere(tmp_path, runs):
    logdir = written(tmp_path, runs)
    names = [path.parent for path in logdir.rglob("events.*") if "cost" not in path.parts]
    starts = {path: dict(hparams(path, "session_start_info").session_start_info.hparams) for path in names}
    experiment = hparams(logdir / "Corridor-v0/expire-span/2", "experiment").experiment
    columns = [info.name for info in experiment.hparam_infos]
    assert all(set(start) == set(columns) for start in starts.values())
    assert {info.name for info in experiment.hparam_infos if info.differs} == {
        *("task", "memory", "name", "seed", "measured")
    }
    assert "gamma" not in columns  # the same in all runs
    sizes = {path.parent.name: start["memory.memory_size"].string_value for path, start in starts.items()}
    assert sizes == {"long": "200", "short": "16", "lstm": "-", "expire-span": "-", "gru": "-"}
    (domain,) = (
        info.domain_discrete for info in experiment.hparam_infos if info.name == "memory.memory_size"
    )
    assert [value.string_value for value in domain.values] == ["-", "16", "200"]
    short = starts[logdir / "Corridor-v0/short/0"]
    assert short["seed"].string_value == "0"
    assert short["measured"].string_value == "held-out"
    assert starts[logdir / "Corridor-v0/expire-span/2"]["measured"].string_value == "in training"
    metrics = [metric.name.tag for metric in experiment.metric_infos]
    assert metrics == [
        *("result/success_rate", "result/effective_memory", "result/steps_per_second", "result/mean_return")
    ]
    for path in names:
        assert set(metrics) <= set(events(path).Tags()["tensors"])
        assert len(points(path, "result/success_rate")) == 1
    # Held-out episodes where there are some, the end of the training otherwise.
    assert points(logdir / "Corridor-v0/short/0", "result/effective_memory") == [(300, 8.5)]
    assert points(logdir / "Corridor-v0/expire-span/2", "result/effective_memory") == [(300, 20.0)]


def test_task_without_success_is_scored_by_its_return(tmp_path):
    make_run(tmp_path / "runs", "lstm", success=None, env="Pendulum-v1")
    logdir = written(tmp_path, tmp_path / "runs")
    assert points(logdir / "cost/Pendulum-v1/lstm", "cost/Pendulum-v1/mean_return") == [(2000, -5.0)]
    titles = [chart.title for chart in layout(logdir, "Pendulum-v1/lstm/0").category[0].chart]
    assert titles[:2] == ["mean return by effective memory (20k = 20 vectors)", "mean return while training"]
    assert points(logdir / "Pendulum-v1/lstm/0", "Pendulum-v1/mean_return")[-1] == (300, -2.0)


def test_run_folders_are_left_as_they_are_and_the_logdir_is_made_anew(tmp_path, runs):
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    logdir = written(tmp_path, runs)
    shutil.rmtree(runs / "Portal-v0")
    assert written(tmp_path, runs) == logdir
    assert not (logdir / "Portal-v0").exists()
    assert len(list((logdir / "Corridor-v0/lstm/0").iterdir())) == 1
    after = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    assert after == {path: data for path, data in before.items() if "Portal-v0" not in path.parts}


def test_runs_of_the_same_name_and_other_settings_of_a_task(tmp_path):
    for i, length in enumerate((5, 9)):
        make_run(tmp_path / f"runs{i}", env_kwargs={"max_length": length})
    logdir = written(tmp_path, tmp_path / "runs0", tmp_path / "runs1")
    for i, length in enumerate((5, 9)):
        run = logdir / f"runs{i}/Corridor-v0/lstm/0"
        assert points(run, f"Corridor-v0(max_length={length})/success_rate")
    told = layout(logdir, "runs0/Corridor-v0/lstm/0")
    assert [category.title for category in told.category] == [
        *("Corridor-v0(max_length=5)", "Corridor-v0(max_length=9)")
    ]


def test_damaged_and_foreign_runs_are_named_and_left_out(tmp_path, runs, capsys):
    (runs / "Corridor-v0/lstm/0/evaluation.json").write_text("{")
    told = json.loads((runs / "Corridor-v0/lstm/1/evaluation.json").read_text())
    (runs / "Corridor-v0/lstm/1/evaluation.json").write_text(json.dumps(told | {"success_rate": "good"}))
    config = runs / "Corridor-v0/short/0/config.yaml"
    config.write_text(yaml.safe_dump({"seed": "none"}))
    foreign = runs / "foreign/config.yaml"
    foreign.parent.mkdir()
    foreign.write_text("model: resnet")
    escaping = make_run(tmp_path / "other", name="x")
    (escaping / "config.yaml").write_text(yaml.safe_dump({"name": "../../../x"}))
    longest = make_run(tmp_path / "other", name="longest")
    (longest / "config.yaml").write_text(yaml.safe_dump({"env_kwargs": {"max_length": 10**400}}))
    empty = make_run(tmp_path / "other", name="empty", evaluated=False, curve=())
    logdir = tmp_path / "comparison"
    args = [str(runs), str(tmp_path / "other"), str(tmp_path / "nothing")]
    assert cli.main(["compare", *args, "--logdir", str(logdir), "--write-only"]) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 8
    for why in (
        "lstm/0/evaluation.json: not of this version",
        "success_rate='good': must be of type float",
        "seed='none': must be an integer",
        "model='resnet': no such setting",
        "name='../../../x': must be None or a name that a folder can have",
        f"{longest / 'config.yaml'}: leads to a name of more than 200 bytes",
        f"{empty}: has neither TensorBoard events nor evaluation.json yet",
        "nothing is not a run folder",
    ):
        assert sum(why in line for line in lines) == 1, why
    assert "3 runs of" in captured.out
    assert (logdir / "Corridor-v0/long/0").is_dir()
    assert not (logdir / "Corridor-v0/lstm").exists()


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--write-only"], "logdir: must be given with --write-only"),
        (["--port", "70000"], "port=70000: must be from 0 to 65535"),
        (["--logdir", "full", "--write-only"], "logdir='full': must be a new folder"),
        (["--logdir", "runs/Corridor-v0/lstm/0/c", "--write-only"], "must not be in the folder of a run"),
    ],
)
def test_wrong_use(tmp_path, monkeypatch, capsys, args, why):
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs"))
    Path("full").mkdir()
    Path("full/mine").write_text("kept")
    assert cli.main(["compare", "runs", *args]) == 2
    err = capsys.readouterr().err
    assert why in err
    assert err.count("\n") == 1
    assert Path("full/mine").read_text() == "kept"


def test_nothing_to_show(tmp_path, capsys):
    for args in ([], [str(tmp_path)]):
        assert cli.main(["compare", *args]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_lines_rise_whatever_the_training_did():
    falling = {100 * i: Point(100 * i, 0.0, float(v)) for i, v in enumerate((40, 30, 10, 10))}
    scores = {100 * i: Point(100 * i, 0.0, v) for i, v in enumerate((0.5, 0.25, 1.0, 1.0))}
    shrunk = Curves(Path(), {MEMORY: falling, SUCCESS: scores})
    assert trajectory(shrunk, SUCCESS) == [(10000, 1.0), (30000, 0.25), (40000, 0.5)]
    constant = Curves(Path(), {MEMORY: {0: Point(0, 0.0, 2.0)}, SUCCESS: {0: Point(0, 0.0, 1.0)}})
    assert trajectory(constant, SUCCESS) == []
    assert cost_lines([], "Corridor-v0") == {}


def test_a_training_that_goes_on_is_followed(tmp_path):
    folder = make_run(tmp_path / "runs", evaluated=False)
    entry = compare.read_run(folder)
    from memspan.evaluation.comparison import Comparison

    with Comparison(tmp_path / "c", [entry]) as comparison:
        comparison.write()
        write_training(folder, (7.0, 8.0), start=3)
        comparison.follow()
        comparison.follow()
        shown = points(tmp_path / "c" / entry.name, "Corridor-v0/effective_memory")
    assert shown == [(100, 2.0), (200, 2.0), (300, 2.0), (400, 7.0), (500, 8.0)]


def test_a_run_may_go_while_it_is_followed(tmp_path):
    folder = make_run(tmp_path / "runs", evaluated=False)
    entry = compare.read_run(folder)
    with SummaryWriter(folder) as writer:
        writer.add_scalar("memory/effective_memory", 9.0, 400)
    # A file that was seen, but is gone when it is to be opened.
    (gone,) = set(folder.glob("events.*")) - set(entry.curves._files)
    entry.curves._files[gone] = EventFileLoader(str(gone))
    shutil.rmtree(folder)
    assert entry.curves.read() == {}
    assert entry.curves.last(MEMORY) == 2.0


def test_pages(tmp_path):
    entry = compare.read_run(make_run(tmp_path))
    pages = compare.pages_of("http://localhost:1/", [entry])
    assert pages["Custom Scalars"][0] == "http://localhost:1/#custom_scalars&_smoothingWeight=0"
    query = dict(parse_qsl(urlsplit(pages["Time Series"][0]).query))
    assert query["smoothing"] == "0"
    assert json.loads(query["pinnedCards"]) == [{"plugin": "scalars", "tag": "cost/Corridor-v0/success_rate"}]
    # Where there are more runs than TensorBoard selects by itself.
    assert compare.pages_of("http://localhost:1/", [entry], "cost/")["Custom Scalars"][0].endswith(
        "&regexInput=cost%2F"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"memory": "../../../evil", "name": "x"},
        {"env": "../../../evil/Corridor-v0"},
        {"env_kwargs": {"max_length": "/../../../../evil"}},
    ],
)
def test_a_foreign_run_writes_nowhere_else(tmp_path, capsys, change):
    foreign = make_run(tmp_path / "runs")
    config = yaml.safe_load((foreign / "config.yaml").read_text())
    (foreign / "config.yaml").write_text(yaml.safe_dump(config | change))
    make_run(tmp_path / "runs", seed=1)
    logdir = tmp_path / "a/b/comparison"
    before = {path for path in tmp_path.rglob("*") if "comparison" not in path.parts}
    assert cli.main(["compare", str(tmp_path / "runs"), "--logdir", str(logdir), "--write-only"]) == 1
    assert "must not leave its folder" in capsys.readouterr().err
    after = {path for path in tmp_path.rglob("*") if "comparison" not in path.parts}
    assert after - before == {tmp_path / "a", tmp_path / "a/b"}
