"""Finding a connection on the page: by its ids, by a search, by why it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from playwright.async_api import Page, expect

from agent_conn import AgentIdentity, InferenceConnection
from agent_conn.gateway import DropAfter, Gateway, Inspector

if TYPE_CHECKING:
    from inspector.conftest import OpenPage

pytestmark = pytest.mark.timeout(120)

IDS = AgentIdentity(job_id="AJ_k3Vd92hXqLwZ", room_id="RM_8sGm41bTzQpY", agent_id="PA_x7Nc55jRfWuE")
IN_FULL = "one => one.scrollWidth <= one.clientWidth"


def rows(page: Page, line: int | None = None) -> Any:
    return page.locator(".row" if line is None else f'.row[data-line="{line}"]')


async def test_the_ids_are_in_full_and_a_click_copies_one(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    page = await open_page(inspected.inspector_url, width=1440)
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    async with InferenceConnection(session, inspected.url("/v1/stt?model=auto"), identity=IDS):
        cell = rows(page).locator(".ids")
        await expect(cell).to_contain_text(str(IDS.agent_id))
        for line in (".first", ".second"):
            assert await cell.locator(line).evaluate(IN_FULL)
        for name, told in (("agent", IDS.agent_id), ("room", IDS.room_id), ("job", IDS.job_id)):
            button = cell.locator(f".{name}-id")
            await expect(button).to_have_text(str(told))
            await button.click()
            await expect(button).to_contain_class("copied")
            assert await page.evaluate("navigator.clipboard.readText()") == told
        # Copying opens nothing.
        await expect(page.locator("#drawer")).to_be_hidden()
        await rows(page).locator(".path").click()
        drawer = page.locator("#drawer")
        await drawer.get_by_role("button", name="Copy the session id").click()
        session_id = inspected.handshakes[0].session_id
        assert await page.evaluate("navigator.clipboard.readText()") == session_id


async def test_what_is_missing_of_the_ids_is_said(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    page = await open_page(inspected.inspector_url)
    identities = [AgentIdentity(), AgentIdentity(job_id="AJ_1")]
    for identity in identities:
        async with InferenceConnection(session, inspected.url("/v1/echo"), identity=identity):
            pass
    await expect(rows(page, 1).locator(".ids")).to_contain_text("no ids sent")
    await expect(rows(page, 2).locator(".ids")).to_contain_text("no agent id")
    await expect(rows(page, 2).locator(".ids")).to_contain_text("AJ_1")


async def test_a_refusal_has_its_reason_and_failures_are_counted(open_page: OpenPage) -> None:
    async with (
        Gateway(token="sesame-4711", inspector=Inspector()) as gateway,
        aiohttp.ClientSession() as session,
    ):
        page = await open_page(gateway.inspector_url)
        await session.get(gateway.url("/v1/stt"))
        headers = {"Authorization": "Bearer sesame-4711"}
        gateway.inject(DropAfter())
        async with session.ws_connect(gateway.url("/v1/echo"), headers=headers) as ws:
            await ws.receive(5)
        async with session.ws_connect(gateway.url("/v1/echo"), headers=headers):
            await expect(rows(page, 1).locator(".state")).to_contain_text("no bearer token")
            await expect(rows(page)).to_have_count(3)
            await expect(page.locator("#shown")).to_have_text("3 of 3 shown, 2 failed")
            await rows(page, 1).locator(".path").click()
            reason = page.locator('[data-fact="Reason"]')
            await expect(reason).to_have_text("no bearer token")


async def test_a_search_finds_by_ids_and_by_what_went_wrong(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    page = await open_page(inspected.inspector_url)
    async with InferenceConnection(session, inspected.url("/v1/stt"), identity=IDS):
        await session.get(inspected.base_url + "/nowhere")
        await expect(rows(page)).to_have_count(2)
        search = page.get_by_label("Search")
        for text, found in (("pa_x7nc", 1), ("such service", 2), ("404", 2)):
            await search.fill(text)
            await expect(rows(page).filter(visible=True)).to_have_count(1)
            await expect(rows(page, found)).to_be_visible()
        await search.fill("nothing has this")
        await page.get_by_role("button", name="Show all").click()
        await expect(rows(page).filter(visible=True)).to_have_count(2)
        await expect(search).to_have_value("")
