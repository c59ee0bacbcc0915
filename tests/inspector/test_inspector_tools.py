"""The page's tools: sorting, clearing, exporting, and why the gateway is gone."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from helpers.gateway_process import gateway_process
from playwright.async_api import Page, expect

from agent_conn import AgentIdentity, InferenceConnection
from agent_conn.gateway import Gateway, Inspector, Reject, StallAtTLS

if TYPE_CHECKING:
    from inspector.conftest import OpenPage

pytestmark = pytest.mark.timeout(120)

IDS = AgentIdentity(job_id="AJ_1", room_id="RM_1", agent_id="PA_1")
ORDER = "rows => rows.map((one) => Number(one.dataset.line))"


def rows(page: Page, line: int | None = None) -> Any:
    return page.locator(".row" if line is None else f'.row[data-line="{line}"]')


def head(page: Page, name: str) -> Any:
    return page.get_by_role("columnheader", name=name)


async def test_a_click_on_a_columns_head_sorts_and_another_turns_round(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    page = await open_page(inspected.inspector_url, width=1440)
    for identity, messages in ((AgentIdentity("AJ_1"), 2), (IDS, 1), (AgentIdentity(), 3)):
        async with InferenceConnection(session, inspected.url("/v1/echo"), identity=identity) as ws:
            for _ in range(messages):
                await ws.send_str("word")
                await ws.receive(5)
    await expect(rows(page)).to_have_count(3)
    assert await rows(page).evaluate_all(ORDER) == [3, 2, 1]
    for name, order in (("Level", [2, 1, 3]), ("Bytes", [3, 1, 2])):
        button = head(page, name).get_by_role("button")
        await button.click()
        await expect(head(page, name)).to_have_attribute("aria-sort", "descending")
        assert await rows(page).evaluate_all(ORDER) == order
        await button.click()
        await expect(head(page, name)).to_have_attribute("aria-sort", "ascending")
        assert await rows(page).evaluate_all(ORDER) == order[::-1]
    # What comes takes its place in the order, and what has focus keeps it.
    await rows(page, 1).focus()
    async with InferenceConnection(session, inspected.url("/v1/echo"), identity=IDS):
        await expect(rows(page)).to_have_count(4)
        assert await rows(page).evaluate_all(ORDER) == [4, 2, 1, 3]
        await expect(rows(page, 1)).to_be_focused()


async def test_clear_forgets_what_has_ended_and_counts_anew(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    page = await open_page(inspected.inspector_url)
    async with InferenceConnection(session, inspected.url("/v1/echo")) as ws:
        await ws.send_str("nobody's")
        await ws.receive(5)
    async with InferenceConnection(session, inspected.url("/v1/echo"), identity=IDS) as ws:
        await ws.send_str("the agent's")
        await ws.receive(5)
        await expect(page.locator("#share")).not_to_have_text("100%")
        await expect(rows(page)).to_have_count(2)
        await page.get_by_role("button", name="Clear").click()
        await expect(rows(page)).to_have_count(1)
        await expect(rows(page, 2)).to_be_visible()
        await expect(page.locator("#share")).to_have_text("100%")


async def test_the_export_is_a_har_without_secrets_and_without_what_was_said(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage, tmp_path: Path
) -> None:
    page = await open_page(inspected.inspector_url)
    connection = InferenceConnection(
        session, inspected.url("/v1/tts?model=m"), identity=IDS, token="canary-token-4711"
    )
    async with connection as ws:
        await ws.send_json({"type": "session.create"})
        await ws.send_json({"type": "input_transcript", "transcript": "canary words"})
        inspected.inject(Reject(429))
        await session.get(inspected.base_url + "/models")
        await expect(rows(page)).to_have_count(2)
        async with page.expect_download() as download:
            await page.get_by_role("link", name="Export").click()
        await (await download.value).save_as(tmp_path / "all.har")
    text = await asyncio.to_thread((tmp_path / "all.har").read_text)
    assert "canary" not in text
    log = json.loads(text)["log"]
    assert log["version"] == "1.2"
    opened, refused = log["entries"]
    assert opened["request"]["url"] == inspected.url("/v1/tts")
    assert opened["request"]["queryString"] == [{"name": "model", "value": "m"}]
    assert (opened["response"]["status"], opened["_state"]) == (101, "open")
    assert opened["_ids"]["agent"] == "PA_1"
    assert {"way": "in", "type": "input_transcript", "count": 1}.items() <= opened["_messages"][
        -1
    ].items()
    assert (refused["request"]["method"], refused["response"]["status"]) == ("GET", 429)
    assert refused["_fault"] == "reject with 429"
    assert opened["timings"]["wait"] >= 0


async def test_the_page_says_why_the_gateway_is_gone(open_page: OpenPage) -> None:
    async with gateway_process("--engine", "scripted") as served:
        url = (await served.environment())["LIVEKIT_INFERENCE_URL"].removesuffix("v1")
        page = await open_page(url)
        await expect(page.locator("#live")).to_have_text("Live")
        served.process.kill()
        await expect(page.get_by_role("alert")).to_contain_text("was killed or crashed")
    async with Gateway(inspector=Inspector()) as gateway:
        page = await open_page(gateway.inspector_url)
        await expect(page.locator("#live")).to_have_text("Live")
    await expect(page.get_by_role("alert")).to_contain_text("The gateway was stopped at ")


async def test_one_page_too_many_is_told_why_it_is_refused(
    inspected: Gateway, http: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    events = [await http.get(inspected.inspector_url + "inspector/events") for _ in range(16)]
    page = await open_page(inspected.inspector_url)
    await expect(page.get_by_role("alert")).to_contain_text("16 pages are open already")
    for one in events:
        one.close()
    await expect(page.locator("#live")).to_have_text("Live")
    await expect(page.get_by_role("alert")).to_be_hidden()


async def test_a_connection_has_one_number_everywhere_and_its_time_by_the_clock(
    inspected: Gateway,
    session: aiohttp.ClientSession,
    open_page: OpenPage,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    # The page's own sockets are counted as sockets, and never as connections.
    page = await open_page(inspected.inspector_url)
    await session.get(inspected.base_url + "/nothing")
    before = time.time()
    async with InferenceConnection(session, inspected.url("/v1/echo"), identity=IDS):
        await expect(rows(page, 2)).to_be_visible()
        await expect(rows(page, 2).locator(".number")).to_have_text("2")
        (opened,) = [one for one in caplog.messages if "gateway.connection_opened" in one]
        assert opened.startswith("gateway.connection_opened: #2 /v1/echo AGENT agent=PA_1")
        assert [one.number for one in inspected.handshakes] == [1, 2]
        shown = await rows(page, 2).locator(".began .first").inner_text()
    around = {time.strftime("%H:%M:%S", time.localtime(before + late)) for late in (0, 1, 2)}
    assert shown in around


async def test_a_fault_before_any_request_is_named(inspected: Gateway, open_page: OpenPage) -> None:
    page = await open_page(inspected.inspector_url)
    await expect(page.locator("#live")).to_have_text("Live")
    inspected.inject(StallAtTLS())
    _, writer = await asyncio.open_connection("127.0.0.1", inspected.port)
    await expect(rows(page).locator(".state")).to_contain_text("fault: stall at TLS")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("width", [1024, 1280, 1440])
async def test_every_row_is_in_reach_while_the_drawer_is_open(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage, width: int
) -> None:
    page = await open_page(inspected.inspector_url, width=width)
    for _ in range(3):
        async with InferenceConnection(session, inspected.url("/v1/echo"), identity=IDS):
            pass
    await rows(page, 1).locator(".path").click()
    drawer = await page.locator("#drawer").bounding_box()
    assert drawer is not None
    for line in (1, 2, 3):
        row = await rows(page, line).bounding_box()
        assert row is not None
        assert row["x"] + row["width"] <= drawer["x"]
        await rows(page, line).locator(".began").click()
        await expect(page.locator("#drawer-title")).to_contain_text(f"#{line} ")
    assert await page.evaluate("document.documentElement.scrollWidth") == width


async def test_failures_can_be_filtered(
    inspected: Gateway, session: aiohttp.ClientSession, open_page: OpenPage
) -> None:
    page = await open_page(inspected.inspector_url)
    inspected.inject(Reject(429))
    await session.get(inspected.base_url + "/models")
    async with InferenceConnection(session, inspected.url("/v1/echo")):
        await expect(rows(page)).to_have_count(2)
        await page.get_by_label("State").select_option("failed")
        await expect(rows(page).filter(visible=True)).to_have_count(1)
        await expect(rows(page, 1)).to_be_visible()
        told = page.locator("#failed-count")
        await expect(told).to_have_text(re.compile("1 failed"))
