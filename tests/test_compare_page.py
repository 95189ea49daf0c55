"""The page that people see: the real server of `memspan compare`, in Chromium."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memspan.show.board import USUAL_PORT, free_port, start_tensorboard, wait_for_runs
from tests.test_compare import make_run

DEBIAN = Path("/usr/bin/chromium")
PATIENCE = 60_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`memspan compare` as a process, and the addresses that it prints by tab."""
    make_run(tmp_path / "runs", "lstm", 0, 0.9)
    make_run(tmp_path / "runs", "lstm", 1, 0.8)
    make_run(tmp_path / "runs", "expire-span", 0, 1.0, 20.0, curve=(100.0, 60.0, 20.0))
    command = [sys.executable, "-u", "-m", "memspan", "compare", str(tmp_path / "runs"), "--port", "0"]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            said = ""
            assert process.stdout is not None
            for line in process.stdout:
                said += line
                if "Ctrl-C" in line:
                    break
            assert "Ctrl-C ends it." in said, said
            yield process, dict(re.findall(r"^([\w ]+): .*\n  (http\S+)", said, re.MULTILINE))
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            assert not [path for path in temporary.iterdir() if path.name.startswith("memspan-compare")]
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.browser
def test_page(server: tuple[subprocess.Popen[str], dict[str, str]]) -> None:
    required = os.environ.get("MEMSPAN_REQUIRE_BROWSER") == "1"
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError:
        if required:
            raise
        pytest.skip("playwright is not installed")
    _, pages = server
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        if not (own.is_file() or DEBIAN.is_file() or required):
            pytest.skip("no Chromium")
        browser = playwright.chromium.launch(
            executable_path=None if own.is_file() or not DEBIAN.is_file() else DEBIAN,
            args=["--no-sandbox", "--disable-gpu"],
            timeout=PATIENCE,
        )
        expect.set_options(timeout=PATIENCE)
        page = browser.new_page(viewport={"width": 1280, "height": 1600})

        page.goto(pages["Custom Scalars"], timeout=PATIENCE)
        for title, lines in {
            "success rate by effective memory (20k = 20 vectors)": 2,
            "success rate while training": 3,
            "effective memory while training (vectors)": 3,
            "speed of training (steps/s)": 3,
            "success rate by effective memory, in training": 1,
        }.items():
            chart = page.locator("tf-custom-scalar-multi-line-chart-card").filter(
                has=page.get_by_text(title, exact=True)
            )
            expect(chart).to_have_count(1)
            expect(chart.get_by_text(f"Matches ({lines})")).to_be_visible()
        for name in ("Corridor-v0/expire-span/0", "Corridor-v0/lstm/1", "cost/Corridor-v0/lstm"):
            expect(page.get_by_text(name, exact=True).first).to_be_visible()
        # Curves as they are: a line through three runs must not be smoothed.
        expect(page.locator("tf-smoothing-input paper-slider").first).to_have_attribute("aria-valuenow", "0")

        page.get_by_role("tab", name="HPARAMS").click()
        for text in ("Trial ID", "memory", "name", "seed", "success rate", "effective memory"):
            expect(page.get_by_text(text, exact=True).first).to_be_visible()
        for name in ("Corridor-v0/expire-span/0", "Corridor-v0/lstm/1"):
            expect(page.get_by_text(name, exact=True).first).to_be_attached()

        page.goto("about:blank")
        page.goto(pages["Time Series"], timeout=PATIENCE)
        pinned = page.locator("metrics-pinned-view")
        expect(pinned.get_by_text("cost/Corridor-v0").first).to_be_visible()
        expect(page.get_by_text("Corridor-v0/expire-span/0", exact=True).first).to_be_visible()
        browser.close()


def test_usual_port_unless_it_is_taken() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("localhost", USUAL_PORT))
        except OSError:
            pass  # somebody else's will do
        else:
            other.listen()
        assert free_port("localhost") == 0


def test_where_it_cannot_listen_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port={port}: cannot listen there .*in use"):
            start_tensorboard(tmp_path, "localhost", port)
    with pytest.raises(ValueError, match=r"host='192\.0\.2\.1', port=0: cannot listen there"):
        start_tensorboard(tmp_path, "192.0.2.1", 0)


def test_runs_that_are_not_shown_are_told() -> None:
    assert wait_for_runs("http://localhost:9/", ["a/b"], patience=0) == ["a/b"]
