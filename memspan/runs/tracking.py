"""A run that Weights & Biases shows, too, by what it writes to TensorBoard; nothing else changes.

<run folder>/wandb.json     project and id, so that a run that is gone on with stays one run there
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memspan.agents.files import write_atomically
from memspan.runs.checkpoint import as_plain

if TYPE_CHECKING:
    from memspan.runs.config import RunConfig

FILE = "wandb.json"
NOT_IN_NAMES = "/\\#?%:"


def check_project(project: str) -> None:
    """Looks at a project's name, before work starts.

    Raises:
        ValueError: it can be none.
        ModuleNotFoundError: wandb is not installed.
    """
    if not project.strip() or set(project) & set(NOT_IN_NAMES):
        raise ValueError(
            f"wandb={project!r}: must be the name of a project, without {' '.join(NOT_IN_NAMES)}"
        )
    import wandb  # noqa: F401


def remember_project(folder: Path, project: str) -> None:
    """Has a new run be shown in a project."""
    text = json.dumps({"project": project, "id": secrets.token_hex(6)}) + "\n"
    write_atomically(folder / FILE, lambda name: Path(name).write_text(text, encoding="utf-8"))


def start_tracking(config: RunConfig, folder: Path) -> Any:
    """Begins, or goes on, to show a run; has to be called before the run's TensorBoard is opened.

    Returns:
        What `end_tracking` takes; None if the run is in no project.

    Raises:
        ValueError: the folder's file is damaged, or Weights & Biases refuses.
        ModuleNotFoundError: wandb is not installed.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        project, run_id = str(told["project"]), str(told["id"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: must tell project and id ({error}); without this file nothing is shown"
        ) from None
    import wandb

    name = f"{config.name or config.memory.rpartition(':')[2]}/{config.seed}"
    try:
        return wandb.init(
            project=project,
            id=run_id,
            resume="allow",
            name=name,
            group=config.env.rpartition(":")[2],
            config=as_plain(config),
            sync_tensorboard=True,
            save_code=False,
            settings=wandb.Settings(console="off"),
        )
    except wandb.errors.Error as error:
        raise ValueError(
            f"Weights & Biases: {error}. Once this is mended, or with WANDB_MODE=offline: "
            f"memspan train --resume {folder}"
        ) from None


def end_tracking(run: Any, code: int) -> None:
    """Ends what `start_tracking` returned.

    Args:
        run: None: nothing is done.
        code: exit code of the training.
    """
    if run is None:
        return
    from wandb.integration.tensorboard import unpatch

    run.finish(exit_code=code)
    unpatch()
