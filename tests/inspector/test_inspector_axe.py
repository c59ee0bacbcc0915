"""The page under axe: no violation of WCAG 2.2 AA or of what axe holds for good practice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from agent_conn import AgentIdentity, InferenceConnection
from agent_conn.gateway import DropAfter, Gateway, Inspector

if TYPE_CHECKING:
    from inspector.conftest import OpenPage

pytestmark = pytest.mark.timeout(120)

LEVELS = (
    AgentIdentity(),
    AgentIdentity("J"),
    AgentIdentity("J", "R"),
    AgentIdentity("J", "R", "P"),
)


async def violations(page: Page) -> list[str]:
    await page.emulate_media(reduced_motion="reduce")
    found = await Axe().run(page, options={"rules": {"target-size": {"enabled": True}}})
    assert found.response["passes"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found.response["violations"]]


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [390, 1440])
async def test_axe_finds_nothing(
    inspected: Gateway,
    session: aiohttp.ClientSession,
    open_page: OpenPage,
    width: int,
    scheme: str,
) -> None:
    page = await open_page(inspected.inspector_url, width=width, scheme=scheme)
    await expect(page.locator("#empty h2")).to_be_visible()
    assert await violations(page) == []
    await session.get(inspected.base_url + "/nothing")
    inspected.inject(DropAfter())
    for identity in LEVELS:
        async with InferenceConnection(session, inspected.url("/v1/echo"), identity=identity) as ws:
            await ws.send_str("word")
            await ws.receive(5)
    async with InferenceConnection(session, inspected.url("/v1/echo"), identity=LEVELS[3]):
        await expect(page.locator(".row")).to_have_count(6)
        assert await violations(page) == []
        await page.locator(".row .path").first.click()
        await expect(page.locator(".fault-form")).to_be_visible()
        assert await violations(page) == []


async def test_axe_finds_nothing_where_a_token_is_asked_for(open_page: OpenPage) -> None:
    inspector = Inspector(token="sesame-4711", allow_remote=True)
    async with Gateway(host="0.0.0.0", inspector=inspector) as gateway:
        page = await open_page(gateway.inspector_url)
        await expect(page.get_by_label("Token of this inspector")).to_be_visible()
        assert await violations(page) == []
