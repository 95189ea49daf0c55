"""`memspan push` and `memspan pull`: what goes along, what comes back, and what is refused."""

import json
import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from memspan import cli
from memspan.evaluation.results import Evaluation
from memspan.hub.unpack import check_names
from memspan.runs import load_model, read_info
from memspan.runs.folder import numbered_checkpoints

huggingface_hub = pytest.importorskip("huggingface_hub")
torch.set_num_threads(1)

TRAIN = "--memory lstm --env.max-length 5 --n-envs 4 --n-steps 8 --width 8 --stats-window-size 2"
LENGTH = "--total-timesteps 128 --checkpoint-every 64"
REPO = "someone/cue"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained to its end."""
    folder = tmp_path_factory.mktemp("trained")
    assert cli.main(["train", *TRAIN.split(), *LENGTH.split(), "--run-dir", str(folder)]) == 0
    return folder / "Corridor-v0" / "lstm" / "0"


@pytest.fixture(scope="module")
def run(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, half-way, and evaluated there."""
    folder = tmp_path_factory.mktemp("half") / "lstm"
    shutil.copytree(trained, folder)
    numbered_checkpoints(folder)[-1].unlink()
    assert cli.main(["evaluate", str(folder), "--episodes", "4", "--n-envs", "2"]) == 0
    return folder


@pytest.fixture(scope="module")
def pushed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelf") / "cue"
    assert cli.main(["push", str(run), str(folder)]) == 0
    return folder


@pytest.fixture
def copied(pushed: Path, tmp_path: Path) -> Path:
    """A folder as `pushed`, to be spoilt."""
    return Path(shutil.copytree(pushed, tmp_path / "given" / "cue"))


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Exit code 2, and one line that says why."""
    capsys.readouterr()
    assert cli.main([*map(str, args)]) == cli.WRONG_USE
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


# A folder


def test_what_goes_along(pushed: Path, run: Path) -> None:
    names = {path.relative_to(pushed).as_posix() for path in pushed.rglob("*") if path.is_file()}
    assert names == {
        *("README.md", "config.yaml", "evaluation.json", "training.png", "success.png", "replay.mp4"),
        *("checkpoints/000000000064.safetensors", "checkpoints/best.safetensors"),
    }
    here = str(run.parents[1]).encode()
    for name in names:
        data = (pushed / name).read_bytes()
        assert b"/tmp" not in data, name
        assert here not in data, name
        assert not data.startswith(b"\x80"), name
    with safe_open(pushed / "checkpoints" / "000000000064.safetensors", "pt") as file:
        assert json.loads(file.metadata()["config"])["run_dir"] == "runs"


def test_the_card_is_what_the_hub_expects(pushed: Path) -> None:
    text = (pushed / "README.md").read_text(encoding="utf-8")
    data = huggingface_hub.ModelCard(text).data
    found = Evaluation.load(pushed)
    assert data.library_name == "memspan"
    assert data.pipeline_tag == "reinforcement-learning"
    assert {"reinforcement-learning", "Corridor-v0", "lstm"} <= set(data.tags)
    measured = {result.metric_type: result.metric_value for result in data.eval_results}
    assert measured["success_rate"] == found.success_rate
    assert measured["mean_reward"] == found.mean_return
    assert measured["effective_memory"] == round(found.effective_memory, 3)
    assert {result.dataset_name for result in data.eval_results} == {"memspan/Corridor-v0"}
    for name in ("training.png", "success.png"):
        assert f"]({name})" in text
    assert "memspan train --resume agent" in text
    assert "longest_dependency: " in text


def test_a_pulled_run_is_a_run(
    pushed: Path, run: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "agent"
    assert cli.main(["pull", str(pushed), "--folder", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "64 of 128 timesteps" in out
    assert f"memspan train --resume {folder}" in out
    # The same agent, which measures the same.
    for one, other in zip(
        *(load_model(place, device="cpu")[1].policy.parameters() for place in (folder, run)), strict=True
    ):
        assert torch.equal(one, other)
    before = Evaluation.load(folder)
    assert cli.main(["evaluate", str(folder), "--episodes", "4", "--n-envs", "2"]) == 0
    assert Evaluation.load(folder).success_rate == before.success_rate
    assert Evaluation.load(folder).mean_length == before.mean_length
    assert cli.main(["watch", str(folder), "--episodes", "1", "--record", str(tmp_path / "a.gif")]) == 0
    # Gone on with, it becomes what the run became that was left alone: bit for bit.
    assert cli.main(["train", "--resume", str(folder)]) == 0
    ours, theirs = (load_file(numbered_checkpoints(place)[-1]) for place in (folder, trained))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.numpy().tobytes() == theirs[name].numpy().tobytes(), name
    # And can be passed on again.
    assert cli.main(["push", str(folder), str(tmp_path / "again"), "--no-replay"]) == 1
    assert "not after" in capsys.readouterr().err


def test_nothing_is_overwritten(
    pushed: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    assert "exists already" in refused(capsys, "push", run, tmp_path / "mine")
    assert "exists already" in refused(capsys, "pull", pushed, "--folder", tmp_path / "mine")
    assert not list((tmp_path / "mine").iterdir())


def test_without_results_and_without_ffmpeg(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("memspan.hub.pack.can_write_mp4", lambda: False)
    assert cli.main(["push", str(trained), str(tmp_path / "new")]) == 1
    results, replay = capsys.readouterr().err.splitlines()
    assert f"memspan evaluate {trained}" in results
    assert "pip install 'memspan[video]'" in replay
    assert (tmp_path / "new" / "replay.gif").is_file()
    text = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert "not been evaluated" in text
    assert "](replay.gif)" in text
    assert "model-index" not in text
    assert "--resume" not in text  # it is finished


def test_a_run_without_a_checkpoint(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    assert "no checkpoint" in refused(capsys, "push", tmp_path / "run", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# Hostile contents

NEEDED = {"config.yaml": 10, "checkpoints/best.safetensors": 10}


@pytest.mark.parametrize(
    ("name", "size", "why"),
    [
        ("../../.bashrc", 1, "leads out"),
        ("/etc/passwd", 1, "leads out"),
        ("checkpoints/../../x.safetensors", 1, "leads out"),
        ("checkpoints//x.safetensors", 1, "leads out"),
        ("..\\x", 1, "leads out"),
        ("C:x", 1, "leads out"),
        ("a\nb", 1, "leads out"),
        ("weights.pkl", 1, "pickle"),
        ("checkpoints/best.PT", 1, "pickle"),
        (".hidden/data.pth", 1, "pickle"),
        ("agent.zip", 1, "pickle"),
        ("evaluation.json", 2**30, "at most"),
    ],
)
def test_names_that_are_refused(name: str, size: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_names({**NEEDED, name: size}, "x/y")


def test_names_that_are_left_out() -> None:
    wanted, others = check_names({**NEEDED, ".gitattributes": 1, "run.py": 1, "LICENSE": 1}, "x/y")
    assert set(wanted) == set(NEEDED)
    assert others == ["LICENSE", "run.py"]
    with pytest.raises(ValueError, match="is no run"):
        check_names({"config.yaml": 1}, "x/y")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def spoil(folder: Path, what: str) -> None:
    checkpoint = folder / "checkpoints" / "000000000064.safetensors"
    config = folder / "config.yaml"
    if what == "link":
        (folder / "replay.gif").symlink_to("/etc/passwd")
    elif what == "linked folder":
        (folder / "more").symlink_to("/etc")
    elif what == "pickle in disguise":
        checkpoint.write_bytes(pickle.dumps(Bomb(folder.parent / "ran")))
    elif what == "flipped bit":
        data = bytearray(checkpoint.read_bytes())
        data[-1] ^= 1
        checkpoint.write_bytes(data)
    elif what == "aliases":
        levels = "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
        config.write_text(f"a0: &a0 [x, x]\n{levels}")
    elif what == "object":
        config.write_text(f"env: !!python/object/apply:os.system ['touch {folder.parent / 'ran'}']\n")
    elif what == "name":
        config.write_text(config.read_text().replace("name: null", "name: ../../x"))
    elif what == "no numbers":
        config.write_text(config.read_text().replace("n_envs: 4", "n_envs: [4]"))
    elif what == "escape":
        config.write_text(
            config.read_text().replace("env: memspan/", r'env: "\e]0;memspan/', 1).replace("-v0", '-v0"', 1)
        )
    elif what == "results":
        (folder / "evaluation.json").write_text("{}")
    elif what == "deep results":
        (folder / "evaluation.json").write_text("[" * 100_000)
    elif what == "words for numbers":
        told = json.loads((folder / "evaluation.json").read_text()) | {"mean_return": "much"}
        (folder / "evaluation.json").write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("link", "a link"),
        ("linked folder", "a link"),
        ("pickle in disguise", "000000000064.safetensors: damaged"),
        ("flipped bit", "SHA-256"),
        ("aliases", "config.yaml: must hold no aliases"),
        ("object", "config.yaml: not YAML"),
        ("name", "name='../../x'"),
        ("no numbers", "n_envs=[4]"),
        ("escape", "must have no control characters"),
        ("results", "evaluation.json"),
        ("deep results", "evaluation.json"),
        ("words for numbers", "mean_return='much'"),
    ],
)
def test_contents_that_are_refused(
    what: str, why: str, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(copied, what)
    line = refused(capsys, "pull", copied, "--folder", tmp_path / "taken" / "agent")
    assert why in line
    assert len(line) < 1000
    taken = tmp_path / "taken"
    assert not taken.exists() or not list(taken.iterdir())
    assert not (copied.parent / "ran").exists()


def test_what_else_is_there_is_named(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "setup.py").write_text("raise SystemExit")
    assert cli.main(["pull", str(copied), "--folder", str(tmp_path / "agent")]) == 1
    assert "left out: setup.py" in capsys.readouterr().err
    assert not (tmp_path / "agent" / "setup.py").exists()


# The Hub, but for the network


class Hub:
    """Repositories as folders; what the client's calls would do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[tuple[str, dict]] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("create_repo", "upload_folder", "model_info"):
            call = getattr(self, name)
            monkeypatch.setattr(
                huggingface_hub.HfApi, name, lambda api, *args, _c=call, **kw: _c(*args, **kw)
            )
        monkeypatch.setattr("memspan.hub.client.snapshot_download", self.snapshot_download)
        monkeypatch.setattr("memspan.hub.client.get_token", lambda: "token")

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> str:
        if (self.root / repo_id).exists() and not exist_ok:
            raise error(409)
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)
        self.calls.append(("create_repo", {"private": private}))
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, repo_id: str, folder_path: Path, **told: object) -> None:
        for pattern in told["delete_patterns"]:
            for path in (self.root / repo_id).glob(pattern):
                path.unlink()
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    def model_info(self, repo_id: str, revision: str | None, files_metadata: bool) -> SimpleNamespace:
        assert files_metadata
        folder = self.root / repo_id
        if not folder.exists():
            raise error(404)
        files = [path for path in folder.rglob("*") if path.is_file()]
        told = [
            SimpleNamespace(rfilename=path.relative_to(folder).as_posix(), size=path.stat().st_size)
            for path in files
        ]
        return SimpleNamespace(sha="c0ffee" if revision is None else revision, siblings=told)

    def snapshot_download(
        self, repo_id: str, revision: str, allow_patterns: list[str], local_dir: Path
    ) -> str:
        self.calls.append(("snapshot_download", {"revision": revision}))
        for name in allow_patterns:
            (local_dir / name).parent.mkdir(exist_ok=True)
            shutil.copy(self.root / repo_id / name, local_dir / name)
        (local_dir / ".cache").mkdir()
        (local_dir / ".cache" / "notes").touch()
        return str(local_dir)


def error(status: int) -> Exception:
    """What the client raises when the Hub refuses."""
    http = pytest.importorskip("httpx2")
    response = http.Response(status, request=http.Request("GET", "https://huggingface.co"))
    return huggingface_hub.errors.HfHubHTTPError(f"{status}\nno", response=response)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    made.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return made


def test_there_and_back(hub: Hub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["push", str(run), REPO, "--private", "--no-replay"]) == 0
    assert hub.calls == [("create_repo", {"private": True})]
    assert f"https://huggingface.co/{REPO}" in capsys.readouterr().out
    assert f"memspan pull {REPO} --folder agent" in (hub.root / REPO / "README.md").read_text()
    (hub.root / REPO / ".gitattributes").touch()
    assert cli.main(["pull", REPO]) == 0
    assert hub.calls[-1] == ("snapshot_download", {"revision": "c0ffee"})
    folder = Path("runs") / REPO
    assert read_info(numbered_checkpoints(folder)[-1]).timesteps == 64
    assert not (folder / ".cache").exists()
    assert not (folder / ".gitattributes").exists()
    assert "exists already" in refused(capsys, "pull", REPO)
    assert cli.main(["pull", REPO, "--revision", "v1", "--folder", "other"]) == 0
    assert hub.calls[-1] == ("snapshot_download", {"revision": "v1"})


def test_pushing_again(hub: Hub, run: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["push", str(run), REPO, "--no-replay"]) == 0
    assert "exists already; choose another name, or give --replace" in refused(
        capsys, "push", trained, REPO, "--no-replay"
    )
    assert cli.main(["push", str(trained), REPO, "--no-replay", "--replace"]) == 1
    # Nothing of the run before is left among the files of this one.
    assert not (hub.root / REPO / "evaluation.json").exists()
    names = sorted(path.name for path in (hub.root / REPO / "checkpoints").iterdir())
    assert names == ["000000000128.safetensors", "best.safetensors"]


def test_a_hostile_repository_is_not_downloaded(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    (hub.root / REPO).mkdir(parents=True)
    (hub.root / REPO / "model.pkl").touch()
    assert "may be a pickle" in refused(capsys, "pull", REPO)
    assert hub.calls == []
    assert not Path("runs").exists()


def test_when_the_hub_refuses(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "404" in refused(capsys, "pull", "no/body")

    def unreachable(*args: object, **kwargs: object) -> None:
        raise pytest.importorskip("httpx2").ConnectError("no route\nto host")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    assert "no route to host" in refused(capsys, "pull", REPO)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", unreachable)
    assert "no route to host" in refused(capsys, "push", run, REPO, "--no-replay")
    monkeypatch.setattr("memspan.hub.client.get_token", lambda: None)
    assert "hf auth login" in refused(capsys, "push", run, REPO, "--no-replay")


@pytest.mark.parametrize("place", ["cue", "a/b/c", "a b/c", ""])
def test_places_that_are_none(place: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["push", run, place], ["pull", place]):
        assert "must be OWNER/NAME" in refused(capsys, *args)


def test_without_the_extra(
    run: Path,
    pushed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("memspan.hub.client", "memspan.hub.card", "memspan.hub.pack"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for args in (["push", run, tmp_path / "new"], ["pull", REPO, "--folder", tmp_path / "new"]):
        assert "pip install 'memspan[hub]'" in refused(capsys, *args)
    # A folder needs none.
    assert cli.main(["pull", str(pushed), "--folder", str(tmp_path / "new")]) == 0
