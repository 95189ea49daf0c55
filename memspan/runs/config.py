"""Settings of a training run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Suppress


@dataclass(frozen=True)
class RunConfig:
    """Everything that a training run depends on; the same fields are the flags of `memspan train`."""

    env: str = "memspan/Corridor-v0"
    """Id of a Gymnasium environment, or module:id."""
    memory: str = "expire-span"
    """Name of a memory, or module:Class."""
    seed: int = 0
    """Of everything random: weights, episodes, actions."""
    total_timesteps: int = 1_000_000
    """Steps to train for, summed over environments; the last rollout is always finished."""
    n_envs: int = 64
    """Environments side by side."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    run_dir: Path = Path("runs")
    """Folder of all runs; this one goes to <run-dir>/<environment>/<name or memory>/<seed>."""
    name: str | None = None
    """Folder name in place of the memory's, to tell apart several settings of one memory."""
    algorithm: Literal["ppo"] = "ppo"
    """How to learn from rollouts."""
    observe_previous: bool = False
    """Show the agent its previous action and reward, too."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products; bfloat16 pays where the processor has instructions for it (AMX, tensor cores)."""
    width: int = 64
    """D, width of the memory."""
    first_preference: float = 0.01
    """How much the first policy prefers some discrete actions: gain of the first weights to the logits."""
    learning_rate: float = 3e-4
    """Learning rate at the start."""
    final_learning_rate: float = 0.0
    """Learning rate at the end; linear in between."""
    n_steps: int = 128
    """T, steps of a rollout per environment: the block through which gradients flow."""
    n_minibatches: int = 4
    """Sets into which a rollout's environments are split; at most one per environment."""
    n_epochs: int = 3
    """Passes over a rollout."""
    gamma: float = 0.99
    """Discount."""
    gae_lambda: float = 0.95
    """Bias against variance of the advantages."""
    clip_range: float = 0.2
    """How far the probability ratio may leave 1 and still be followed."""
    ent_coef: float = 0.001
    """Weight of the entropy bonus at the start."""
    final_ent_coef: float | None = None
    """Weight of the entropy bonus at the end, linear in between; None: constant."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Gradients are clipped to this norm."""
    normalize_advantage: bool = True
    """Standardise advantages over the rollout."""
    min_advantage_std: float = 0.05
    """Floor of the standard deviation that advantages are divided by."""
    memory_loss_coef: float = 0.0
    """Weight of the memory's own losses, like Expire-Span's penalty."""
    memory_loss_gate: float | None = None
    """Success rate above which the memory's own losses count, in full at 1; None: always."""
    memory_target: float | None = None
    """Effective memory down to which they count, in full from twice as much on; None: always."""
    prediction_coef: float = 0.0
    """Weight of predicting the memory's next input from its features and the action; 0: not predicted."""
    outcome_coef: float = 0.0
    """Weight of predicting reward and episode's end from memory and action; 0: they are not predicted."""
    reconstruction_coef: float = 0.0
    """Weight of reading the observation off the memory's input; 0: nothing is read off."""
    stats_window_size: int = 300
    """Episodes over which success rate and mean return run."""
    checkpoint_every: int = 250_000
    """Timesteps between checkpoints."""
    keep_checkpoints: int = 3
    """Of these, how many are kept, the last ones; the best is kept beside them."""
    on_nan: Literal["stop", "skip"] = "stop"
    """Where a loss, gradient, reward or observation is NaN or infinite: stop, or leave the update out."""
    threads: int = 1
    """CPU threads of torch, of each process; small networks are fastest with 1."""
    process_timeout: float = 600.0
    """Seconds that one of several processes waits for the others."""
    env_kwargs: Suppress[dict[str, Any]] = field(default_factory=dict)
    """Settings of the environment that differ from its own defaults."""
    memory_kwargs: Suppress[dict[str, Any]] = field(default_factory=dict)
    """Settings of the memory that differ from its own defaults."""


FIELDS = tuple(one.name for one in dataclasses.fields(RunConfig))
COMMON = (
    *("env", "memory", "seed", "total_timesteps", "n_envs", "n_steps", "learning_rate"),
    *("device", "run_dir", "name"),
)
"""Fields that `memspan train --help` shows; all of them: `--help-all`."""
NOT_SETTINGS = {
    *("env", "memory", "name", "seed", "env_kwargs", "memory_kwargs"),  # these have fields of their own
    *(
        "device",
        "run_dir",
        "threads",
        "process_timeout",
        "checkpoint_every",
    ),  # these change nothing of what is learnt
}
"""Fields that are not among an evaluation's settings."""
