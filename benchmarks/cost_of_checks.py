"""What looking for bad numbers and broken environments costs: trains with and without, rollout by rollout.

    python benchmarks/cost_of_checks.py [--memory lstm] [--rollouts 40] [--n-envs 64] [--n-steps 32]

Rollouts with all checks and without any take turns, in pairs of which the first is drawn, in one process and
on the same agent. Told is the processor's time of a step of all environments, update included: medians, and
the median of the differences within pairs, with the middle half of them; and of the checks by themselves.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import time
import timeit
from typing import Any
from unittest import mock

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from memspan.agents import MemoryPPO, base
from memspan.runs import RunConfig, make_model, preset

WARM_UP = 2


def descend(self: MemoryPPO, losses: Any, loss: torch.Tensor, evaluated: Any, block: Any) -> bool:
    """As `MemoryPPO._descend`, without a look at loss and gradient."""
    self.policy.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
    self.policy.optimizer.step()
    return True


def bare_step(env: Any, actions: np.ndarray, *_: Any) -> Any:
    return env.step(actions)


def nothing(*_: Any) -> list[str]:
    return []


WITHOUT = [
    mock.patch.object(base.watch, "step", bare_step),
    mock.patch.object(base.watch, "check_space", nothing),
    mock.patch.object(base, "what_is_bad", nothing),
    mock.patch.object(base, "bad_rollout", nothing),
    mock.patch.object(MemoryPPO, "_descend", descend),
]


class Alternate(BaseCallback):
    """Leaves the checks out of every other rollout, and takes the time of each."""

    def __init__(self, rollouts: int) -> None:
        super().__init__()
        draw = random.Random(0)
        pairs = [draw.sample([True, False], 2) for _ in range(-(-rollouts // 2))]
        self.checked = [True] * WARM_UP + [one for pair in pairs for one in pair]
        self.seconds: list[float] = []
        self._begin: float | None = None
        self._out = False

    def _on_rollout_start(self) -> None:
        now = time.process_time()
        if self._begin is not None:
            self.seconds.append(now - self._begin)
        self._set_checks(self.checked[len(self.seconds)])
        self._begin = time.process_time()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        assert self._begin is not None
        self.seconds.append(time.process_time() - self._begin)
        self._set_checks(True)

    def _set_checks(self, on: bool) -> None:
        if on == self._out:
            for one in WITHOUT:
                if on:
                    one.stop()
                else:
                    one.start()
            self._out = not on


def main() -> int:
    parser = argparse.ArgumentParser(description="What checks cost.")
    parser.add_argument("--memory", default="lstm")
    parser.add_argument("--rollouts", type=int, default=40)
    parser.add_argument("--n-envs", type=int, default=64)
    parser.add_argument("--n-steps", type=int, default=32)
    args = parser.parse_args()
    config = RunConfig(**preset(RunConfig.env, args.memory))
    config = dataclasses.replace(
        config, memory=args.memory, n_envs=args.n_envs, n_steps=args.n_steps, device="cpu"
    )
    torch.set_num_threads(1)
    model = make_model(config)
    callback = Alternate(args.rollouts)
    model.learn(len(callback.checked) * args.n_envs * args.n_steps, callback)
    per_step = 1e6 * np.array(callback.seconds[WARM_UP:]) / args.n_steps
    checked = np.array(callback.checked[WARM_UP:])
    differences = np.where(checked, per_step, -per_step).reshape(-1, 2).sum(1)
    with_checks, without = np.median(per_step[checked]), np.median(per_step[~checked])
    low, middle, high = np.percentile(differences, [25, 50, 75])
    print(
        f"{args.memory}, {args.n_envs} environments: us of a step of all of them, of {len(differences)} pairs"
    )
    print(f"with checks {with_checks:.0f}, without {without:.0f}")
    print(
        f"difference {middle:.0f} ({low:.0f} to {high:.0f}), {middle / without:.1%}; "
        f"{middle / args.n_envs:.2f} us of an environment's step"
    )
    for what, microseconds in alone(model).items():
        print(f"by themselves, {what}: {microseconds:.1f} us")
    return 0


def alone(model: MemoryPPO) -> dict[str, float]:
    """Microseconds of what is looked at in a step, a rollout and an update; the fastest of ten times 500."""
    env, rewards = model.get_env(), np.zeros(model.n_envs, dtype=np.float32)
    assert env is not None
    observations = env.reset()
    loss, norm, buffer = torch.ones((), requires_grad=True), torch.ones(()), model.rollout_buffer
    arrays = {name: getattr(buffer, name) for name in ("values", "log_probs", "returns")}

    def step() -> None:
        with base.watch.naming(env, [], 0):
            pass
        base.watch.check_space(env, observations, [], 0)
        base.what_is_bad(observations, rewards)

    checks = {
        "a step of all environments": step,
        f"a rollout of {model.n_steps} steps": lambda: base.bad_rollout(arrays),
        "an update by a minibatch": lambda: bool(torch.isfinite(loss.detach() + norm)),
    }
    return {
        what: min(timeit.repeat(check, timer=time.process_time, repeat=10, number=500)) / 500 * 1e6
        for what, check in checks.items()
    }


if __name__ == "__main__":
    raise SystemExit(main())
