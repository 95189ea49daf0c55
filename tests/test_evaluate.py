import dataclasses
import json
from pathlib import Path

import pytest
import torch

from memspan import cli
from memspan.evaluate import main
from memspan.runs import (
    RunConfig,
    find_runs,
    make_model,
    run_folder,
    save_checkpoint,
    save_config,
    spread_seed,
)

torch.set_num_threads(1)


def make_run(run_dir: Path, memory: str = "transformer-xl", seed: int = 0, **settings) -> Path:
    """A run folder with an untrained agent as its checkpoint."""
    small = {"n_layers": 1}
    config = RunConfig(
        memory=memory,
        seed=seed,
        run_dir=run_dir,
        n_envs=4,
        width=16,
        env_kwargs={"max_length": 5},
        memory_kwargs=settings.pop("memory_kwargs", small),
        **settings,
    )
    folder = run_folder(config)
    save_config(config, folder)
    save_checkpoint(make_model(config), config, folder / "checkpoints" / "000000000512.safetensors", 512)
    return folder


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "runs")


def refused(capsys, *args):
    """Exit code 2, and one line that says why."""
    assert cli.main(["evaluate", *map(str, args)]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert not out
    return err


def load(folder):
    return json.loads((folder / "evaluation.json").read_text())


def test_end_to_end(tmp_path, run, capsys):
    figure, lengths = tmp_path / "plots" / "figure.png", tmp_path / "lengths"
    args = [str(run), "--episodes", "30", "--n-envs", "8"]
    assert main([*args, "--figure", str(figure), "--difficulty-figure", str(lengths)]) == 0
    told = load(run)
    assert told["env"] == "memspan/Corridor-v0"
    assert told["memory"] == told["name"] == "transformer-xl"
    assert (told["seed"], told["timesteps"], told["episodes"], told["n_envs"]) == (0, 512, 30, 8)
    assert 0 <= told["success_ci"][0] <= told["success_rate"] <= told["success_ci"][1] <= 1
    assert told["mean_return"] == pytest.approx(told["success_rate"])
    assert 0 < told["effective_memory"] <= told["peak_memory"] <= told["capacity"]
    assert told["state_bytes"] > 0
    assert told["steps_per_second"] > 0
    assert told["length_of"] == "task"
    assert sum(bucket["episodes"] for bucket in told["success_by_length"]) == 30
    assert {bucket["low"] for bucket in told["success_by_length"]} <= {3, 4, 5}
    assert told["env_kwargs"] == {"max_length": 5}
    assert told["memory_kwargs"]["n_layers"] == 1
    assert told["settings"]["learning_rate"] == 3e-4
    assert told["settings"].keys().isdisjoint({"run_dir", "device", "memory"})
    assert (told["deterministic"], told["evaluation_seed"], told["checkpoint"]) == (False, 1_000_000, "last")
    assert told["memspan_version"]
    assert told["torch_version"] == torch.__version__
    assert "git_commit" in told
    out = capsys.readouterr().out
    assert f"{run}: success rate {told['success_rate']:.3f}" in out
    assert "transformer-xl" in out
    assert all(
        len(line) <= 100 for line in out.splitlines() if not line.startswith(("[1/1]", str(run), "Figure"))
    )
    for path in (figure, lengths):
        assert path.with_suffix(".png").stat().st_size > 10_000
        assert path.with_suffix(".svg").is_file()
    assert len(list(run.glob("events.out.tfevents.*.evaluation"))) == 1


def test_same_seed_same_numbers(run):
    first = []
    for seed in (7, 7, 8):
        main([str(run), "--episodes", "40", "--seed", str(seed)])
        first.append({key: value for key, value in load(run).items() if key != "steps_per_second"})
    assert first[0] == first[1]
    assert first[0]["mean_length"] != first[2]["mean_length"]


def test_reuse_plays_only_what_is_new(tmp_path, run, capsys):
    main([str(run), "--episodes", "2"])
    before = (run / "evaluation.json").read_bytes()
    new = make_run(tmp_path / "runs", memory="none")
    figure = tmp_path / "figure"
    assert main([str(tmp_path / "runs"), "--episodes", "3", "--reuse", "--figure", str(figure)]) == 0
    assert (run / "evaluation.json").read_bytes() == before
    assert load(new)["episodes"] == 3
    assert figure.with_suffix(".svg").is_file()
    assert main([str(run), "--episodes", "5"]) == 0
    assert load(run)["episodes"] == 5
    (run / "checkpoints" / "000000000512.safetensors").unlink()
    assert main([str(run), "--reuse"]) == 0
    capsys.readouterr()
    (run / "evaluation.json").write_text("{}")
    assert "evaluation.json: not of this version" in refused(capsys, run, "--reuse")


def test_settings_since_then_do_not_tell_runs_apart(tmp_path, run, capsys):
    other = make_run(tmp_path / "runs", seed=1)
    main([str(run), str(other), "--episodes", "2"])
    told = load(run)
    del told["settings"]["reconstruction_coef"], told["memory_kwargs"]["position_values"]
    (run / "evaluation.json").write_text(json.dumps(told))
    capsys.readouterr()
    main([str(run), str(other), "--reuse"])
    printed = capsys.readouterr().out
    assert "default" not in printed
    assert "reconstruction" not in printed
    assert "mean" in printed
    # Nor does a memory that is not at hand any more keep its evaluations from being read.
    told["memory"] = "gone:Memory"
    (run / "evaluation.json").write_text(json.dumps(told))
    assert main([str(run), "--reuse"]) == 0


def test_folders_expand(tmp_path, run):
    other = make_run(tmp_path / "runs", seed=1)
    named = make_run(tmp_path / "runs", name="none-2", memory="none")
    assert set(find_runs([tmp_path])) == {run, other, named}
    assert find_runs([other, tmp_path / "runs" / "Corridor-v0" / "transformer-xl", other]) == [other, run]


def test_every_memory(tmp_path):
    for memory in ("none", "lstm", "expire-span"):
        make_run(tmp_path, memory, memory_kwargs={})
    assert main([str(tmp_path), "--episodes", "4"]) == 0
    assert load(tmp_path / "Corridor-v0" / "none" / "0")["effective_memory"] == 0


def test_environment_without_success(tmp_path):
    config = RunConfig(env="Pendulum-v1", memory="lstm", run_dir=tmp_path, n_envs=2, n_minibatches=1, width=8)
    folder = run_folder(config)
    save_config(config, folder)
    save_checkpoint(make_model(config), config, folder / "checkpoints" / "000000000001.safetensors", 1)
    figures = ["--figure", str(tmp_path / "a"), "--difficulty-figure", str(tmp_path / "b")]
    assert main([str(folder), "--episodes", "2", *figures]) == 0
    told = load(folder)
    assert told["success_rate"] is None
    assert told["success_by_length"] == []
    assert told["return_ci"][0] < told["mean_return"] < 0
    assert told["mean_length"] == 200


def test_seeds_of_the_training_are_refused(run, capsys):
    trained = spread_seed(0)
    for clash in (trained, trained + 3, trained - 63):
        err = refused(capsys, run, "--seed", clash)
        assert f"seed={clash}: must be clear of the training's seeds {trained} to {trained + 3}" in err
    for clear in (trained + 4, trained - 64):
        assert main([str(run), "--seed", str(clear), "--episodes", "1"]) == 0


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--episodes", "0"], "episodes=0: must be at least 1"),
        (["--n-envs", "0"], "n_envs=0: must be at least 1"),
        (["--seed", "-1"], "seed=-1: must be from 0"),
        (["--chance", "2"], "chance=2.0: must be from 0 to 1"),
        (["--figure", "a.jpg"], "must be a file name that ends in .png, .svg"),
        (["--difficulty-figure", "a.txt"], "must be a file name that ends in .png, .svg"),
        (["--checkpoint", "best"], "has no best checkpoint"),
        (["--device", "abacus"], "device='abacus'"),
    ],
)
def test_wrong_use(run, capsys, args, why):
    assert why in refused(capsys, run, *args)
    assert not (run / "evaluation.json").exists()


def test_wrong_folders(tmp_path, run, capsys):
    assert "must name at least one run folder" in refused(capsys)
    assert "is not a run folder" in refused(capsys, tmp_path / "nothing")
    (run / "checkpoints" / "000000000512.safetensors").unlink()
    assert "has no checkpoint" in refused(capsys, run)


def test_help_says_something_of_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    from memspan.evaluate import Options

    for field in dataclasses.fields(Options)[1:]:
        assert f"--{field.name.replace('_', '-')}" in out


def test_beyond_training(tmp_path, run, capsys):
    lstm = make_run(tmp_path / "runs", "lstm")
    args = [str(tmp_path / "runs"), "--episodes", "20", "--n-envs", "4"]
    longer = ["--env.max-length", "9", "--memory.memory-size=7"]
    assert main([*args, *longer, "--figure", str(tmp_path / "beyond")]) == 0
    assert "(max_length=9)" in capsys.readouterr().out
    assert not (run / "evaluation.json").exists()
    told = load(run / "beyond" / "max_length=9,memory_size=7")
    assert told["env_kwargs"] == {"max_length": 9}
    assert told["memory_kwargs"]["memory_size"] == told["capacity"] == 7
    assert max(bucket["high"] for bucket in told["success_by_difficulty"]) > 5
    # The LSTM has no such setting; its result stands beside the other all the same.
    assert load(lstm / "beyond" / "max_length=9")["memory"] == "lstm"
    assert find_runs([tmp_path / "runs"]) == [lstm, run]
    assert main([*args, *longer, "--reuse"]) == 0
    assert "20 of 20" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (
            ["--env.max-lenth", "9"],
            "env.max_lenth=9: memspan/Corridor-v0 has no such setting; it has min_length",
        ),
        (["--env.max-length", "long"], "env.max_length='long': must be of type int"),
        (["--env.max-length", "2"], "max_length"),
        (["--env.max-length"], "--env.max-length: needs a value"),
        (["--env.max-length", "--reuse"], "--env.max-length: needs a value"),
        (
            ["--memory.spam", "2"],
            "memory.spam=2: none of these runs has such a setting; they have copy_at_first",
        ),
        (["--env.max-length", "{"], "--env.max-length='{': must be a value in YAML"),
        (["--env.max-length", "1e2"], "env.max_length=100.0: must be of type int"),
        (["--memory.memory-size", "0"], "memory_size=0: must be"),
        (["--memory.n-layers", "2"], "layers.1.query.weight is missing"),
    ],
)
def test_beyond_training_refused(run, capsys, args, why):
    assert why in refused(capsys, run, "--episodes", "4", *args)
    assert not (run / "beyond").exists()


def test_damaged_and_foreign_runs_are_left_out(tmp_path, run, capsys):
    good = make_run(tmp_path / "runs", seed=1)
    (run / "checkpoints" / "000000000512.safetensors").write_bytes(b"not a checkpoint")
    foreign = tmp_path / "runs" / "foreign"
    foreign.mkdir()
    (foreign / "config.yaml").write_text("optimizer: adam\n")
    without = make_run(tmp_path / "runs", seed=2)
    (without / "checkpoints" / "000000000512.safetensors").unlink()
    elsewhere = make_run(tmp_path / "runs", seed=3)
    config = (elsewhere / "config.yaml").read_text()
    (elsewhere / "config.yaml").write_text(config.replace("memory: transformer-xl", "memory: elephant"))
    figure = tmp_path / "figure.png"
    args = ["evaluate", str(tmp_path / "runs"), str(tmp_path / "nothing"), "--episodes", "4"]
    assert cli.main([*args, "--figure", str(figure)]) == 1
    err = capsys.readouterr().err
    assert figure.is_file()
    assert load(good)["episodes"] == 4
    lines = err.splitlines()
    assert len(lines) == 5
    for folder, why in [
        (run, "damaged or cut short"),
        (foreign, "optimizer='adam': no such setting"),
        (without, "has no checkpoint"),
        (elsewhere, "memory='elephant': unknown"),
        (tmp_path / "nothing", "is not a run folder"),
    ]:
        assert [line for line in lines if str(folder) in line and why in line and "left out" in line]
    assert cli.main([*args, "--env.max-length", "6"]) == 1
    assert "memory='elephant': unknown" in capsys.readouterr().err
    (good / "evaluation.json").write_text("{")
    assert cli.main(["evaluate", str(good), "--reuse"]) == 2
    assert "not of this version" in capsys.readouterr().err
