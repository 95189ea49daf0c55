"""Results in TensorBoard, beside the training's curves: the HParams tab and the figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.image import imread
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from memspan.evaluation.results import Evaluation

SUFFIX = ".evaluation"
"""How the names of an evaluation's event files end, so that the next evaluation can take their place."""
FIGURE_TAG = "evaluation/success_against_memory"


def write_events(folder: Path, run: Evaluation, figure: Path | None = None) -> None:
    """Writes a run's results into its folder, in place of those of an earlier evaluation.

    Tags: `evaluation/success_rate` (where there is one), `evaluation/effective_memory` and
    `evaluation/mean_return`, which are also the metrics of the HParams tab; `FIGURE_TAG`.

    Args:
        folder: the run's.
        run: its results.
        figure: a PNG file to show.
    """
    for old in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
        old.unlink()
    metrics = {
        "evaluation/effective_memory": run.effective_memory,
        "evaluation/mean_return": run.mean_return,
    }
    if run.success_rate is not None:
        metrics["evaluation/success_rate"] = run.success_rate
    with SummaryWriter(folder, filename_suffix=SUFFIX) as writer:
        # Not `add_hparams`: it makes a folder, and with it a run, of its own.
        for summary in hparams(settings_of(run), metrics):  # type: ignore[no-untyped-call]
            writer.file_writer.add_summary(summary)
        for tag, value in metrics.items():
            writer.add_scalar(tag, value, run.timesteps)
        if figure is not None:
            writer.add_image(FIGURE_TAG, imread(figure), run.timesteps, dataformats="HWC")


def settings_of(run: Evaluation) -> dict[str, bool | int | float | str]:
    """All settings of a run, flat and in the types that TensorBoard takes."""
    flat: dict[str, Any] = {"env": run.env, "memory": run.memory, "name": run.name, "seed": run.seed}
    flat |= {f"env.{key}": value for key, value in run.env_kwargs.items()}
    flat |= {f"memory.{key}": value for key, value in run.memory_kwargs.items()}
    flat |= run.settings
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in flat.items()
    }
