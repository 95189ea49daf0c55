import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from memspan.evaluation import Evaluation, summarise
from memspan.evaluation.difficulty import Trials
from memspan.evaluation.results import bucket_width, success_by


def played(lengths, successes, sizes=None):
    n = len(lengths)
    return SimpleNamespace(
        returns=np.arange(n, dtype=float),
        lengths=np.array(lengths),
        successes=None if successes is None else np.array(successes, dtype=bool),
        trials=None if sizes is None else Trials("length", np.array(sizes), np.array(successes, dtype=bool)),
        effective_memory=1.5,
        peak_memory=3.0,
        state_bytes=8,
        steps_per_second=100.0,
    )


@pytest.mark.parametrize(
    ("longest", "width"), [(1, 1), (10, 1), (11, 2), (20, 2), (21, 5), (200, 20), (201, 50)]
)
def test_bucket_width(longest, width):
    assert bucket_width(longest) == width


def test_buckets_hold_every_trial_once():
    sizes = np.arange(3, 201)
    buckets = success_by(sizes, sizes <= 100)
    assert [(b.low, b.high) for b in buckets] == [(low, low + 19) for low in range(1, 200, 20)]
    assert [b.episodes for b in buckets] == [18] + [20] * 9
    assert [b.success_rate for b in buckets] == [1.0] * 5 + [0.0] * 5
    assert all(b.ci[0] <= b.success_rate <= b.ci[1] for b in buckets)


def test_buckets_by_episode_without_sizes():
    told = summarise(played([1, 1, 30], [1, 0, 1]))
    assert told["length_of"] == "episode"
    assert "difficulty" not in told
    buckets = told["success_by_length"]
    assert [(b.low, b.high, b.episodes, b.success_rate) for b in buckets] == [
        (1, 5, 2, 0.5),
        (26, 30, 1, 1.0),
    ]


def test_summary():
    told = summarise(played([1, 2, 3, 4], [1, 1, 1, 0], [3, 3, 3, 3]))
    assert told["episodes"] == 4
    assert told["success_rate"] == 0.75
    assert told["success_ci"] == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert told["mean_return"] == 1.5
    assert told["mean_length"] == 2.5
    assert told["length_of"] == "task"
    assert told["difficulty"] == "length"
    assert told["success_by_difficulty"] == told["success_by_length"]
    told = summarise(played([1, 2, 3, 4], None))
    assert told["success_rate"] is None
    assert told["success_ci"] is None
    assert told["success_by_length"] == []
    assert told["length_of"] == "episode"


@pytest.mark.parametrize("rate", [0.5, None])
def test_json_round_trip(tmp_path, make_evaluation, rate):
    run = make_evaluation(rate=rate, memory_kwargs={"hidden": [1, 2]})
    path = run.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["evaluation.json"]
    assert Evaluation.load(tmp_path) == run
    assert json.loads(path.read_text())["success_rate"] == rate


def test_failed_save_leaves_the_old_file(tmp_path, make_evaluation):
    run = make_evaluation()
    run.save(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        replace(run, mean_return=float("nan")).save(tmp_path)
    assert Evaluation.load(tmp_path) == run
    assert len(list(tmp_path.iterdir())) == 1


def test_load_refuses(tmp_path, make_evaluation):
    with pytest.raises(ValueError, match=r"has no evaluation\.json; make it with `memspan evaluate`"):
        Evaluation.load(tmp_path)
    path = make_evaluation().save(tmp_path)
    good = json.loads(path.read_text())
    missing = {key: value for key, value in good.items() if key != "memory"}
    nan = json.dumps(good | {"success_rate": float("nan")})
    falls = {"low": 2, "high": 1, "episodes": 1, "success_rate": 0.5, "ci": [0, 1]}
    bucket = json.dumps(good | {"success_by_length": [falls]})
    for bad in (bucket, "{", "[]", json.dumps(good | {"surprise": 1}), json.dumps(missing), nan):
        path.write_text(bad)
        with pytest.raises(ValueError, match="not of this version; make it again"):
            Evaluation.load(tmp_path)
