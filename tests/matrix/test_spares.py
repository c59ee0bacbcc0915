"""A spare, or a successor, that is struck: the one in use goes on, and nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from helpers.support import Stopwatch
from matrix.proxy import FaultProxy, Passage

from agent_conn import InferenceConnection, Reconnector, Standby, reconnect
from agent_conn.gateway import Gateway

STRIKES: dict[str, Callable[[Passage], None]] = {
    "lose": Passage.lose,
    "stall": Passage.stall,
    "reset": Passage.reset,
    "half-close": Passage.half_close,
}
WAYS = ("drop", "cancel", "aclose")
ENOUGH = 5.0
CLOSE = 0.1
MARGIN = 0.3


class Caller:
    """Uses one connection after another until it is let go."""

    def __init__(self, loop: Reconnector) -> None:
        self.loop = loop
        self.echoed = asyncio.Event()
        self.enough = False

    async def run(self) -> None:
        await self.loop.run(self._pump)

    async def _pump(self, connection: InferenceConnection) -> object:
        await connection.ws.send_str("?")
        async for _ in connection.ws:
            self.echoed.set()
            if self.enough:
                return "done"
        return None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("strike", STRIKES)
@pytest.mark.parametrize("moment", ["tls", "idle"])
@pytest.mark.parametrize("beside", ["transport", "websocket", "rotation"])
async def test_what_is_struck_beside_costs_nothing(
    beside: str, moment: str, strike: str, way: str, loop_reports: list[dict[str, Any]]
) -> None:
    async with Gateway(tls=True) as gateway, FaultProxy(gateway.port) as proxy:
        connector = aiohttp.TCPConnector(limit=2, ssl=gateway.client_ssl or True)
        async with aiohttp.ClientSession(connector=connector) as session:
            hit = asyncio.Event()

            def strike_at_tls(passage: Passage) -> None:
                STRIKES[strike](passage)
                hit.set()

            def dial() -> InferenceConnection:
                if proxy.passages and moment == "tls" and not hit.is_set():
                    proxy.at_first_bytes = strike_at_tls
                return InferenceConnection(
                    session,
                    f"wss://127.0.0.1:{proxy.port}/v1/echo",
                    open_timeout=0.5,
                    close_timeout=CLOSE,
                    heartbeat=0.3,
                )

            loop = reconnect(
                dial,
                standby=None if beside == "rotation" else Standby(beside),
                random=lambda: 0.0,
            )
            caller = Caller(loop)
            running = asyncio.create_task(caller.run(), name="caller")
            reach = asyncio.create_task(
                struck(caller, proxy, beside, STRIKES[strike], hit if moment == "tls" else None),
                name="reach",
            )
            async with asyncio.timeout(ENOUGH):
                await reach
            assert not running.done()
            await leave(running, caller, proxy, way)
            await loop.aclose()
            assert loop.connections == ()
            names = {task.get_name() for task in asyncio.all_tasks()}
            assert {name for name in names if name.startswith("agent_conn")} == set()
            await proxy.until_clients_have_left(1.0)
            await gateway.wait_idle(1.0)


async def struck(
    caller: Caller,
    proxy: FaultProxy,
    beside: str,
    strike: Callable[[Passage], None],
    hit: asyncio.Event | None,
) -> None:
    """Return when what is opened beside the first connection was struck."""
    loop = caller.loop
    await caller.echoed.wait()
    rotating = asyncio.create_task(loop.rotate(), name="rotate") if beside == "rotation" else None
    if hit is None:
        while not (loop.statistics.spare_ready or loop.successor):  # noqa: ASYNC110
            await asyncio.sleep(0)
        strike(proxy.passages[-1])
    else:
        await hit.wait()
    if rotating is not None:
        assert await rotating is (hit is None)


async def leave(running: asyncio.Task[None], caller: Caller, proxy: FaultProxy, way: str) -> None:
    """End it, or drop its connection, after which another one has to serve."""
    if way == "drop":
        caller.enough = True
        proxy.passages[0].reset()
        async with asyncio.timeout(ENOUGH):
            await running
        return
    async with Stopwatch() as watch:
        if way == "cancel":
            running.cancel()
        else:
            await caller.loop.aclose()
        await asyncio.wait({running}, timeout=ENOUGH)
    assert running.done()
    assert watch.elapsed <= CLOSE + MARGIN
