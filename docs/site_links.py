"""A hook of MkDocs: pages and pictures from outside docs/ join the site, and links to them hold.

A link in a Markdown file is relative to where the file lies in the repository, so that it works there. In the
site a page lies where it lies in the repository, too, but for docs/, which is the root. The
repository's README
is the site's start page.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("results/*/README.md", "examples/README.md", "CONTRIBUTING.md", "CHANGELOG.md")
"""Pages that lie elsewhere."""
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages, and whatever pages link to."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            _add(files, path, config)
    for page in list(files.documentation_pages()):
        source = Path(page.abs_src_path or "")
        for _, target, _ in LINK.findall(source.read_text(encoding="utf-8")):
            linked = (source.parent / target).resolve()
            if "://" not in target and linked.is_file() and linked.is_relative_to(ROOT):
                _add(files, linked, config)
    return files


def _add(files: Files, path: Path, config: Any) -> None:
    name = path.relative_to(ROOT).as_posix()
    if not name.startswith("docs/") and name != "README.md" and files.get_file_from_path(name) is None:
        files.append(File(name, str(ROOT), config["site_dir"], config["use_directory_urls"]))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links as the site needs them; a folder has no page, and its link becomes plain text."""
    source = Path(page.file.abs_src_path or "")
    here = Path(page.file.src_uri).parent

    def relative(match: re.Match[str]) -> str:
        target = match[2]
        linked = (source.parent / target).resolve()
        if "://" in target or not linked.is_relative_to(ROOT):
            return match[0]
        name = linked.relative_to(ROOT).as_posix().removeprefix("docs/")
        name = "index.md" if name == "README.md" else name
        return f"{match[1]}{os.path.relpath(name, here)}{match[3]}"

    def plain(match: re.Match[str]) -> str:
        return match[1] if (source.parent / match[2]).is_dir() else match[0]

    return LINK.sub(relative, re.sub(r"\[([^\]]+)\]\(([^)\s#]+)\)", plain, markdown))
