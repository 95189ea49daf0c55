"""From a run's folder to one to pass on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from safetensors import safe_open
from safetensors.torch import save_file

from memspan.agents.files import write_atomically
from memspan.evaluation.curves import Curves
from memspan.evaluation.figures import success_by_difficulty
from memspan.evaluation.panels import save_figure
from memspan.evaluation.results import FILE_NAME, Evaluation
from memspan.evaluation.training_figure import training_figure
from memspan.hub.card import Card
from memspan.runs import RunConfig, checkpoint_path, load_config, load_model, read_info, save_config
from memspan.runs.checkpoint import digest
from memspan.runs.environments import environment_spec
from memspan.runs.folder import BEST, CHECKPOINTS
from memspan.show.environments import make_rendered_env
from memspan.show.frames import Player
from memspan.show.memory_picture import draw_frame
from memspan.show.video import Recorder, can_write_mp4

CARD = "README.md"
EPISODES = 3
MOST_FRAMES = 1000
"""Of a replay; what comes after is left out."""
FPS = 8.0
HOLD = 1.5
SEED = 1_000_000
HERE = {"run_dir": "runs", "device": "auto"}
"""Settings of the machine that trained, and what goes along in their place."""


def pack(
    run: Path, folder: Path, repo: str | None, replay: bool, tell: Callable[[str], None]
) -> tuple[RunConfig, list[str]]:
    """Writes a run to an empty folder, to pass it on.

    Args:
        run: its folder.
        folder: where to write.
        repo: OWNER/NAME of the repository that it goes to, for the card; None: none.
        replay: whether episodes are played and recorded.
        tell: told what is being done.

    Returns:
        The run's settings as they are passed on, and a line for each thing that is missing.

    Raises:
        ValueError: the run has no checkpoint, or one of its files is damaged.
    """
    config = dataclasses.replace(load_config(run), run_dir=Path(HERE["run_dir"]), device=HERE["device"])
    last = checkpoint_path(run)
    info = read_info(last)
    missing: list[str] = []
    save_config(config, folder)
    steps = {info.timesteps}
    copy_checkpoint(last, folder / CHECKPOINTS / last.name)
    if (run / CHECKPOINTS / BEST).is_file():
        steps.add(read_info(run / CHECKPOINTS / BEST).timesteps)
        copy_checkpoint(run / CHECKPOINTS / BEST, folder / CHECKPOINTS / BEST)
    evaluation = _evaluation(run, steps, missing)
    if evaluation is not None:
        evaluation.save(folder)
        if evaluation.success_by_difficulty or evaluation.success_by_length:
            _save_png(success_by_difficulty([evaluation]), folder / "success")
    tell("curves")
    curves = Curves(run)
    curves.read()
    if curves.points:
        _save_png(training_figure(curves, config.memory), folder / "training")
    if replay:
        try:
            record(run, folder / ("replay.mp4" if can_write_mp4() else "replay.gif"), tell)
        except ValueError as error:
            missing.append(f"no replay: {error}")
        else:
            if not can_write_mp4():
                missing.append("replay.gif in place of replay.mp4, which needs: pip install 'memspan[video]'")
    files = frozenset(path.name for path in folder.iterdir())
    (folder / CARD).write_text(str(Card(config, info.timesteps, evaluation, files, repo)), encoding="utf-8")
    return config, missing


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copies a checkpoint with `HERE` in its settings, so that no path of this machine goes along."""
    with safe_open(source, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | HERE)
    if "sha256" in metadata:
        metadata["sha256"] = digest(tensors, metadata)
    write_atomically(target, lambda name: save_file(tensors, name, metadata))


def record(run: Path, path: Path, tell: Callable[[str], None]) -> None:
    """Plays episodes with a run's last weights into a video.

    Raises:
        ValueError: its environment draws no pictures.
    """
    config, model = load_model(run, device="cpu")
    torch.set_num_threads(config.threads)
    torch.manual_seed(SEED)
    env = make_rendered_env(environment_spec(config.env), config.env_kwargs, "window")
    player = Player(config, model.policy, env, SEED)
    try:
        with Recorder(path, FPS) as recorder:
            for number, frame in enumerate(player.frames(EPISODES, deterministic=False)):
                recorder.add(draw_frame(frame, player.longest), HOLD if frame.outcome else 0.0)
                tell(f"{path.name}: episode {frame.episode} of {EPISODES}, step {frame.step}")
                if number + 1 == MOST_FRAMES:
                    break
            tell(f"{path.name}: writing")
    finally:
        player.env.close()


def _evaluation(run: Path, steps: set[int], missing: list[str]) -> Evaluation | None:
    """The run's evaluation, if there is one and it is of weights that go along."""
    if not (run / FILE_NAME).is_file():
        missing.append(f"no results: {run} was not evaluated; `memspan evaluate {run}` does it")
        return None
    evaluation = Evaluation.load(run)
    if evaluation.timesteps not in steps:
        missing.append(
            f"no results: those of {run} are of weights after {evaluation.timesteps} steps, not after "
            f"{' or '.join(map(str, sorted(steps)))}; `memspan evaluate {run}` makes them anew"
        )
        return None
    return evaluation


def _save_png(figure: Figure, path: Path) -> None:
    for file in save_figure(figure, path):
        if file.suffix != ".png":
            file.unlink()
