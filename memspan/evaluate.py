"""`memspan evaluate`: measures trained agents and draws success rate against effective memory size.

With `--env.NAME` and `--memory.NAME` an agent is measured beyond its training: in longer corridors, with a
longer window. Such results do not replace those of the task that it was trained on; they go to
`<run>/beyond/<what is different>/evaluation.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional

from memspan.evaluation import (
    Evaluation,
    check_figure_path,
    comparison_tables,
    play_episodes,
    provenance,
    results_tables,
    save_figure,
    show_progress,
    success_against_memory,
    success_by_difficulty,
    summarise,
    write_events,
)
from memspan.evaluation.episodes import OnProgress
from memspan.evaluation.results import FILE_NAME
from memspan.memory import make_config
from memspan.runs import (
    LEFT_OUT,
    CheckpointInfo,
    RunConfig,
    checkpoint_path,
    lines_of,
    load_config,
    load_model,
    make_env,
    read_info,
    scan_runs,
    spread_seed,
)
from memspan.runs.beyond import TRAINED, Beyond, settings_by_run, split_settings
from memspan.runs.checkpoint import as_plain
from memspan.runs.config import NOT_SETTINGS
from memspan.runs.environments import environment_spec
from memspan.runs.folder import CONFIG

COLUMNS = 100
"""Width of what is printed where there is no terminal to ask."""
LARGEST_SEED = 2**32


@dataclass(frozen=True)
class Options:
    """Measure trained agents and draw their success rate against their effective memory size.

    Beyond training: --env.NAME VALUE and --memory.NAME VALUE, like --env.max-length 1000, put other settings
    of the environment and the memory in place of those that an agent was trained with.
    """

    runs: Positional[tuple[Path, ...]]
    """Run folders, or folders with run folders somewhere below."""
    episodes: int = 1000
    """Episodes per run."""
    seed: int = 1_000_000
    """Environment i is seeded with this plus i; never with a seed of the training."""
    n_envs: int = 64
    """Environments side by side."""
    checkpoint: Literal["last", "best"] = "last"
    """Which weights: of the end, or of the best rolling success rate while training."""
    deterministic: bool = False
    """Take the most probable action, instead of drawing one as in training."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    reuse: bool = False
    """Do not play runs again that have an evaluation.json, however it was made; only show and draw it."""
    figure: Path | None = None
    """Draw success against memory to this path, with .png and with .svg."""
    difficulty_figure: Path | None = None
    """Draw success by length, room or delay to this path, with .png and with .svg."""
    compare: bool = False
    """Print how sure the order of the memories is, and what they reach over several tasks."""
    chance: float | None = None
    """Success rate to mark in the figures; by default the best without memory, where that is known."""

    def validate(self) -> None:
        """Raises ValueError that names the option, its value and what is allowed."""
        if not self.runs:
            raise ValueError("runs: must name at least one run folder")
        for name in ("episodes", "n_envs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.seed <= LARGEST_SEED - self.n_envs:
            raise ValueError(f"seed={self.seed}: must be from 0 to {LARGEST_SEED - self.n_envs}")
        if self.chance is not None and not 0 <= self.chance <= 1:
            raise ValueError(f"chance={self.chance}: must be from 0 to 1")
        for path in (self.figure, self.difficulty_figure):
            if path is not None:
                check_figure_path(path)


def main(args: Sequence[str] | None = None) -> int:
    """Evaluates; returns the exit code: 1 where a run is damaged or foreign and was left out, otherwise 0.

    Raises:
        ValueError: an option is wrong, or no run is left.
    """
    settings, others = split_settings(sys.argv[1:] if args is None else args)
    options = tyro.cli(Options, prog="memspan evaluate", args=others, config=(FlagCreatePairsOff,))
    options.validate()
    configs, left_out = scan_runs(options.runs, load_known if any(settings.values()) else load_config)
    beyond = settings_by_run(configs, settings)
    where = {folder: folder / one.folder for folder, one in beyond.items()}

    def read(folder: Path) -> Evaluation | None:
        if options.reuse and (where[folder] / FILE_NAME).is_file():
            return with_new_settings(Evaluation.load(where[folder]))
        check_run(folder, options)
        return None

    found, cannot = scan_runs(configs, read)
    left_out |= cannot
    results = {folder: evaluation for folder, evaluation in found.items() if evaluation is not None}
    to_play = [folder for folder in found if folder not in results]
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = COLUMNS
    for i, folder in enumerate(to_play):
        try:
            with show_progress(
                console, f"[{i + 1}/{len(to_play)}] {folder}", options.episodes
            ) as on_progress:
                results[folder] = evaluate_run(folder, options, on_progress, beyond[folder])
        except ValueError as error:
            left_out[folder] = str(error)
            continue
        where[folder].mkdir(parents=True, exist_ok=True)
        results[folder].save(where[folder])
        console.print(f"{folder}: {_in_short(results[folder])}", soft_wrap=True, markup=False)
    if not results:
        raise ValueError(left_out[to_play[0]])
    _show(console, {where[folder]: results[folder] for folder in found if folder in results}, options)
    for line in lines_of(left_out):
        print(f"memspan: {line}", file=sys.stderr)
    return LEFT_OUT if left_out else 0


def load_known(folder: Path) -> RunConfig:
    """A run's configuration, its environment and its memory known here.

    Raises:
        ValueError: it is damaged or foreign.
    """
    config = load_config(folder)
    environment_spec(config.env)
    make_config(config.memory, config.memory_kwargs)
    return config


def check_run(folder: Path, options: Options) -> None:
    """What can be told to be wrong before anything is played.

    Raises:
        ValueError: no run folder, no whole checkpoint, or environments that training had seeded alike.
    """
    config = load_known(folder)
    read_info(checkpoint_path(folder, options.checkpoint))
    check_seeds(config, options, str(folder))


def check_seeds(config: RunConfig, options: Options, where: str) -> None:
    """Raises ValueError for environments that training seeds as the evaluation does.

    Args:
        config: of the training.
        options: of the evaluation.
        where: the run's name in the message.
    """
    trained = spread_seed(config.seed)
    if trained < options.seed + options.n_envs and options.seed < trained + config.n_envs:
        raise ValueError(
            f"seed={options.seed}: must be clear of the training's seeds {trained} to "
            f"{trained + config.n_envs - 1} ({where})"
        )


def evaluate_run(
    folder: Path, options: Options, on_progress: OnProgress | None = None, beyond: Beyond = TRAINED
) -> Evaluation:
    """Plays a run's agent and sums it up.

    Args:
        folder: the run.
        options: how.
        on_progress: see `play_episodes`.
        beyond: settings in place of those of the training.

    Raises:
        ValueError: the run cannot be loaded.
        RuntimeError: playing failed.
    """
    config, model = load_model(
        folder, options.checkpoint, options.device, beyond.env_kwargs, beyond.memory_kwargs
    )
    info = read_info(checkpoint_path(folder, options.checkpoint))
    torch.set_num_threads(config.threads)
    torch.manual_seed(options.seed)
    n_envs = min(options.n_envs, options.episodes)
    try:
        env = make_env(config, n_envs, options.seed)
        try:
            played = play_episodes(model.policy, env, options.episodes, options.deterministic, on_progress)
        finally:
            env.close()
    except ValueError as error:
        # What could be wrong about the use was checked: this is a fault, and its traceback is needed.
        raise RuntimeError(f"{folder}: evaluation failed") from error
    measured = summarise(played) | {"capacity": model.policy.memory.capacity}
    return _describe(config, info, options, n_envs, measured)


def _describe(
    config: RunConfig, info: CheckpointInfo, options: Options, n_envs: int, measured: dict[str, object]
) -> Evaluation:
    plain = as_plain(config)
    return Evaluation(
        env=config.env.rpartition(":")[2],
        memory=config.memory,
        name=config.name or config.memory.rpartition(":")[2],
        seed=config.seed,
        timesteps=info.timesteps,
        checkpoint=options.checkpoint,
        deterministic=options.deterministic,
        evaluation_seed=options.seed,
        n_envs=n_envs,
        env_kwargs=plain["env_kwargs"],
        memory_kwargs=plain["memory_kwargs"],
        settings=_settings(plain),
        **measured,  # type: ignore[arg-type]
        **provenance(),  # type: ignore[arg-type]
    )


def with_new_settings(run: Evaluation) -> Evaluation:
    """With the defaults of settings that are newer than the evaluation: by those, runs do not differ."""
    config = RunConfig(env=run.env, memory=run.memory)
    try:
        plain = as_plain(replace(config, memory_kwargs=run.memory_kwargs))
    except ValueError:  # a memory that is not at hand, or no longer has these settings
        plain = asdict(config) | {"memory_kwargs": run.memory_kwargs}
    return replace(run, memory_kwargs=plain["memory_kwargs"], settings=_settings(plain) | run.settings)


def _settings(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if key not in NOT_SETTINGS}


def _in_short(run: Evaluation) -> str:
    rate = run.success_rate
    result = f"mean return {run.mean_return:.2f}" if rate is None else f"success rate {rate:.3f}"
    return f"{result}, effective memory {run.effective_memory:.1f}"


def _show(console: Console, results: dict[Path, Evaluation], options: Options) -> None:
    """Table, figures, TensorBoard."""
    runs = list(results.values())
    for table in [*results_tables(runs), *(comparison_tables(runs) if options.compare else ())]:
        console.print(table)
    files: list[Path] = []
    if options.figure is not None:
        files += save_figure(success_against_memory(runs, options.chance), options.figure)
    image = files[0] if files else None
    if options.difficulty_figure is not None:
        files += save_figure(success_by_difficulty(runs, options.chance), options.difficulty_figure)
    for folder, run in results.items():
        if (folder / CONFIG).is_file():  # what lies beyond training has no curves to stand beside
            write_events(folder, run, image)
    for file in files:
        console.print(f"Figure: {file}", soft_wrap=True, markup=False)
