"""Commands in one of several processes, with something going wrong in one of them."""

import contextlib
import io
import os
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from memspan import cli
from memspan.agents.vec_env import VecEnvAdapter

N_ENVS, N_STEPS, N_ROLLOUTS = 4, 8, 7
ROLLOUT = N_ENVS * N_STEPS
FLAGS = [
    *("--n-envs", str(N_ENVS), "--n-steps", str(N_STEPS), "--width", "8", "--n-minibatches", "2"),
    *("--n-epochs", "1", "--total-timesteps", str(N_ROLLOUTS * ROLLOUT), "--stats-window-size", "3"),
    *("--checkpoint-every", str(2 * ROLLOUT), "--env.max-length", "5", "--device", "cpu"),
    *("--memory.max-span", "8", "--memory.ramp", "3", "--memory.n-heads", "2", "--memory.n-layers", "1"),
    *("--memory-loss-coef", "0.1", "--memory-loss-gate", "0.01", "--memory-target", "0.5"),
    *("--prediction-coef", "0.1", "--outcome-coef", "0.1", "--observe-previous"),
]


def command(args: list[str], fault: str = "", rank: int = 1, rollout: int = 5) -> dict[str, Any]:
    """Runs a command, with a fault in the fifth step of a rollout of process `rank`.

    Args:
        args: of memspan.
        fault: "interrupt", "nan", "raise", "disk", "die", "sleep", or none.
        rank: where it happens; in any other process nothing does.
        rollout: when, counted from 1.
    """
    out, errors, begun = io.StringIO(), io.StringIO(), time.monotonic()
    here = int(os.environ.get("RANK", "0")) == rank
    wrong = going_wrong(fault, (rollout - 1) * N_STEPS + 5) if fault and here else contextlib.nullcontext()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), wrong:
        code = cli.main(args)
    return {
        "code": code,
        "out": out.getvalue(),
        "errors": errors.getvalue(),
        "seconds": time.monotonic() - begun,
    }


def copy(source: str, to: str) -> None:
    """Copies a run as it is between two commands."""
    if os.environ["RANK"] == "0":
        shutil.copytree(source, to)


@contextlib.contextmanager
def going_wrong(fault: str, at: int) -> Iterator[None]:
    """Has something go wrong in the step number `at` of the environments."""
    steps, step_wait = [], VecEnvAdapter.step_wait

    def step(self: VecEnvAdapter) -> Any:
        observations, rewards, dones, infos = step_wait(self)
        steps.append(1)
        if len(steps) == at:
            if fault == "interrupt":
                signal.raise_signal(signal.SIGINT)
            elif fault == "nan":
                rewards = np.where(np.arange(len(rewards)) == 1, np.nan, rewards).astype(np.float32)
            elif fault == "raise":
                raise ArithmeticError("the corridor has collapsed")
            elif fault == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif fault == "sleep":
                time.sleep(600)
        return observations, rewards, dones, infos

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        if fault == "disk":
            patch.setattr("memspan.runs.callbacks.write_snapshot", full)
        else:
            patch.setattr(VecEnvAdapter, "step_wait", step)
        yield
