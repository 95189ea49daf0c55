"""The examples on the tasks' pages run as they stand."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("corridor", "portal", "instruction")


@pytest.mark.parametrize("page", PAGES)
def test_python(page: str) -> None:
    examples = re.findall(
        r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert examples
    for code in examples:
        exec(compile(code, f"{page}.md", "exec"), {})
