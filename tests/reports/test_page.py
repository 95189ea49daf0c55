"""The page in a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memspan import cli
from tests.reports.test_report import make_run

pytestmark = [pytest.mark.browser]
CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as play:
        path = CHROMIUM if Path(CHROMIUM).exists() else None
        try:
            browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error:
            if os.environ.get("MEMSPAN_REQUIRE_BROWSER"):
                raise
            pytest.skip("no Chromium here: playwright install chromium")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    for memory in ("lstm", "expire-span"):
        make_run(folder / "runs", memory)
    assert cli.main(["evaluate", str(folder / "runs"), "--episodes", "8", "--n-envs", "4"]) == 0
    assert cli.main(["report", str(folder / "runs"), "-o", str(folder / "report.html")]) == 0
    return folder / "report.html"


class Page:
    """The report, opened; keeps what goes wrong."""

    def __init__(self, browser: Any, report: Path, width: int, scheme: str = "light") -> None:
        self.wrong: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(120_000)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "console", lambda message: self.wrong.append(message.text) if message.type == "error" else None
        )
        self.page.on("request", self._fetched)
        self.page.goto(report.as_uri())
        self.page.wait_for_selector("#task0-cost .main-svg")

    def _fetched(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.wrong.append(f"fetched {request.url}")

    def shows(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_it_loads(browser: Any, report: Path, width: int, scheme: str) -> None:
    page = Page(browser, report, width, scheme)
    assert page.shows("document.documentElement.scrollWidth") <= width
    assert page.shows("document.documentElement.dataset.theme") == scheme
    paper = page.shows("getComputedStyle(document.body).backgroundColor")
    page.page.click("#theme")
    assert page.shows("getComputedStyle(document.body).backgroundColor") != paper
    assert page.wrong == []


def test_the_chart_answers(browser: Any, report: Path) -> None:
    page = Page(browser, report, 1280)
    page.page.locator("#task0-cost").scroll_into_view_if_needed()
    box = page.page.locator("#task0-cost .points path.point").last.bounding_box()
    page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.page.wait_for_selector("#task0-cost .hoverlayer .hovertext")
    assert "effective memory" in page.page.locator("#task0-cost .hoverlayer").text_content()
    visible = "document.getElementById('task0-cost').data.filter((t) => t.visible !== 'legendonly').length"
    before = page.shows(visible)
    page.page.locator("#task0-cost .legendtoggle").first.click()
    page.page.wait_for_function(f"{visible} < {before}")
    axis = "document.getElementById('task0-cost').layout.xaxis.type"
    assert page.shows(axis) == "log"
    page.page.locator("input.log").uncheck()
    page.page.wait_for_function(f"{axis} === 'linear'")
    assert page.shows(visible) < before
    assert page.wrong == []


def test_the_lens_replays(browser: Any, report: Path) -> None:
    page = Page(browser, report, 1280)
    page.page.locator("[data-lens]", has_text="expire-span").click()
    kept = "document.querySelector('#layers canvas').dataset.kept"
    picture = "document.getElementById('world').src"
    assert page.shows(kept) == "1"
    first = page.shows(picture)
    page.page.locator("#forth").click()
    assert page.shows(kept) == "2"
    assert page.shows(picture) != first
    page.page.locator("#lens").focus()
    page.page.keyboard.press("ArrowRight")
    assert page.shows(kept) == "3"
    page.page.keyboard.press("ArrowLeft")
    assert page.shows(kept) == "2"
    # The world as it was at the past step that is pointed at.
    box = page.page.locator("#layers canvas").first.bounding_box()
    page.page.mouse.move(box["x"] + 36, box["y"] + 60)
    assert page.shows(picture) == first
    assert "of the attention" in page.page.locator("#hint").text_content()
    page.page.mouse.move(0, 0)
    page.page.locator("#play").click()
    page.page.wait_for_function("Number(document.getElementById('slider').value) >= 3")
    page.page.locator("[data-lens]", has_text="lstm").click()
    assert "no slots" in page.page.locator("#hint").text_content()
    assert page.wrong == []
