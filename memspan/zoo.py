"""memspan's agents and presets in the RL Zoo (rl_zoo3); importing this module makes them known there.

    python -m memspan.zoo train --algo memory_ppo_lstm --env memspan/Corridor-v0
    python -m memspan.zoo enjoy --algo memory_ppo_lstm --env memspan/Corridor-v0 -f logs
    python -m memspan.zoo hyperparams --algo memory_ppo_lstm > lstm.yml

Every command but `hyperparams` is the zoo's own: `python -m memspan.zoo X` is `python -m rl_zoo3.X`, with one
algorithm more for each memory. Training takes its settings from memspan's presets, unless `-conf` is given.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import runpy
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium as gym
import yaml

from memspan.agents import MemoryPPO, ObservePrevious
from memspan.memory import MEMORIES
from memspan.runs import RunConfig, preset, preset_blocks
from memspan.runs.build import policy_settings

try:
    from rl_zoo3.utils import ALGOS
except ModuleNotFoundError as error:
    if error.name != "rl_zoo3":
        raise
    raise ModuleNotFoundError("rl_zoo3 is missing: pip install 'memspan[zoo]'", name="rl_zoo3") from None

PREFIX = "memory_ppo_"
ALGORITHMS = {PREFIX + name.replace("-", "_"): name for name in MEMORIES}
"""Name of an algorithm in the zoo -> memory. The zoo's folders and plots tell algorithms apart by name."""
OTHERS = "default"
"""The zoo's key of environments that have no settings of their own."""
WRONG_USE = 2

ALGOS.update(dict.fromkeys(ALGORITHMS, MemoryPPO))


class TellSuccess(gym.Wrapper[Any, Any, Any, Any]):
    """Tells success as Stable-Baselines3 and the zoo look for it: `is_success`, at an episode's end."""

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if (terminated or truncated) and "success" in info:
            info = {**info, "is_success": bool(info["success"])}
        return observation, reward, terminated, truncated, info


def hyperparams(memory: str) -> dict[str, dict[str, Any]]:
    """The presets of a memory in the zoo's form: environment -> settings.

    Raises:
        ValueError: a preset says what the zoo cannot.
    """
    return {env: zoo_settings(RunConfig(**preset(env, memory))) for env in (*sorted(preset_blocks()), OTHERS)}


def zoo_settings(config: RunConfig) -> dict[str, Any]:
    """What the zoo has to be told for it to be this run; defaults of `MemoryPPO` are left out.

    Raises:
        ValueError: the zoo knows no such schedule.
    """
    if config.final_ent_coef is not None:
        raise ValueError(
            f"final_ent_coef={config.final_ent_coef!r}: must be None, the zoo knows no such schedule"
        )
    settings: dict[str, Any] = {
        "n_timesteps": config.total_timesteps,
        "n_envs": config.n_envs,
        "policy": "MemoryPolicy",
        "policy_kwargs": policy_settings(config),
        "env_wrapper": f"memspan.zoo.{TellSuccess.__name__}",  # not __module__, which may be __main__
        "memory": config.memory,
        "learning_rate": _learning_rate(config),
    }
    if config.observe_previous:
        settings["vec_env_wrapper"] = f"{ObservePrevious.__module__}.{ObservePrevious.__qualname__}"
    if config.env_kwargs:
        settings["env_kwargs"] = dict(config.env_kwargs)
    for name, parameter in inspect.signature(MemoryPPO).parameters.items():
        # Seed and device are flags of the zoo.
        if name not in (*settings, "env", "seed", "device") and hasattr(config, name):
            value = getattr(config, name)
            if value != (parameter.default or {} if name == "memory_kwargs" else parameter.default):
                settings[name] = value
    return settings


def _learning_rate(config: RunConfig) -> float | str:
    """The zoo's schedules: constant, or linear to 0."""
    if config.final_learning_rate == config.learning_rate:
        return config.learning_rate
    if config.final_learning_rate == 0:
        return f"lin_{config.learning_rate}"
    raise ValueError(
        f"final_learning_rate={config.final_learning_rate}: must be 0 or {config.learning_rate}, "
        "the zoo knows no other schedule"
    )


def write_yaml(memory: str) -> str:
    """The presets of a memory as a file of hyper-parameters for the zoo."""
    return yaml.safe_dump(hyperparams(memory), sort_keys=False)


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command of the zoo; returns the exit code."""
    args = list(sys.argv[1:] if args is None else args)
    command, rest = (args[0], args[1:]) if args else ("", [])
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--algo", default="ppo")
    parser.add_argument("-conf", "--conf-file")
    told, _ = parser.parse_known_args(rest)
    memory = ALGORITHMS.get(told.algo)
    if command == "hyperparams":
        if memory is None:
            print(f"memspan.zoo: algo={told.algo!r}: must be one of {', '.join(ALGORITHMS)}", file=sys.stderr)
            return WRONG_USE
        print(write_yaml(memory), end="")
        return 0
    if not command.isidentifier() or importlib.util.find_spec(f"rl_zoo3.{command}") is None:
        print(__doc__, file=sys.stderr)
        return 0 if command in ("-h", "--help") else WRONG_USE
    with tempfile.TemporaryDirectory(prefix="memspan-zoo-") as folder:
        if command == "train" and memory is not None and told.conf_file is None:
            presets = Path(folder) / f"{told.algo}.yml"
            presets.write_text(write_yaml(memory), encoding="utf-8")
            rest = [*rest, "-conf", str(presets)]
        sys.argv = [f"rl_zoo3.{command}", *rest]
        runpy.run_module(f"rl_zoo3.{command}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
