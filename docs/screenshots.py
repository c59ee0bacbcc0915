"""Take the documentation's pictures of the inspector. It needs playwright and a Chromium.

    python docs/screenshots.py

Six connections, at least one at each level of attribution: the last has waited for its room, the
gateway has closed one and refused one.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiohttp
from playwright.async_api import async_playwright

from agent_conn import AgentIdentity, HandshakeRejected, InferenceConnection
from agent_conn.gateway import CloseWith, Gateway, Inspector, Reject, ScriptedEngine

ASSETS = Path(__file__).parent / "assets"
WHOLE = AgentIdentity("AJ_s3b7KqW2nVdE", "RM_x9k2TtRb5uLc", "PA_q4m1HfJ6sXyD")
CALLS = (
    ("/v1/stt?model=auto", AgentIdentity()),
    ("/v1/tts?model=cartesia/sonic-3", AgentIdentity("AJ_c6t0ErN8wPiB")),
    ("/v1/stt?model=auto", AgentIdentity("AJ_p8h1YcM4oZgA", "RM_k7f2UvBq9sDe")),
    ("/v1/tts?model=cartesia/sonic-3", WHOLE),
)
ROOM_SECONDS = 0.4
SIZES = ((1440, 640), (390, 844))


async def call(connection: InferenceConnection) -> None:
    """Begin a session and hear of it."""
    await connection.ws.send_json({"type": "session.create", "sample_rate": "24000"})
    await connection.ws.receive()


async def main() -> None:
    """Open the calls and take a picture for each width and each colour scheme."""
    async with AsyncExitStack() as stack:
        gateway = Gateway(ScriptedEngine(), inspector=Inspector())
        await stack.enter_async_context(gateway)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for path, identity in CALLS:
            connection = InferenceConnection(session, gateway.url(path), identity=identity)
            await stack.enter_async_context(connection)
            await call(connection)
        gateway.inject(Reject(429))
        with suppress(HandshakeRejected):
            await InferenceConnection(session, gateway.url("/v1/stt"), identity=WHOLE)
        room = asyncio.Event()
        asyncio.get_running_loop().call_later(ROOM_SECONDS, room.set)
        waiting = InferenceConnection(
            session, gateway.url(CALLS[0][0]), identity=WHOLE, room_connected=room, connect_wait=2.0
        )
        await stack.enter_async_context(waiting)
        await call(waiting)
        lost = gateway.connections[1]
        lost.inject(CloseWith(1011))
        await gateway.wait_until(lambda: lost not in gateway.connections)
        browsers = await stack.enter_async_context(async_playwright())
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = await browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width, height in SIZES:
            for scheme in ("light", "dark"):
                page = await browser.new_page(
                    viewport={"width": width, "height": height},
                    color_scheme="light" if scheme == "light" else "dark",
                )
                await page.goto(gateway.inspector_url)
                await page.get_by_text(WHOLE.agent_id or "").first.wait_for()
                await page.screenshot(path=ASSETS / f"inspector-{width}-{scheme}.png")
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
