"""What the inspector's tests share: gateways with one, and a real headless Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from playwright.async_api import Browser, Page, Request, async_playwright, expect

from agent_conn.gateway import Gateway, Inspector, ScriptedEngine

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Before any script of the page's own.
WATCH_POLICY = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI}`);
});
"""
REQUIRED = "AGENT_CONN_REQUIRE_CHROMIUM"
SCREENSHOTS = "AGENT_CONN_SCREENSHOTS"

# A busy machine shows things later.
expect.set_options(timeout=20_000)

OpenPage = Callable[..., Awaitable[Page]]


@dataclass
class Seen:
    """What the pages of one test did besides showing something."""

    complaints: list[str] = field(default_factory=list)
    hosts: set[str | None] = field(default_factory=set)

    def watch(self, page: Page) -> None:
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._note)

    def _hear(self, kind: str, text: str) -> None:
        # A browser reports a connection that it lost, and an answer that refuses; the page says so.
        refused = any(told in text for told in ("net::ERR_", "status of 401", "status of 503"))
        if kind in ("error", "warning") and not refused:
            self.complaints.append(f"{kind}: {text}")

    def _note(self, request: Request) -> None:
        self.hosts.add(urlsplit(request.url).hostname)


@pytest.fixture
async def inspected(loop_reports: list[dict[str, Any]]) -> AsyncIterator[Gateway]:
    """A gateway with an inspector."""
    engine = ScriptedEngine(("said <script>window.pwned = 1</script> here",))
    async with Gateway(engine, inspector=Inspector()) as running:
        yield running


@pytest.fixture
async def http(loop_reports: list[dict[str, Any]]) -> AsyncIterator[aiohttp.ClientSession]:
    """A session like the page's: it keeps what it is told in cookies, by address too."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        yield client


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        reason = f"no Chromium: none of {', '.join(NAMES)} is on the PATH"
        if os.environ.get(REQUIRED):
            pytest.fail(f"{reason}, and {REQUIRED} is set")
        pytest.skip(reason)
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield running
        await running.close()


@pytest.fixture
async def open_page(browser: Browser) -> AsyncIterator[OpenPage]:
    """Open pages; none may complain, break its policy or ask for anything off this machine."""
    seen, pages = Seen(), list[Page]()

    async def open_at(url: str, *, width: int = 1280, scheme: Any = "dark") -> Page:
        context = await browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,
        )
        page = await context.new_page()
        page.set_default_timeout(20_000)
        await page.add_init_script(WATCH_POLICY)
        seen.watch(page)
        pages.append(page)
        await page.goto(url)
        return page

    yield open_at
    for page in pages:
        assert await page.evaluate("window.violations") == []
    assert seen.complaints == []
    assert seen.hosts <= {"127.0.0.1"}


@pytest.fixture
def screenshot(request: pytest.FixtureRequest) -> Callable[[Page, str], Awaitable[None]]:
    """Keep a picture of a page where AGENT_CONN_SCREENSHOTS names a folder."""
    folder = os.environ.get(SCREENSHOTS)

    async def take(page: Page, name: str) -> None:
        if folder:
            await page.screenshot(path=Path(folder) / f"{request.node.name}-{name}.png")

    return take
