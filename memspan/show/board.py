"""A TensorBoard server of one's own."""

from __future__ import annotations

import errno
import json
import socket
import time
import urllib.request
from collections.abc import Iterable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

USUAL_PORT = 6006
RELOAD = 5.0
"""Seconds between its looks at the files."""
PATIENCE = 60.0
"""Seconds that a server has to show the first events."""


def free_port(host: str, wanted: int | None = None) -> int:
    """The port to listen at.

    Args:
        host: where.
        wanted: None: TensorBoard's usual one, or 0, which means any, where that is taken.

    Raises:
        ValueError: the wanted one is taken, or the host is none of this machine's.
    """
    port = USUAL_PORT if wanted is None else wanted
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if wanted is None and error.errno == errno.EADDRINUSE:
            return 0
        raise ValueError(f"host={host!r}, port={port}: cannot listen there ({error})") from None
    return port


def start_tensorboard(logdir: Path, host: str, port: int | None) -> str:
    """Starts a server in a thread, which ends with the program.

    Args:
        logdir: what it shows.
        host: to listen at.
        port: None: TensorBoard's usual one, or any where that is taken; 0: any.

    Returns:
        Its address, with a slash at the end.

    Raises:
        ValueError: it cannot listen there.
    """
    chosen = free_port(host, port)
    from tensorboard import default, program

    server = program.TensorBoard(default.get_plugins())
    try:
        # It greets with notes on TensorFlow, which memspan does without, and on how it reads files.
        with redirect_stderr(StringIO()):
            server.configure(
                logdir=str(logdir), host=host, port=chosen, reload_interval=RELOAD, window_title="memspan"
            )
            address: str = server.launch()
    except program.TensorBoardServerException as error:
        raise ValueError(f"host={host!r}, port={chosen}: {error}") from None
    return address if address.endswith("/") else f"{address}/"


def wait_for_runs(address: str, runs: Iterable[str], patience: float = PATIENCE) -> list[str]:
    """Waits until the server shows the runs, or patience ends.

    Returns:
        The runs that it does not show.
    """
    # The server is on this machine: no proxy, and no name that others may know it by.
    local = f"http://localhost:{urlsplit(address).port}/" if not _answers(address) else address
    wanted = set(runs)
    end = time.monotonic() + patience
    while True:
        try:
            missing = wanted - set(json.loads(_get(f"{local}data/runs")))
        except OSError:
            missing = wanted
        if not missing or time.monotonic() > end:
            return sorted(missing)
        time.sleep(0.2)


def _answers(address: str) -> bool:
    try:
        _get(address)
    except OSError:
        return False
    return True


def _get(address: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=5) as answer:
        content: bytes = answer.read()
    return content
