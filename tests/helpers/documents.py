"""The code blocks of README.md and docs/: where each stands, and what it is for.

A Python block is a whole program, unless a comment right above it says otherwise::

    <!-- compiled only: needs FastAPI -->

A block whose title begins with ``test_`` is a file of tests. A block of ``text`` right below a
program, or below the words "It prints:", is what it prints, with ``...`` for what differs from
run to run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[a-z]+)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_BEFORE_OUTPUT = {"", "It prints:"}
_COMPILED = re.compile(r"<!-- compiled only: (?P<reason>.+?) -->\n *\Z")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    code: str
    title: str | None
    compiled_only: str | None
    """Why a Python block is not run."""
    prints: str | None
    """What a program prints, where the page shows it."""

    @property
    def name(self) -> str:
        """Where it stands, such as ``docs/index.md:12``."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """README, CONTRIBUTING, and every page of the documentation."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def blocks(language: str) -> list[Block]:
    """Every block of ``language``, page by page."""
    return [block for page in pages() for block in _blocks(page) if block.language == language]


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block, each as its words."""
    lines = block.code.replace("\\\n", " ").splitlines()
    parts = (part for line in lines for part in line.split(" && "))
    words = (shlex.split(part, comments=True) for part in parts)
    return [each for each in words if each]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    found = list(_FENCE.finditer(text))
    for number, match in enumerate(found):
        compiled = _COMPILED.search(text, 0, match.start())
        after = found[number + 1] if number + 1 < len(found) else None
        follows = after is not None and text[match.end() : after.start()].strip() in _BEFORE_OUTPUT
        prints = after["code"] if after is not None and follows else None
        yield Block(
            page,
            text.count("\n", 0, match.start()) + 1,
            match["language"],
            match["code"],
            match["title"],
            None if compiled is None else compiled["reason"],
            prints if after is not None and after["language"] == "text" else None,
        )
