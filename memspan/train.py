"""`memspan train`: trains an agent and leaves a run folder behind."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.text import Text
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from torch.utils.tensorboard import SummaryWriter

from memspan.agents import MemoryPPO
from memspan.runs import (
    RunConfig,
    load_checkpoint,
    load_config,
    make_env,
    make_model,
    run_folder,
    save_config,
)
from memspan.runs.build import spread_seed
from memspan.runs.callbacks import CheckpointCallback, StopCallback, recent_return, recent_success
from memspan.runs.checks import check_config
from memspan.runs.flags import parse
from memspan.runs.folder import checkpoint_path, numbered_checkpoints
from memspan.runs.progress import ProgressCallback, short_count

INTERRUPTED = 130


@dataclasses.dataclass(frozen=True)
class Resume:
    """Go on with a run as if it had never stopped; only the environments start anew."""

    resume: Path
    """Folder of the run; its settings are those it was started with."""


def main(args: Sequence[str] | None = None) -> int:
    """Trains; returns the exit code.

    Raises:
        ValueError: a setting or a file is wrong.
    """
    args = list(sys.argv[1:] if args is None else args)
    if any(arg == "--resume" or arg.startswith("--resume=") for arg in args):
        parsed, others = tyro.cli(Resume, prog="memspan train", args=args, return_unknown_args=True)
        if others:
            raise ValueError(
                f"{others[0]}: --resume takes no other flag; a run goes on with its own settings"
            )
        return resume(parsed.resume)
    config = parse(args, prog="memspan train")
    check_config(config)
    folder = run_folder(config)
    save_config(config, folder)
    return train(config, folder)


def resume(folder: Path) -> int:
    """Goes on with the run in `folder`."""
    config = load_config(folder)
    check_config(config)
    return train(config, folder)


def train(config: RunConfig, folder: Path) -> int:
    """Trains in a run's folder, from its last checkpoint if it has one.

    Raises:
        ValueError: the checkpoint does not fit.
    """
    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)
    model = make_model(config, make_env(config))
    if numbered_checkpoints(folder):
        info = load_checkpoint(model, config, checkpoint_path(folder))
        if info.timesteps >= config.total_timesteps:
            raise ValueError(
                f"{folder}: finished already, at {info.timesteps} of {config.total_timesteps} timesteps"
            )
        # Not the same episodes and draws once more.
        model.set_random_seed(spread_seed(config.seed, info.timesteps))
    model.set_logger(Logger(str(folder), [_ContinuedTensorBoard(folder, model.num_timesteps)]))
    return _learn(model, config, folder)


class _ContinuedTensorBoard(TensorBoardOutputFormat):
    """TensorBoard from a step on: what a killed run wrote after its last checkpoint is taken back."""

    def __init__(self, folder: Path, timesteps: int) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=timesteps + 1 if timesteps else None)
        self._is_closed = False


def _learn(model: MemoryPPO, config: RunConfig, folder: Path) -> int:
    console = Console(highlight=False)
    title = f"{config.memory} on {config.env}, seed {config.seed} -> {folder}"
    progress = ProgressCallback(title, console)
    checkpoints = CheckpointCallback(config, folder)
    stop = StopCallback()
    try:
        with stop.listening():
            model.learn(
                config.total_timesteps - model.num_timesteps,
                CallbackList([checkpoints, progress, stop]),
                reset_num_timesteps=False,
            )
    except KeyboardInterrupt:
        progress.close()
        checkpoints.save()
        _print(
            console, f"Stopped at {checkpoints.learnt} timesteps. Go on with: memspan train --resume {folder}"
        )
        return INTERRUPTED
    except ValueError as error:
        # Settings were checked: what goes wrong now is no wrong use, and its traceback is needed.
        raise RuntimeError("training failed") from error
    finally:
        progress.close()
        model.logger.close()
        assert model.env is not None
        model.env.close()
    _summarise(console, model, progress, folder)
    return 0


def _summarise(console: Console, model: MemoryPPO, progress: ProgressCallback, folder: Path) -> None:
    success, mean_return = recent_success(model), recent_return(model)
    parts = [f"Trained {short_count(model.num_timesteps)} steps at {short_count(progress.overall_speed)}/s"]
    if success is not None:
        parts.append(f"success rate {success:.3f}")
    elif mean_return is not None:
        parts.append(f"mean return {mean_return:.2f}")
    parts.append(f"effective memory {progress.effective_memory:.1f}")
    _print(console, ", ".join(parts) + ".")
    _print(console, f"Run:      {folder}")
    _print(console, f"Evaluate: memspan evaluate {folder}")


def _print(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
