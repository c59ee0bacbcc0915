"""The documentation builds strictly, names every public name, and README stays short."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from documents import DOCS, ROOT, pages

PUBLIC = (
    "agent_conn",
    "agent_conn.errors",
    "agent_conn.gateway",
    "agent_conn.testing",
    "agent_conn.integrations.httpx",
    "agent_conn.integrations.livekit",
    "agent_conn.integrations.opentelemetry",
)
README_LINES = 170
UNPLAIN = (
    "is not worth a call",
    "never longer than told",
    "had died unseen",
    "was not heard to have taken",
    "What is not awaited blocks",
    "nobody waits whom",
    "No dial holds anyone up",
    "such as can",
)


class Anchors(HTMLParser):
    """The ids of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.update(value for name, value in attrs if name == "id" and value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out))
    # The theme's notice of its successor is no warning of this site's.
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return out


@pytest.mark.timeout(180)
def test_the_site_builds_strictly_with_every_page_in_its_navigation(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        there = page.relative_to(DOCS).with_suffix("")
        index = "index.html" if there.name == "index" else f"{there}/index.html"
        assert (site / index).exists(), page
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(str(page.relative_to(DOCS)) in settings for page in DOCS.rglob("*.md"))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_has_every_public_name(site: Path, module: str) -> None:
    anchors = Anchors()
    anchors.feed((site / "reference" / "index.html").read_text(encoding="utf-8"))
    shown = {anchor.rpartition(".")[2] for anchor in anchors.found}
    imported = importlib.import_module(module)
    public = getattr(imported, "__all__", None) or [
        name
        for name, value in vars(imported).items()
        if isinstance(value, type) and value.__module__ == module
    ]
    missing = {name for name in public if not name.startswith("_")} - shown
    assert missing == set()


def test_links_within_the_repository_lead_somewhere() -> None:
    for page in pages():
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        links = re.findall(r"\]\(([^)#\s]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", text)
        for link in ("".join(found) for found in links):
            if not link.startswith(("http://", "https://")):
                assert (page.parent / link).exists(), f"{page}: {link}"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


@pytest.mark.parametrize("text", UNPLAIN)
def test_no_page_has_a_sentence_that_stopped_readers(text: str) -> None:
    assert [page for page in pages() if text in page.read_text(encoding="utf-8")] == []
