import subprocess
from dataclasses import replace

import numpy as np
import pytest

from memspan.evaluation import write_events
from memspan.evaluation.provenance import git_commit, provenance
from memspan.evaluation.tensorboard import settings_of


def read(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return events


def test_events_replace_those_of_before(tmp_path, make_evaluation):
    plt = pytest.importorskip("matplotlib.image")
    plt.imsave(tmp_path / "figure.png", np.zeros((4, 6, 4)))
    run = make_evaluation(rate=0.75, size=2.0, memory_kwargs={"n_layers": 2, "hidden": None})
    (tmp_path / "run").mkdir()
    write_events(tmp_path / "run", replace(run, success_rate=0.25))
    write_events(tmp_path / "run", run, tmp_path / "figure.png")
    assert len(list((tmp_path / "run").iterdir())) == 1
    events = read(tmp_path / "run")
    told = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
    assert told == {
        "evaluation/success_rate": [(1000, 0.75)],
        "evaluation/effective_memory": [(1000, 2.0)],
        "evaluation/mean_return": [(1000, 0.25)],
    }
    (image,) = events.Images("evaluation/success_against_memory")
    assert (image.width, image.height) == (6, 4)
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_without_success(tmp_path, make_evaluation):
    write_events(tmp_path, make_evaluation(rate=None))
    assert read(tmp_path).Tags()["scalars"] == ["evaluation/effective_memory", "evaluation/mean_return"]


def test_settings(make_evaluation):
    run = make_evaluation(env_kwargs={"max_length": 9}, memory_kwargs={"n_layers": 2, "span": None})
    assert settings_of(run) == {
        "env": "memspan/Corridor-v0",
        "memory": "lstm",
        "name": "lstm",
        "seed": 0,
        "env.max_length": 9,
        "memory.n_layers": 2,
        "memory.span": "None",
        "learning_rate": 3e-4,
    }


def test_commit(tmp_path):
    def git(*args):
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=b", *args], check=True
        )

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    assert git_commit(package) is None
    git("init", "-q")
    (tmp_path / "other").touch()
    git("add", "other")
    git("commit", "-qm", "x")
    assert git_commit(package) is None  # in a checkout, but not of it
    git("add", "package")
    git("commit", "-qm", "y")
    assert len(git_commit(package)) == 40
    (package / "__init__.py").write_text("changed")
    assert git_commit(package).endswith("-dirty")
    assert {"memspan_version", "torch_version", "git_commit"} == set(provenance())
