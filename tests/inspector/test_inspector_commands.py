"""The commands that an empty page gives: they run as they stand, and a connection appears."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.gateway_process import gateway_process
from playwright.async_api import Page, expect

from agent_conn.gateway import Gateway, Inspector

if TYPE_CHECKING:
    from inspector.conftest import OpenPage

pytestmark = pytest.mark.timeout(120)


async def run_commands(page: Page, variables: Mapping[str, str]) -> tuple[int | None, str]:
    """Paste what the page shows into a shell, whose environment is `variables` alone."""
    told = [await page.locator(f"#{name}").inner_text() for name in ("commands", "probe")]
    shell = await asyncio.create_subprocess_exec(
        *("sh", "-c", "\n".join(told)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables},
    )
    out, _ = await shell.communicate()
    return shell.returncode, out.decode()


async def test_the_commands_of_a_gateway_that_is_open_to_all(open_page: OpenPage) -> None:
    async with Gateway(inspector=Inspector()) as gateway:
        page = await open_page(gateway.inspector_url)
        await expect(page.locator("#empty")).to_contain_text("takes any key and secret")
        status, out = await run_commands(page, {})
        assert (status, "open" in out) == (0, True)
        assert gateway.handshakes[-1].path == "/v1/stt"
        await expect(page.locator(".row")).to_have_count(1)
        await expect(page.locator(".row .path")).to_contain_text("/v1/stt")


@pytest.mark.parametrize("own", [False, True], ids=["published pair", "own pair"])
async def test_the_commands_of_the_command_lines_gateway(open_page: OpenPage, own: bool) -> None:
    pair = {"AGENT_CONN_API_KEY": "own-key", "AGENT_CONN_API_SECRET": "canary-own-secret-0123"}
    given = pair if own else {}
    async with gateway_process("--engine", "scripted", variables=given) as served:
        url = (await served.environment(**given))["LIVEKIT_INFERENCE_URL"].removesuffix("v1")
        page = await open_page(url)
        await expect(page.locator("#empty")).to_contain_text("was started with")
        assert "canary" not in await page.content()
        status, out = await run_commands(page, given)
        assert status == 0, out
        await expect(page.locator(".row")).to_have_count(1)


async def test_credentials_that_the_page_does_not_know_are_asked_for(open_page: OpenPage) -> None:
    async with Gateway(token="sesame-4711", inspector=Inspector()) as gateway:
        page = await open_page(gateway.inspector_url)
        await expect(page.locator("#empty")).to_contain_text("Export the credentials that")
        assert "sesame" not in await page.content()
        status, _ = await run_commands(page, {"LIVEKIT_INFERENCE_TOKEN": "sesame-4711"})
        assert status == 0
        await expect(page.locator(".row")).to_have_count(1)
