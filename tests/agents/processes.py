"""Several processes for tests, each of which makes the same calls, one after the other."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
Call = tuple[str, dict[str, Any]]
"""`module:function` and its arguments, plain values."""


def start(calls: list[Call], n: int = 2, **settings: Any) -> list[subprocess.Popen[str]]:
    """Processes that make the calls; their output is the results, a line of JSON each, on stderr the rest."""
    ports = []
    for _ in calls:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    env = {**os.environ, "WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(Path(__file__).parent), env.get("PYTHONPATH", "")])
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__)), json.dumps([calls, ports])],
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(n)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **settings,
        )
        for rank in range(n)
    ]


def results(
    processes: list[subprocess.Popen[str]], killed: tuple[int, ...] = (), timeout: float = 1500.0
) -> list[list[Any]]:
    """What each process's calls gave; none must have failed, but for those that were killed in the last."""
    try:
        told = [one.communicate(timeout=timeout) for one in processes]
    finally:
        for one in processes:
            end(one)
    for rank, (one, (_, errors)) in enumerate(zip(processes, told, strict=True)):
        assert one.returncode == (-signal.SIGKILL if rank in killed else 0), errors
    return [[json.loads(line[1:]) for line in out.splitlines() if line.startswith("=")] for out, _ in told]


def end(process: subprocess.Popen[str]) -> None:
    """Ends a process that may have ended."""
    process.kill()
    with process:
        pass


def main() -> None:
    calls, ports = json.loads(sys.argv[1])
    for (name, arguments), port in zip(calls, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        module, _, function = name.partition(":")
        result = getattr(importlib.import_module(module), function)(**arguments)
        print(f"={json.dumps(result)}", flush=True)


if __name__ == "__main__":
    main()
