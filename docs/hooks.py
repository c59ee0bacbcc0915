"""What MkDocs does to a page beyond Markdown: docstrings have two forms of reStructuredText."""

from __future__ import annotations

import re

_TABLE = re.compile(r"<p>(={5,}.*?={5,})</p>", re.DOTALL)


def on_page_content(html: str, **_: object) -> str:
    """Show a docstring's table as it is typed, and leave out the ``::`` before an example."""
    html = html.replace("<p>::</p>\n", "").replace("::</p>", ":</p>")
    return _TABLE.sub(r"<pre>\1</pre>", html)
