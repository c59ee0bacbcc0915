"""The documentation builds strictly, names every public name, and README stays short."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import griffe
import pytest
from helpers.documents import DOCS, ROOT, pages

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


def public_objects(package: griffe.Module) -> Iterator[griffe.Object]:
    """What the public modules offer."""
    for path in PUBLIC:
        module = package if path == package.path else package[path.partition(".")[2]]
        own = [name for name, member in module.members.items() if not member.is_alias]
        for name in map(str, module.exports or own):
            if not name.startswith("_"):
                member = module.members[name]
                yield member.final_target if isinstance(member, griffe.Alias) else member


class Anchors(HTMLParser):
    """The ids of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.update(value for name, value in attrs if name == "id" and value)


@pytest.fixture(scope="module")
def package() -> griffe.Module:
    found = griffe.load(PUBLIC[0], search_paths=[ROOT], resolve_aliases=True)
    assert isinstance(found, griffe.Module)
    return found


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
def test_the_reference_has_every_public_name(site: Path, package: griffe.Module) -> None:
    anchors = Anchors()
    anchors.feed((site / "reference" / "index.html").read_text(encoding="utf-8"))
    shown = {anchor.rpartition(".")[2] for anchor in anchors.found}
    assert {found.name for found in public_objects(package)} - shown == set()


def test_every_public_name_and_method_has_a_docstring(package: griffe.Module) -> None:
    undocumented = {found.path for found in public_objects(package) if found.docstring is None}
    for found in public_objects(package):
        methods = [each for each in found.members.values() if isinstance(each, griffe.Function)]
        undocumented |= {
            each.path for each in methods if each.docstring is None and each.name[0] != "_"
        }
    assert undocumented == set()


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
