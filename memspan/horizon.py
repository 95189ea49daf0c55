"""`memspan horizon`: how far back trained agents remember, measured by what they do."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tyro.conf import FlagCreatePairsOff, Positional

from memspan.agents import MemoryPolicy
from memspan.evaluation import check_figure_path, provenance, save_figure
from memspan.evaluation.horizon import FILE_NAME, Horizon, find_horizon
from memspan.evaluation.horizon_figures import influence_of_steps, success_against_horizon
from memspan.evaluation.occlusion import Occlusion, occlude
from memspan.runs import (
    LEFT_OUT,
    RunConfig,
    checkpoint_path,
    lines_of,
    load_config,
    load_model,
    make_env,
    read_info,
    scan_runs,
)
from memspan.runs.checkpoint import as_plain

COLUMNS = 100
LARGEST_SEED = 2**32


@dataclass(frozen=True)
class Options:
    """Measure how far back trained agents remember.

    Before each decision the memory is made empty and shown the last k observations only. The memory horizon
    is the smallest k with which 99 % of the success is kept. It goes to each run's horizon.json.
    """

    runs: Positional[tuple[Path, ...]]
    """Run folders, or folders with run folders somewhere below."""
    episodes: int = 200
    """Episodes for each k."""
    seed: int = 2_000_000
    """Environment i is seeded with this plus i."""
    n_envs: int = 64
    """Environments side by side."""
    checkpoint: Literal["last", "best"] = "last"
    """Which weights: of the end, or of the best rolling success rate while training."""
    deterministic: bool = False
    """Take the most probable action, instead of drawing one as in training."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    reuse: bool = False
    """Do not play runs again that have a horizon.json; only show and draw it."""
    figure: Path | None = None
    """Draw success over k to this path, with .png and with .svg."""
    influence_figure: Path | None = None
    """Hide each step of an episode in turn, and draw to this path what that changes, with .png and .svg."""

    def validate(self) -> None:
        """Raises ValueError that names the option, its value and what is allowed."""
        if not self.runs:
            raise ValueError("runs: must name at least one run folder")
        for name in ("episodes", "n_envs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.seed <= LARGEST_SEED - self.n_envs:
            raise ValueError(f"seed={self.seed}: must be from 0 to {LARGEST_SEED - self.n_envs}")
        for path in (self.figure, self.influence_figure):
            if path is not None:
                check_figure_path(path)


def main(args: Sequence[str] | None = None) -> int:
    """Measures; returns the exit code: 1 where a run is damaged or foreign and was left out, otherwise 0.

    Raises:
        ValueError: an option is wrong, or no run is left.
    """
    options = tyro.cli(
        Options,
        prog="memspan horizon",
        args=list(sys.argv[1:] if args is None else args),
        config=(FlagCreatePairsOff,),
    )
    options.validate()

    def read(folder: Path) -> Horizon | None:
        reused = options.reuse and (folder / FILE_NAME).is_file()
        if options.influence_figure is not None or not reused:
            load_config(folder)
            read_info(checkpoint_path(folder, options.checkpoint))
        return Horizon.load(folder) if reused else None

    folders, left_out = scan_runs(options.runs, read)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = COLUMNS
    found: list[Horizon] = []
    hidden: list[tuple[str, str, Occlusion]] = []
    for i, (folder, known) in enumerate(folders.items()):
        title = f"[{i + 1}/{len(folders)}] {folder}"
        try:
            one = known or measure(folder, options, console, title)
            if known is None:
                one.save(folder)
                console.print(f"{folder}: {_in_short(one)}", soft_wrap=True, markup=False)
            found.append(one)
            if options.influence_figure is not None:
                with console.status(Text(f"{title}: hiding steps")):
                    hidden.append(_hide(folder, options))
        except ValueError as error:
            left_out[folder] = str(error)
    if not found:
        raise ValueError(next(iter(left_out.values())))
    console.print(_table(found))
    files: list[Path] = []
    if options.figure is not None:
        files += save_figure(success_against_horizon(found), options.figure)
    if options.influence_figure is not None and hidden:
        files += save_figure(influence_of_steps(hidden), options.influence_figure)
    for file in files:
        console.print(f"Figure: {file}", soft_wrap=True, markup=False)
    for line in lines_of(left_out):
        print(f"memspan: {line}", file=sys.stderr)
    return LEFT_OUT if left_out else 0


def measure(folder: Path, options: Options, console: Console, title: str) -> Horizon:
    """The horizon of one run.

    Raises:
        ValueError: the run cannot be loaded.
    """
    config, policy = _load(folder, options)
    info = read_info(checkpoint_path(folder, options.checkpoint))
    n_envs = min(options.n_envs, options.episodes)
    start = time.monotonic()
    with console.status(Text(title)) as status:

        def tell(what: str, done: int) -> None:
            text = f"{title}: {what}, {done} of {options.episodes} episodes"
            if console.is_terminal:
                status.update(Text(text))
            elif done == options.episodes:
                console.print(f"{text}, {time.monotonic() - start:.0f} s", soft_wrap=True, markup=False)

        try:
            told = find_horizon(
                policy,
                lambda: make_env(config, n_envs, options.seed),
                options.episodes,
                options.deterministic,
                tell,
                options.seed,
            )
        except ValueError as error:  # a fault and no damaged run: its traceback is needed
            raise RuntimeError(f"{folder}: measuring failed") from error
    plain = as_plain(config)
    return Horizon(
        env=config.env.rpartition(":")[2],
        memory=config.memory,
        name=config.name or config.memory.rpartition(":")[2],
        seed=config.seed,
        timesteps=info.timesteps,
        evaluation_seed=options.seed,
        deterministic=options.deterministic,
        env_kwargs=plain["env_kwargs"],
        memory_kwargs=plain["memory_kwargs"],
        **told,
        **provenance(),  # type: ignore[arg-type]
    )


def _load(folder: Path, options: Options) -> tuple[RunConfig, MemoryPolicy]:
    config, model = load_model(folder, options.checkpoint, options.device)
    torch.set_num_threads(config.threads)
    return config, model.policy


def _hide(folder: Path, options: Options) -> tuple[str, str, Occlusion]:
    config, policy = _load(folder, options)
    torch.manual_seed(options.seed)
    env = make_env(config, 1, options.seed)
    try:
        found = occlude(policy, env, options.deterministic)
    finally:
        env.close()
    name = "/".join(folder.resolve().parts[-3:])
    outcome = {True: "success", False: "failure", None: "cut off"}[found.success]
    memory = load_config(folder).memory
    return f"{name}: {outcome} after {len(found.influence)} steps", memory, found


def _in_short(one: Horizon) -> str:
    what = "success rate" if one.tells_success else "mean return"
    far = "no horizon" if one.horizon is None else f"horizon {one.horizon} steps"
    return f"{what} {one.full:.3f}, {far}"


def _table(found: Sequence[Horizon]) -> Table:
    table = Table(
        caption="horizon: the fewest past steps that keep 99 % of the success",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    for name in ("environment", "name"):
        table.add_column(name, overflow="fold")
    for name in ("seed", "success", "at k = 0", "horizon"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        table.add_row(
            Text(one.env),
            Text(one.name),
            str(one.seed),
            f"{one.full:.3f}",
            f"{one.points[0].score:.3f}",
            "-" if one.horizon is None else str(one.horizon),
        )
    return table
