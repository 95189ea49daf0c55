"""`memspan watch`: a trained agent at work, and what it remembers at every step."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional

from memspan.runs import load_model
from memspan.runs.environments import environment_spec
from memspan.show.environments import Render, make_rendered_env, short
from memspan.show.frames import Frame, Player
from memspan.show.memory_picture import draw_frame
from memspan.show.memory_text import memory_lines
from memspan.show.pace import MOST_FPS, Pace
from memspan.show.screen import open_screen
from memspan.show.video import Recorder, check_video_path

INTERRUPTED = 130
HOLD = 1.5
"""Seconds for which the end of an episode is shown."""
LARGEST_SEED = 2**32 - 1
KEYS = "space pause   right step   + - speed   q quit"


@dataclass(frozen=True)
class Options:
    """Watch a trained agent, and what it still remembers at every step."""

    run: Positional[Path]
    """Folder of the run."""
    episodes: int = 3
    """Episodes to play."""
    seed: int = 1_000_000
    """Of the environment and of drawn actions."""
    checkpoint: Literal["last", "best"] = "last"
    """Which weights: of the end, or of the best rolling success rate while training."""
    record: Path | None = None
    """Write a video to this file, .gif or .mp4, instead of showing it; with --render window, show it too."""
    fps: float = 8.0
    """Steps per second."""
    deterministic: bool = False
    """Take the most probable action, instead of drawing one as in training."""
    render: Render | None = None
    """In a window, or as text in this terminal; by default a window, or nothing while recording."""

    def validate(self) -> None:
        """Raises ValueError that names the option, its value and what is allowed."""
        if self.episodes < 1:
            raise ValueError(f"episodes={self.episodes}: must be at least 1")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"seed={self.seed}: must be from 0 to {LARGEST_SEED}")
        if not 0 < self.fps <= MOST_FPS:
            raise ValueError(f"fps={self.fps:g}: must be above 0 and at most {MOST_FPS:g}")
        if self.record is not None:
            if self.render == "ansi":
                raise ValueError("render='ansi': must be 'window', or left out, while recording")
            check_video_path(self.record)


def main(args: Sequence[str] | None = None) -> int:
    """Plays and shows episodes; returns the exit code.

    Raises:
        ValueError: an option or the run is wrong, or there is no display.
    """
    options = tyro.cli(
        Options,
        prog="memspan watch",
        args=list(sys.argv[1:] if args is None else args),
        config=(FlagCreatePairsOff,),
    )
    options.validate()
    config, model = load_model(options.run, options.checkpoint, device="cpu")
    torch.set_num_threads(config.threads)
    torch.manual_seed(options.seed)
    render: Render = options.render or "window"
    env = make_rendered_env(environment_spec(config.env), config.env_kwargs, render)
    player = Player(config, model.policy, env, options.seed)
    told: list[str] = []
    frames = _tell(player.frames(options.episodes, options.deterministic), told)
    try:
        if options.record is not None:
            _record(frames, player, options, told)
        else:
            _present(frames, player, options, render)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        player.env.close()
    if options.record is None:
        print("\n".join(told) or "No episode was finished.")
    return 0


def _tell(frames: Iterator[Frame], told: list[str]) -> Iterator[Frame]:
    """Passes frames on, and adds a line to `told` for every episode that ends."""
    memories: list[float] = []
    for frame in frames:
        if frame.outcome:
            told.append(
                f"episode {frame.episode}: {frame.outcome}, return {short(frame.total)}, {frame.step} steps, "
                f"effective memory {sum(memories) / len(memories):.1f}"
            )
            memories = []
        else:
            memories.append(frame.effective)
        yield frame


def _present(frames: Iterator[Frame], player: Player, options: Options, render: Render) -> None:
    """Shows frames until they end or the person quits."""
    pace = Pace(options.fps)
    with open_screen(render, f"memspan watch {options.run}") as screen:
        keys = [KEYS] if screen.has_keys else []
        for frame in frames:
            if render == "window":
                screen.show(draw_frame(frame, player.longest), keys)
            else:
                screen.show(frame.drawing, [*memory_lines(frame), *keys])
            if not pace.wait(screen, HOLD if frame.outcome else 0.0):
                return


def _record(frames: Iterator[Frame], player: Player, options: Options, told: list[str]) -> None:
    """Writes the video, and shows it too if asked to."""
    assert options.record is not None
    console = Console(highlight=False)
    with ExitStack() as stack:
        status = stack.enter_context(console.status(f"{options.record}: episode 1"))
        window = None
        if options.render == "window":
            window = stack.enter_context(open_screen("window", f"memspan watch {options.run}"))
        recorder = stack.enter_context(Recorder(options.record, options.fps))
        for frame in frames:
            picture = draw_frame(frame, player.longest)
            recorder.add(picture, HOLD if frame.outcome else 0.0)
            if window is not None:
                window.show(picture, [])
                if window.key(0) == "end":
                    break
            status.update(f"{options.record}: episode {frame.episode}/{options.episodes}, step {frame.step}")
            if frame.outcome:
                console.print(told[-1], soft_wrap=True, markup=False)
        status.update(f"{options.record}: writing")
    console.print(f"Video: {options.record}", soft_wrap=True, markup=False)
