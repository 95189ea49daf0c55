"""`memspan train`: trains an agent and leaves a run folder behind."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.text import Text
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger

from memspan.agents import MemoryPPO
from memspan.agents.distributed import ALONE, LostProcessError, Processes, joined
from memspan.agents.faults import BadNumbersError, EnvironmentFaultError
from memspan.agents.files import remove_leftovers
from memspan.runs import RunConfig, load_config, make_env, make_model, read_info, run_folder, save_config
from memspan.runs.build import spread_seed
from memspan.runs.callbacks import (
    CheckpointCallback,
    StopCallback,
    recent_return,
    recent_success,
    remove_old_checkpoints,
)
from memspan.runs.checkpoint import FORMATS, SUFFIX, resume_checkpoint
from memspan.runs.checks import check_config, share_of_envs
from memspan.runs.events import ContinuedTensorBoard
from memspan.runs.flags import parse
from memspan.runs.folder import CHECKPOINTS, CONFIG, last_whole_checkpoint
from memspan.runs.progress import ProgressCallback, short_count
from memspan.runs.tracking import check_project, end_tracking, remember_project, start_tracking

INTERRUPTED = 130
FAILED = 1


@dataclasses.dataclass(frozen=True)
class Resume:
    """Go on with a run as if it had never stopped."""

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
    project, args = _take_project(args)
    config = parse(args, prog="memspan train")
    folder = run_folder(config)
    return _train_together(config, folder, new=True, project=project)


def _take_project(args: Sequence[str]) -> tuple[str | None, list[str]]:
    """The project of `--wandb`, which is no setting of a run, and the other flags.

    Raises:
        ValueError: it can be no project's name.
    """
    parser = argparse.ArgumentParser(prog="memspan train", add_help=False, allow_abbrev=False)
    parser.add_argument("--wandb", metavar="PROJECT")
    told, others = parser.parse_known_args(args)
    if told.wandb is not None:
        check_project(told.wandb)
    return told.wandb, others


def resume(folder: Path) -> int:
    """Goes on with the run in `folder`."""
    return _train_together(load_config(folder), folder, new=False)


def _train_together(config: RunConfig, folder: Path, new: bool, project: str | None = None) -> int:
    """Trains with all processes that there are; nothing is written before each has checked the settings.

    Args:
        config: the run's settings.
        folder: where it is.
        new: whether it begins.
        project: of Weights & Biases, to be shown in.
    """
    try:
        with joined(config.device, config.process_timeout) as processes:
            with processes.together():
                check_config(config)
                share_of_envs(config, processes.size)
            with processes.together():
                if new and processes.is_first:
                    save_config(config, folder)
                    if project is not None:
                        remember_project(folder, project)
            return train(config, folder, processes=processes)
    except LostProcessError as error:
        # Not after something was printed about it already, where a run had begun.
        print(f"memspan: {error}", file=sys.stderr)
        return FAILED


class AlreadyFinishedError(ValueError):
    """The run has all its steps."""


def train(
    config: RunConfig, folder: Path, callbacks: Sequence[BaseCallback] = (), processes: Processes = ALONE
) -> int:
    """Trains in a run's folder, from its last checkpoint if it has one.

    Args:
        config: the run's settings.
        folder: where it is.
        callbacks: what else is to be called; they may look, but change nothing.
        processes: those that train together; the first writes files and tells how it goes.

    Raises:
        AlreadyFinishedError: there is nothing left to train.
        ValueError: the checkpoint does not fit.
    """
    console = Console(highlight=False, quiet=not processes.is_first)
    with processes.together():
        last = _last_checkpoint(config, folder, console) if processes.is_first else None
        (last, *_) = processes.exchange(last)
    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)
    model = make_model(config, make_env(config, share_of_envs(config, processes.size)))
    if processes.size > 1:
        model.learn_with(processes)
    logger = Logger(str(folder), [])
    model.set_logger(logger)
    if last is not None and not resume_checkpoint(model, config, last):
        # Not the same episodes and draws once more.
        model.set_random_seed(spread_seed(config.seed, model.num_timesteps))
        _print(console, f"{_why_anew(config, last)}: its episodes start anew.")
    code, tracked = FAILED, start_tracking(config, folder) if processes.is_first else None
    try:
        if processes.is_first:
            logger.output_formats.append(ContinuedTensorBoard(folder, model.num_timesteps))
        code = _learn(model, config, folder, console, callbacks)
    finally:
        end_tracking(tracked, code)
    return code


def _last_checkpoint(config: RunConfig, folder: Path, console: Console) -> Path | None:
    """What to go on from, once the folder is as a run that was not killed would have left it.

    Raises:
        AlreadyFinishedError: the run is finished.
        ValueError: no checkpoint is whole.
    """
    remove_leftovers(folder, CONFIG)
    remove_leftovers(folder / CHECKPOINTS, SUFFIX)
    last, damaged = last_whole_checkpoint(folder)
    if last is None:
        return None
    timesteps = read_info(last).timesteps
    remove_old_checkpoints(config, folder, timesteps)
    if timesteps >= config.total_timesteps:
        raise AlreadyFinishedError(
            f"{folder}: finished already, at {timesteps} of {config.total_timesteps} timesteps"
        )
    for line in damaged:
        _print(console, f"{line}; going on from {last.name}")
    return last


def _why_anew(config: RunConfig, checkpoint: Path) -> str:
    if read_info(checkpoint).format != FORMATS[0]:
        return f"{config.env} cannot save where it is"
    return f"{checkpoint.name} is of a format that did not hold the environments"


def _learn(
    model: MemoryPPO, config: RunConfig, folder: Path, console: Console, callbacks: Sequence[BaseCallback]
) -> int:
    many = f", {model.processes.size} processes" if model.processes.size > 1 else ""
    title = f"{config.memory} on {config.env}, seed {config.seed}{many} -> {folder}"
    progress = ProgressCallback(title, console)
    checkpoints = CheckpointCallback(config, folder)
    stop = StopCallback(patient=model.processes.size > 1)
    try:
        with stop.listening():
            model.learn(
                config.total_timesteps - model.num_timesteps,
                CallbackList([checkpoints, progress, *callbacks, stop]),
                reset_num_timesteps=False,
            )
    except KeyboardInterrupt:
        progress.close()
        if model.processes.stopped_together:
            checkpoints.save()
        _print(
            console, f"Stopped at {checkpoints.learnt} timesteps. Go on with: memspan train --resume {folder}"
        )
        return INTERRUPTED
    except (BadNumbersError, EnvironmentFaultError, LostProcessError, OSError) as error:
        progress.close()
        if model.processes.stopped_together:
            with contextlib.suppress(OSError, BadNumbersError, LostProcessError):
                checkpoints.save()
        return _failed(console, error, folder)
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


def _failed(console: Console, error: Exception, folder: Path) -> int:
    """Says what went wrong and what there is to go on from."""
    if isinstance(error, LostProcessError):
        console = Console(highlight=False)  # the first process may be the one that is gone
    _print(console, f"Stopped: {' '.join(str(error).split())}")
    if error.__cause__ is not None:
        # Of several processes the one where it happened.
        _print(Console(highlight=False), "".join(traceback.format_exception(error.__cause__)).rstrip())
    last, _ = last_whole_checkpoint(folder)
    if last is not None:
        _print(console, f"Last good checkpoint: {last}. Go on with: memspan train --resume {folder}")
    return FAILED


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
