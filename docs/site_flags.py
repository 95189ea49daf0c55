"""A hook of MkDocs: a flag in a sentence does not break between its hyphens and its first word."""

import re
from typing import Any

CODE = re.compile(r"(?<=<code>)[^<\n]+(?=</code>)")
FLAG = re.compile(r"(?<![\w-])--\w+")


def on_page_content(html: str, **_: Any) -> str:
    """Marks the beginnings of flags; `site.css` says that they do not break."""
    return CODE.sub(lambda code: FLAG.sub(r'<span class="flag">\g<0></span>', code[0]), html)
