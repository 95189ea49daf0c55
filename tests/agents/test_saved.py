"""What `MemoryPPO.save` writes, and what `load` refuses: nothing of a file is ever run."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load, save
from stable_baselines3 import PPO
from stable_baselines3.common.utils import LinearSchedule
from toys import Toy, corridors

from memspan.agents import MemoryPolicy, MemoryPPO
from memspan.agents.archive import MANIFEST, VERSION, _digest, write_archive
from memspan.agents.plain import decode, encode
from memspan.agents.saved import GROUPS, OPTIMIZER, POLICY, SETTINGS

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def model() -> MemoryPPO:
    model = MemoryPPO(
        "MemoryPolicy",
        corridors(2),
        "lstm",
        n_steps=4,
        n_epochs=1,
        policy_kwargs={"width": 8},
        seed=0,
        device="cpu",
    )
    model.learn(8)
    return model


@pytest.fixture(scope="module")
def files(model: MemoryPPO) -> Files:
    place = io.BytesIO()
    model.save(place)
    with zipfile.ZipFile(place) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != MANIFEST}


def refused(data: bytes | Files, match: str) -> None:
    """Loading says why not, in one line."""
    if isinstance(data, dict):
        place = io.BytesIO()
        write_archive(place, "agent", data)
        data = place.getvalue()
    with pytest.raises(ValueError, match=match) as error:
        MemoryPPO.load(io.BytesIO(data), device="cpu")
    assert "\n" not in str(error.value)


def changed(files: Files, name: str, change: Callable[[dict[str, Any]], Any]) -> Files:
    """With the JSON of one file changed."""
    value = json.loads(files[name])
    change(value)
    return files | {name: json.dumps(value).encode()}


def with_tensors(files: Files, name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Files:
    tensors = load(files[name])
    change(tensors)
    return files | {name: save(tensors)}


def zip_of(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return place.getvalue()


class Evil:
    """Writes a file where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (str(Path(os.environ["EVIL"])),)


def test_all_is_stored_and_nothing_is_pickled(files: Files) -> None:
    assert {*files} == {SETTINGS, POLICY, OPTIMIZER, GROUPS}
    settings = json.loads(files[SETTINGS])
    assert settings["memory"] == "lstm"
    assert settings["num_timesteps"] == 8
    assert settings["policy_class"] == {"class": "memspan.agents.policy:MemoryPolicy"}
    assert any(name.endswith("exp_avg") for name in load(files[OPTIMIZER]))


def test_the_same_agent_gives_the_same_bytes(model: MemoryPPO, tmp_path: Path) -> None:
    places = [io.BytesIO(), io.BytesIO()]
    for place in places:
        model.save(place)
    assert places[0].getvalue() == places[1].getvalue()
    model.save(tmp_path / "model")
    assert (tmp_path / "model.zip").read_bytes() == places[0].getvalue()
    again = io.BytesIO()
    MemoryPPO.load(tmp_path / "model", device="cpu").save(again)
    assert again.getvalue() == places[0].getvalue()


def test_pickles_are_not_loaded(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: MemoryPPO
) -> None:
    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    evil = pickle.dumps(Evil())
    refused(evil, "a pickle, which could run anything")
    refused(zip_of(files | {"policy.pkl": evil}), "'policy.pkl', a pickle")
    # As Stable-Baselines3 writes them.
    place = io.BytesIO()
    PPO("MlpPolicy", Toy(), n_steps=4, batch_size=4, device="cpu", policy_kwargs={"net_arch": [2]}).save(
        place
    )
    refused(place.getvalue(), "a zip of Stable-Baselines3's own format")
    with pytest.raises(ValueError, match="own format"):
        model.set_parameters(io.BytesIO(place.getvalue()))
    torch.save({"evil": Evil()}, tmp_path / "torch.zip")
    refused((tmp_path / "torch.zip").read_bytes(), "a pickle")
    with pytest.raises(ValueError, match="a pickle"):
        MemoryPolicy.load(tmp_path / "torch.zip")
    assert not (tmp_path / "evil").exists()
    pickle.loads(evil)
    assert (tmp_path / "evil").exists()


@pytest.mark.parametrize("name", ["../policy.json", "/etc/policy.json", "..\\policy.json", "C:policy.json"])
def test_paths_that_lead_out(files: Files, name: str) -> None:
    refused(zip_of(files | {name: b"{}"}), "a path that leads out")


def test_other_files(files: Files) -> None:
    refused(zip_of(files | {"run.py": b"1"}), "must hold .json and .safetensors alone")
    refused(zip_of(files), f"has no {MANIFEST}")
    refused({name: data for name, data in files.items() if name != OPTIMIZER}, "must hold groups.json, opt")
    refused(b"", "damaged, cut short or no zip")
    refused(zip_of({}), f"has no {MANIFEST}")


def test_bombs(files: Files) -> None:
    """Neither what is compressed nor what only claims to be large is read."""
    refused(
        zip_of({MANIFEST: b"{}" + b" " * 10**7}, zipfile.ZIP_DEFLATED), "is compressed, from 10000002 bytes"
    )
    data = bytearray(zip_of({MANIFEST: b"{}"}))
    place = data.rfind(b"PK\x01\x02")
    data[place + 20 : place + 28] = (2**31).to_bytes(4, "little") * 2
    refused(bytes(data), "declares more bytes than the file has")
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    refused(files | {POLICY: len(header).to_bytes(8, "little") + header}, "policy.safetensors: damaged")
    for wide in (10**6, 10**9):
        refused(
            changed(files, SETTINGS, lambda s, wide=wide: s["policy_kwargs"]["dict"].update(width=wide)),
            "has shape|size",
        )
    refused(
        changed(files, SETTINGS, lambda s: s["observation_space"].update(shape=[10**5] * 3)),
        "must have at most",
    )
    refused(
        changed(files, SETTINGS, lambda s: s["memory_kwargs"]["dict"].update(n_layers=10**9)), "at most 256"
    )
    refused(files | {SETTINGS: b'{"a":' * 100_000}, "no JSON")


def test_wrong_hash(files: Files) -> None:
    place = io.BytesIO()
    write_archive(place, "agent", files)
    with zipfile.ZipFile(place) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    last = bytearray(entries[POLICY])
    last[-1] ^= 1
    refused(zip_of(entries | {POLICY: bytes(last)}), "policy.safetensors is not what was written")
    refused(
        zip_of({name: data for name, data in entries.items() if name != POLICY}),
        "other files than its manifest",
    )
    flipped = bytearray(place.getvalue())
    flipped[len(flipped) // 2] ^= 1
    refused(bytes(flipped), "damaged|not what was written")
    refused(place.getvalue()[:-100], "damaged")
    manifest = json.loads(entries[MANIFEST])
    for key, value, what in (
        ("version", VERSION + 1, f"reads version {VERSION} alone"),
        ("format", "other", "must be 'memspan zip'"),
        ("kind", "policy", "must hold 'agent'"),
    ):
        refused(zip_of(entries | {MANIFEST: json.dumps(manifest | {key: value}).encode()}), what)
    assert manifest["files"][POLICY]["sha256"] == _digest(entries[POLICY])


def test_tensors_that_do_not_fit(files: Files) -> None:
    name = "value_net.weight"
    refused(with_tensors(files, POLICY, lambda t: t[name].fill_(torch.nan)), f"{name} holds NaN")
    refused(with_tensors(files, POLICY, lambda t: t.pop(name)), f"{name} is missing")
    refused(with_tensors(files, POLICY, lambda t: t.update({name: t[name][:, :-1]})), f"{name} has shape")
    refused(
        with_tensors(files, POLICY, lambda t: t.update({name: t[name].double()})), f"{name} is torch.float64"
    )
    refused(
        with_tensors(files, POLICY, lambda t: t.update(more=t[name].clone())), "more is none of this policy"
    )
    refused(with_tensors(files, OPTIMIZER, lambda t: t["0.exp_avg"].fill_(torch.inf)), "0.exp_avg holds NaN")
    refused(with_tensors(files, OPTIMIZER, lambda t: t.pop("0.exp_avg_sq")), "0.exp_avg_sq is missing")
    refused(with_tensors(files, OPTIMIZER, lambda t: t.update({"999.step": t["0.step"].clone()})), "999.step")
    refused(with_tensors(files, OPTIMIZER, lambda t: t.update({"0.exp_avg": torch.ones(())})), "has shape")


def test_settings_that_do_not_fit(files: Files) -> None:
    refused(changed(files, SETTINGS, lambda s: s.update(train=1)), "train: no setting of MemoryPPO")
    refused(changed(files, SETTINGS, lambda s: s.update(gamma={"what": 1})), "gamma: .*not a value")
    refused(changed(files, SETTINGS, lambda s: s.update(policy_class={"class": "os:system"})), "no network")
    refused(
        changed(files, SETTINGS, lambda s: s.update(policy_class={"class": "antigravity:x"})),
        "not been imported",
    )
    refused(
        changed(files, SETTINGS, lambda s: s.update(policy_class={"class": "torch.nn:Linear"})),
        "must be a Mem",
    )
    refused(
        changed(files, SETTINGS, lambda s: s.update(memory="antigravity:Memory")), "has not been imported"
    )
    refused(changed(files, SETTINGS, lambda s: s.update(memory="lsmt")), "lsmt")
    refused(changed(files, SETTINGS, lambda s: s.pop("policy_class")), "policy_class")
    refused(changed(files, GROUPS, lambda s: s["groups"][0].pop("lr")), "groups.json: must hold")
    refused(changed(files, GROUPS, lambda s: s["groups"][0].update(lr="a")), "lr='a': must be like")
    refused(changed(files, GROUPS, lambda s: s["groups"].clear()), "must hold 1 groups")


def test_functions_are_left_out_and_asked_for(tmp_path: Path) -> None:
    settings: dict[str, Any] = dict(n_steps=4, policy_kwargs={"width": 8}, device="cpu")
    model = MemoryPPO("MemoryPolicy", Toy(), "none", learning_rate=lambda left: 1e-3 * left, **settings)
    model.save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"learning_rate was a function.*load\(..., learning_rate="):
        MemoryPPO.load(tmp_path / "model.zip")
    assert MemoryPPO.load(tmp_path / "model.zip", learning_rate=1e-4).learning_rate == 1e-4
    assert (
        MemoryPPO.load(tmp_path / "model.zip", custom_objects={"learning_rate": 1e-4}).lr_schedule(1) == 1e-4
    )
    with pytest.raises(FileNotFoundError):
        MemoryPPO.load(tmp_path / "other.zip")


def test_schedules_are_kept(tmp_path: Path) -> None:
    settings: dict[str, Any] = dict(n_steps=4, policy_kwargs={"width": 8, "net_arch": [3]}, device="cpu")
    model = MemoryPPO("MemoryPolicy", Toy(), "none", learning_rate=LinearSchedule(1.0, 0.2, 1.0), **settings)
    model.save(tmp_path / "model.zip")
    assert MemoryPPO.load(tmp_path / "model.zip").lr_schedule(0.5) == pytest.approx(0.6)


SPACES = [
    spaces.Box(-1, 1, (3,), np.float32),
    spaces.Box(np.array([-1.0, -np.inf]), np.array([2.0, np.inf]), dtype=np.float64),
    spaces.Box(0, 255, (4, 4, 3), np.uint8),
    spaces.Discrete(5, start=2),
    spaces.MultiDiscrete([3, 4]),
    spaces.MultiBinary((2, 3)),
    spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Box(0, 1, (1,))}),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_spaces_come_back(space: spaces.Space[Any]) -> None:
    assert decode(json.loads(json.dumps(encode(space), allow_nan=False))) == space


def test_a_full_disk_leaves_the_old_file(
    model: MemoryPPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.zip"
    model.save(path)
    before = path.read_bytes()

    def full(self: zipfile.ZipFile, info: zipfile.ZipInfo, data: bytes) -> None:
        if info.filename == POLICY:
            raise OSError(28, "No space left on device")
        write(self, info, data)

    write = zipfile.ZipFile.writestr
    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["model.zip"]
