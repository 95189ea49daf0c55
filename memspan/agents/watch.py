"""Environments under watch: who fails is named, workers that end or hang do not keep the agent waiting."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from memspan.agents.faults import EnvironmentFaultError, environments
from memspan.agents.vec_env import VecEnvAdapter

_LOOP_VARIABLES = ("env_idx", "i", "index")
"""What SB3's DummyVecEnv and Gymnasium's Sync- and AsyncVectorEnv call the environment that failed."""


class WatchedConnection:
    """A pipe to a worker; `recv` ends when the worker does, or after a time.

    Args:
        pipe: the pipe.
        process: the worker.
        index: its environment.
        timeout: seconds, None: as long as the worker lives.
    """

    def __init__(self, pipe: Any, process: Any, index: int, timeout: float | None) -> None:
        self.pipe = pipe
        self.process = process
        self.index = index
        self.timeout = timeout

    def recv(self) -> Any:
        """As of a pipe.

        Raises:
            EnvironmentFaultError: the worker has ended, or did not answer in time.
        """
        # Others may hold the pipe's other end, so that it does not close with the worker.
        ready = connection.wait([self.pipe, self.process.sentinel], self.timeout)
        if not ready:
            raise EnvironmentFaultError(f"environment {self.index} has not answered for {self.timeout:g} s")
        if self.pipe not in ready and not self.pipe.poll():
            raise self._ended()
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            raise self._ended() from None

    def send(self, value: Any) -> None:
        """As of a pipe.

        Raises:
            EnvironmentFaultError: the worker has ended.
        """
        try:
            self.pipe.send(value)
        except (BrokenPipeError, ConnectionError):
            raise self._ended() from None

    def fileno(self) -> int:
        return int(self.pipe.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipe, name)

    def _ended(self) -> EnvironmentFaultError:
        self.process.join(1.0)
        return EnvironmentFaultError(
            f"the process of environment {self.index} has ended (exit code {self.process.exitcode}); if it "
            "raised, its traceback stands above"
        )


def watch_workers(env: VecEnv, timeout: float | None = None) -> None:
    """Has the workers of a `SubprocVecEnv` or `AsyncVectorEnv` watched; others are left as they are.

    Args:
        env: the environments, in any wrappers.
        timeout: seconds that an answer may take; None: as long as the worker lives.
    """
    workers = _workers(env)
    if workers is not None:
        owner, pipes = workers
        watched = [
            WatchedConnection(
                pipe.pipe if isinstance(pipe, WatchedConnection) else pipe, process, index, timeout
            )
            for index, (pipe, process) in enumerate(zip(getattr(owner, pipes), owner.processes, strict=True))
        ]
        setattr(owner, pipes, type(getattr(owner, pipes))(watched))


@contextmanager
def naming(env: VecEnv, seeds: list[int | None], timesteps: int, first: int = 0) -> Iterator[None]:
    """Whatever goes wrong in the environments while they are called is named, and their workers are ended.

    Args:
        env: the environments.
        seeds: that each was last seeded with.
        timesteps: those made before.
        first: index of the first of them among those of all processes.

    Raises:
        EnvironmentFaultError: an environment raises, hangs or ends.
    """
    try:
        yield
    except Exception as error:
        in_environments, index = _index(error)
        if not in_environments:
            raise
        end_workers(env)
        said = str(error) if isinstance(error, EnvironmentFaultError) else f"{type(error).__name__}: {error}"
        raise EnvironmentFaultError(_at(index, seeds, timesteps, first) + said) from error


def step(
    env: VecEnv, actions: np.ndarray, seeds: list[int | None], timesteps: int, first: int = 0
) -> VecEnvStepReturn:
    """One step of the environments, of which whatever goes wrong is named.

    Args:
        env: the environments.
        actions: one each.
        seeds: that each was last seeded with.
        timesteps: those made before.
        first: index by which the first environment is named.

    Raises:
        EnvironmentFaultError: an environment raises, hangs, ends, or breaks its space.
    """
    with naming(env, seeds, timesteps, first):
        answer = env.step(actions)
    check_space(env, answer[0], seeds, timesteps, first)
    return answer


def check_space(
    env: VecEnv, observations: Any, seeds: list[int | None], timesteps: int, first: int = 0
) -> None:
    """Raises EnvironmentFaultError for observations that are not of their space; see `broken_space`."""
    if problem := broken_space(env.observation_space, observations, env.num_envs, first):
        rows, what = problem
        raise EnvironmentFaultError(_at(rows[0] if rows else None, seeds, timesteps, first) + what)


def broken_space(  # noqa: PLR0911  # a return for each kind of space
    space: spaces.Space, observations: Any, num_envs: int, first: int = 0
) -> tuple[list[int], str] | None:
    """Which rows are not of the space, and why; None if all may be.

    Numbers of a Box beyond its bounds are allowed: many environments are careless about them.
    """
    if isinstance(space, spaces.Dict):
        for name, part in space.spaces.items():
            if name not in observations:
                return [], f"observation {name!r} is missing"
            if problem := broken_space(part, observations[name], num_envs, first):
                return problem[0], f"observation {name!r}: {problem[1]}"
        return None
    shape = (num_envs, *(space.shape or ()))
    values = np.asarray(observations)
    if values.shape != shape:
        return [], f"observations have shape {values.shape}: must be {shape} by their space, {space}"
    if isinstance(space, spaces.Box):
        return None
    if isinstance(space, spaces.Discrete):
        bad = (values < space.start) | (values >= space.start + space.n)
    elif isinstance(space, spaces.MultiDiscrete):
        bad = (values < space.start) | (values >= space.start + space.nvec)
    else:
        bad = (values != 0) & (values != 1)
    if not bad.any():
        return None
    rows = np.flatnonzero(bad.reshape(num_envs, -1).any(1)).tolist()
    named = environments([first + row for row in rows])
    return rows, f"observation of {named} is {values[rows[0]].tolist()}: must be in {space}"


def end_workers(env: VecEnv) -> None:
    """Ends the workers of environments that failed: to be closed as usual, they would have to answer."""
    workers = _workers(env)
    if workers is None:
        return
    owner, _ = workers
    for process in owner.processes:
        process.terminate()
    for process in owner.processes:
        process.join(1.0)
        if process.is_alive():
            process.kill()
            process.join()
    if isinstance(owner, SubprocVecEnv):
        owner.closed, owner.waiting = True, False
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            owner.closed = True


def _workers(env: VecEnv) -> tuple[Any, str] | None:
    """Who holds pipes to workers, and the attribute that they are."""
    while isinstance(env, VecEnvWrapper):
        env = env.venv
    if isinstance(env, SubprocVecEnv):
        return env, "remotes"
    inner: Any = env.env if isinstance(env, VecEnvAdapter) else None
    while isinstance(inner, gym.vector.VectorWrapper):
        inner = inner.env
    return (inner, "parent_pipes") if isinstance(inner, AsyncVectorEnv) else None


def _index(error: BaseException) -> tuple[bool, int | None]:
    """Whether vector environments were at work when it was raised, and on which of theirs if it is known."""
    at_work, index = False, None
    trace = error.__traceback__
    while trace is not None:
        found = trace.tb_frame.f_locals
        one = found.get("self")
        if isinstance(one, WatchedConnection):
            at_work, index = True, one.index
        elif isinstance(one, VecEnv | gym.vector.VectorEnv):
            at_work = True
            for name in _LOOP_VARIABLES:
                if isinstance(found.get(name), int):
                    index = found[name]
        trace = trace.tb_next
    return at_work, index


def _at(index: int | None, seeds: list[int | None], timesteps: int, first: int) -> str:
    """Where it happened, as the beginning of a message."""
    seed = None if index is None or index >= len(seeds) else seeds[index]
    parts = (
        []
        if index is None
        else [f"environment {first + index}", f"seed {'unknown' if seed is None else seed}"]
    )
    return ", ".join([*parts, f"after {timesteps} timesteps"]) + ": "
