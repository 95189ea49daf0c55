"""What is checked about a run's settings before anything is built."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from memspan.agents.precision import PRECISIONS
from memspan.agents.saved import check_memory_settings
from memspan.memory import make_config, make_memory, state_bytes
from memspan.runs.build import make_env
from memspan.runs.config import RunConfig


def check_config(config: RunConfig) -> None:
    """Builds what is cheap to build and checks the rest.

    Raises:
        ValueError: names the field, its value and what is allowed.
    """
    check_fields(config)
    _check_device(config.device)
    _check_memory(config)
    _check_environment(config)


def check_fields(config: RunConfig) -> None:
    """Checks every field by itself; imports and builds nothing.

    Raises:
        ValueError: names the field, its value and what is allowed.
    """
    for name, (allowed, what) in _RULES.items():
        value = getattr(config, name)
        if not allowed(value):
            raise ValueError(f"{name}={value!r}: must be {what}")


def share_of_envs(config: RunConfig, n_processes: int) -> int:
    """Environments of each process.

    Raises:
        ValueError: they cannot be divided.
    """
    if config.n_envs % n_processes:
        raise ValueError(
            f"n_envs={config.n_envs}: must be a multiple of the number of processes, {n_processes}"
        )
    return config.n_envs // n_processes


def _check_device(device: str) -> None:
    """Raises ValueError unless torch can compute on `device`."""
    if device == "auto":
        return
    try:
        torch.zeros(1, device=device).item()  # "meta" has shapes, and no numbers
    except (RuntimeError, AssertionError, ImportError):
        raise ValueError(
            f"device={device!r}: not available here; must be auto or one that torch has"
        ) from None


def _check_memory(config: RunConfig) -> None:
    """Raises ValueError unless the memory can be built, and this machine's memory can hold it."""
    make_config(config.memory, config.memory_kwargs)
    check_memory_settings(config.memory, config.memory_kwargs)
    name = f"memory={config.memory!r} with width={config.width}, {config.memory_kwargs}"
    try:
        # Shapes without numbers first: what is too large would not be refused but end the process.
        with torch.device("meta"):
            shapes = make_memory(config.memory, config.width, config.memory_kwargs)
            state = shapes.initial_state(1, "meta")
    except (NotImplementedError, AttributeError):
        pass  # a memory of one's own that computes while it is built
    except (RuntimeError, OverflowError, TypeError, MemoryError) as error:
        # A memory of one's own may mix tensors with numbers into it, which is no fault.
        if ":" not in config.memory:
            raise ValueError(f"{name}: cannot be built ({' '.join(str(error).split())})") from None
    else:
        # Weights, gradients, and the two averages of Adam.
        weights = 4 * sum(value.numel() * value.element_size() for value in shapes.parameters())
        _check_bytes(name, weights + 2 * config.n_envs * state_bytes(state))
    try:
        make_memory(config.memory, config.width, config.memory_kwargs)
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise ValueError(f"{name}: cannot be built ({' '.join(str(error).split())})") from None


def _check_bytes(name: str, needed: int) -> None:
    """Raises ValueError for more than this machine has."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return  # the system does not tell
    if needed > there:
        gib = 2**30
        raise ValueError(f"{name}: needs {needed / gib:.3g} GiB; this machine has {there / gib:.3g} GiB")


def _check_environment(config: RunConfig) -> None:
    """Raises ValueError unless the environment can be built."""
    try:
        env = make_env(config, n_envs=1)
    except _NOT_BUILT as error:
        raise ValueError(f"env={config.env!r} with {config.env_kwargs}: {error}") from error
    space = env.observation_space
    env.close()
    parts = space.spaces.values() if isinstance(space, gym.spaces.Dict) else [space]
    seen = sum(math.prod(part.shape or ()) * np.dtype(part.dtype).itemsize for part in parts)
    steps = f"n_envs={config.n_envs} with n_steps={config.n_steps}"
    _check_bytes(steps, config.n_envs * config.n_steps * (seen + _STEP_BYTES))


_NOT_BUILT = (TypeError, AssertionError, ArithmeticError, MemoryError, gym.error.Error)
"""What an environment may raise that refuses its settings, beside ValueError."""
_STEP_BYTES = 32
"""Of a step in a rollout, beside what is observed."""

Rule = tuple[Callable[[Any], bool], str]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    # Not math.isfinite, which raises OverflowError for an integer of 400 digits.
    largest = sys.float_info.max
    return isinstance(value, int | float) and not isinstance(value, bool) and -largest <= value <= largest


def _is_name(value: Any) -> bool:
    return (
        isinstance(value, str) and value.strip() not in ("", ".", "..") and not set(value) & set('/\\:*?"<>|')
    )


_LARGEST = 2**31 - 1
_COUNT: Rule = (
    lambda value: _is_integer(value) and 1 <= value <= _LARGEST,
    f"an integer of at least 1 and at most {_LARGEST}",
)
_MOST = 1e6
_NOT_NEGATIVE: Rule = (
    lambda value: _is_number(value) and 0 <= value <= _MOST,
    f"a number of at least 0 and at most {_MOST:g}",
)
_POSITIVE: Rule = (
    lambda value: _is_number(value) and 0 < value <= _MOST,
    f"a number above 0 and at most {_MOST:g}",
)
_FRACTION: Rule = (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1")
_TEXT: Rule = (lambda value: isinstance(value, str) and bool(value), "text")
_SETTINGS: Rule = (
    lambda value: isinstance(value, dict) and all(isinstance(key, str) for key in value),
    "settings by name",
)

_RULES: dict[str, Rule] = {
    "env": _TEXT,
    "memory": _TEXT,
    "seed": (lambda value: _is_integer(value) and value >= 0, "an integer of at least 0"),
    "device": _TEXT,
    "run_dir": (lambda value: isinstance(value, Path), "a path"),
    "name": (lambda value: value is None or _is_name(value), "None or a name that a folder can have"),
    "threads": (lambda value: _is_integer(value) and 1 <= value <= 1024, "an integer from 1 to 1024"),
    **dict.fromkeys(
        ("total_timesteps", "checkpoint_every"),
        (lambda value: _is_integer(value) and value >= 1, "an integer of at least 1"),
    ),
    "precision": (lambda value: value in PRECISIONS, "'float32' or 'bfloat16'"),
    "on_nan": (lambda value: value in ("stop", "skip"), "'stop' or 'skip'"),
    "algorithm": (lambda value: value == "ppo", "'ppo'"),
    "normalize_advantage": (lambda value: isinstance(value, bool), "True or False"),
    "observe_previous": (lambda value: isinstance(value, bool), "True or False"),
    "memory_target": (
        lambda value: value is None or (_is_number(value) and value > 0),
        "None or a number above 0",
    ),
    "memory_loss_gate": (
        lambda value: value is None or (_is_number(value) and 0 <= value < 1),
        "None or a number from 0 to 1, 1 excluded",
    ),
    "final_ent_coef": (
        lambda value: value is None or (_is_number(value) and value >= 0),
        "None or a number of at least 0",
    ),
    "env_kwargs": _SETTINGS,
    "memory_kwargs": _SETTINGS,
    **dict.fromkeys(
        (
            "n_envs",
            "width",
            "n_steps",
            "n_minibatches",
            "n_epochs",
            "stats_window_size",
            "keep_checkpoints",
        ),
        _COUNT,
    ),
    **dict.fromkeys(
        ("learning_rate", "first_preference", "clip_range", "max_grad_norm", "process_timeout"), _POSITIVE
    ),
    **dict.fromkeys(
        (
            "final_learning_rate",
            "ent_coef",
            "vf_coef",
            "min_advantage_std",
            "memory_loss_coef",
            "prediction_coef",
            "outcome_coef",
            "reconstruction_coef",
        ),
        _NOT_NEGATIVE,
    ),
    **dict.fromkeys(("gamma", "gae_lambda"), _FRACTION),
}
"""Field -> whether a value is allowed, and what is."""
