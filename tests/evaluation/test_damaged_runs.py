"""Files of a run's folder that no training has written: refused in a line, or shown; never more than that."""

import importlib
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.summary.writer.record_writer import masked_crc32c

from memspan.evaluation import Evaluation
from memspan.evaluation.curves import SUCCESS, Curves
from memspan.evaluation.horizon import Horizon
from memspan.reports.data import read_report_run
from memspan.runs import load_config
from memspan.runs.events import cut_events
from memspan.runs.folder import CONFIG, MOST_BYTES
from memspan.sweeps.status import FILE_NAME as STATUS
from memspan.sweeps.status import read_status

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FLOAT = 1


@pytest.fixture
def fuzzers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("fuzz_checkpoints", "fuzz_runs")
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("fuzzer", "subject"), [("fuzz_checkpoints", "Subject"), ("fuzz_runs", "Runs")])
def test_mutated_files(
    fuzzer: str, subject: str, fuzzers: dict[str, ModuleType], tmp_path: Path, monkeypatch: Any
) -> None:
    """The first of those that the fuzzers read."""
    monkeypatch.chdir(tmp_path)
    reader = getattr(fuzzers[fuzzer], subject)(tmp_path)
    refused = 0
    for number in range(120):
        kind, way, data = reader.mutated(number, seed=1)
        try:
            reader.read(kind, data)
        except Exception as error:
            if not isinstance(error, ValueError) or "\n" in str(error):
                pytest.fail(f"file {number}, {kind}, {way}: {error!r}")
            refused += 1
    assert 30 < refused < 115


def config(folder: Path, text: str) -> Path:
    (folder / CONFIG).write_text(text)
    return folder


def test_configs_that_grow_by_aliases(tmp_path: Path) -> None:
    """Ten lines that stand for ten thousand million values, and one that stands for itself."""
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    for text in (f"env_kwargs: {{{', '.join(lines)}}}", "env_kwargs: &a {x: *a}", "x: &a [*a]"):
        with pytest.raises(ValueError, match=r"config.yaml: not YAML \(an alias, which is not allowed"):
            load_config(config(tmp_path, text))


def test_configs_that_are_large(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"bytes: must be at most {MOST_BYTES}"):
        load_config(config(tmp_path, "env: x\n" + "#" * MOST_BYTES))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [1]", r"name=\[1\]: must be None or a name"),
        ("env: 3", "env=3: must be text"),
        ("env_kwargs: x", "env_kwargs='x': must be settings by name"),
        ("seed: .nan", "seed=nan: must be an integer"),
        ("name: ../../x", "name='../../x': must be"),
        ("run_dir: 3", "run_dir=3: must be a path"),
        ("n_envs: 0", "n_envs=0: must be an integer of at least 1"),
    ],
)
def test_configs_with_other_kinds_of_values(text: str, words: str, tmp_path: Path) -> None:
    for read in load_config, read_report_run:
        with pytest.raises(ValueError, match=f"^{tmp_path}/{CONFIG}: {words}"):
            read(config(tmp_path, text))


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def bucket(**change: Any) -> dict[str, Any]:
    return {"low": 1, "high": 6, "episodes": 4, "success_rate": 1, "ci": [0.5, 1]} | change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"success_rate": "high"}, "success_rate='high': must be of type float"),
        ({"success_rate": True}, "success_rate=True"),
        ({"mean_return": 10**30}, "mean_return=1000"),
        ({"seed": 0.5}, "seed=0.5: must be of type int"),
        ({"memory": None}, "memory=None: must be of type str"),
        ({"return_ci": [1, 2, 3]}, "return_ci="),
        ({"success_by_length": [{"low": 1}]}, "('ci')"),
        (
            {"success_by_length": [{"low": 1, "high": "x", "episodes": 1, "success_rate": 1, "ci": [0, 1]}]},
            "high='x'",
        ),
        ({"success_by_length": [bucket(episodes=0)]}, "episodes=0, success_rate=1: must be at least 1"),
        ({"success_by_length": [bucket(success_rate=1.5)]}, "episodes=4, success_rate=1.5: must be"),
        ({"success_by_length": [bucket(low=7)]}, "low=7, high=6"),
        ({"env_kwargs": [1]}, "env_kwargs="),
        ({"settings": nested(500)}, "settings="),
        ({"settings": {"a": 10**400}}, "too large a number"),
        ({"settings": {"a": [nested(7)]}}, "settings="),
    ],
)
def test_results_of_other_types(
    change: dict[str, Any], words: str, tmp_path: Path, make_evaluation: Any
) -> None:
    path = make_evaluation(rate=0.5, size=2.0).save(tmp_path)
    good = Evaluation.load(tmp_path)
    assert good == make_evaluation(rate=0.5, size=2.0)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=r"evaluation\.json: not of this version; make it again") as error:
        Evaluation.load(tmp_path)
    assert words in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 10_000, '{"a": NaN}', "[]", "3", "", "\xff\xfe"])
def test_results_that_are_none(text: str, tmp_path: Path) -> None:
    for name in ("evaluation.json", "horizon.json", STATUS):
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    for result in Evaluation, Horizon:
        with pytest.raises(ValueError, match="not of this version"):
            result.load(tmp_path)
    assert read_status(tmp_path) is None


def record(data: bytes, length: int | None = None) -> bytes:
    head = struct.pack("<Q", len(data) if length is None else length)
    return head + struct.pack("<I", masked_crc32c(head)) + data + struct.pack("<I", masked_crc32c(data))


def row(step: int, tensor: TensorProto | None = None, **value: Any) -> bytes:
    told = Summary.Value(tag=SUCCESS, **({"tensor": tensor} if tensor else value))
    return record(Event(wall_time=1, step=step, summary=Summary(value=[told])).SerializeToString())


def of_shape(*sizes: int) -> TensorProto:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])
    return TensorProto(dtype=FLOAT, float_val=[1.0], tensor_shape=shape)


HEAD = record(Event(wall_time=1, file_version="brain.Event:2").SerializeToString())
BEFORE = HEAD + row(1, simple_value=0.5) + row(2, simple_value=0.25)


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return tmp_path / "events.out.tfevents.1.machine.1.0"


@pytest.mark.parametrize(
    "more",
    [
        record(b"\xff\xff\xff\xffnothing"),
        record(b"x", 2**62),
        record(b"x", 2**63),
        row(3, of_shape(2**34)),
        row(3, of_shape(2)),
        row(3, TensorProto(dtype=77)),
        row(3, TensorProto(dtype=20)),
        row(3, TensorProto(dtype=FLOAT)),
        row(3),
    ],
    ids=[
        *("no event", "length", "length beyond int64", "large", "several"),
        *("unknown type", "type without numbers", "empty", "no value"),
    ],
)
def test_rows_that_no_training_writes(more: bytes, events: Path) -> None:
    events.write_bytes(BEFORE + more)
    with pytest.raises(ValueError, match=f"^{events}: damaged") as error:
        Curves(events.parent).read()
    assert "\n" not in str(error.value)


def test_rows_are_cut_where_they_are_later_and_left_where_they_are_damaged(events: Path) -> None:
    def cut(content: bytes, timesteps: int) -> bytes:
        events.write_bytes(content)
        assert cut_events(events.parent, timesteps)
        return events.read_bytes()

    later = row(3, simple_value=1.0)
    assert cut(BEFORE + later, 2) == BEFORE
    assert cut(BEFORE + later, 3) == BEFORE + later
    for n in 1, 11, 12, 20, len(later) - 1:  # not written to its end
        assert cut(BEFORE + later[:n], 2) == BEFORE
    flipped = bytearray(BEFORE)
    flipped[-1] ^= 1
    garbage = record(b"\xff\xff\xff\xffnothing")
    for damaged in (bytes(flipped), BEFORE + garbage, BEFORE + bytes(100), BEFORE[:-30] + b"\xff" * 30):
        assert cut(damaged + later, 2) == damaged + later
    assert cut(BEFORE + later + garbage, 2) == BEFORE
    assert cut(BEFORE + record(b"x", 2**62), 2) == BEFORE
    events.write_bytes(HEAD[:9])
    assert cut_events(events.parent, 2)
    assert not events.exists()
