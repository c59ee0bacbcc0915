"""The proxy does to a line what it says, seen from both ends with plain sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from matrix.proxy import FaultProxy, Passage


@dataclass
class Ends:
    """Both ends of one passage: what is written at one is read at the other."""

    proxy: FaultProxy
    client: asyncio.StreamReader
    to_gateway: asyncio.StreamWriter
    gateway: asyncio.StreamReader
    to_client: asyncio.StreamWriter

    @property
    def passage(self) -> Passage:
        (passage,) = self.proxy.passages
        return passage


@asynccontextmanager
async def open_ends() -> AsyncIterator[Ends]:
    served: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    writers: list[asyncio.StreamWriter] = []

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        served.put_nowait((reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with FaultProxy(port) as proxy:
        client, to_gateway = await asyncio.open_connection("127.0.0.1", proxy.port)
        writers.append(to_gateway)
        gateway, to_client = await served.get()
        ends = Ends(proxy, client, to_gateway, gateway, to_client)
        await exchange(ends)
        yield ends
    server.close()
    for writer in writers:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()
    await server.wait_closed()


async def exchange(ends: Ends) -> None:
    ends.to_gateway.write(b"ping")
    assert await ends.gateway.readexactly(4) == b"ping"
    ends.to_client.write(b"pong")
    assert await ends.client.readexactly(4) == b"pong"


@pytest.fixture
async def ends(loop_reports: list[dict[str, Any]]) -> AsyncIterator[Ends]:
    async with open_ends() as opened:
        yield opened


async def is_silent(reader: asyncio.StreamReader) -> bool:
    """Whether nothing comes while the loop turns over and over."""
    reading = asyncio.create_task(reader.read(1))
    for _ in range(50):
        await asyncio.sleep(0)
    silent = not reading.done()
    reading.cancel()
    await asyncio.wait({reading})
    return silent


async def test_what_a_lost_line_took_is_delivered_when_it_is_restored(ends: Ends) -> None:
    ends.passage.lose()
    ends.to_gateway.write(b"late ping")
    ends.to_client.write(b"late pong")
    await ends.proxy.wait_until(lambda: ends.passage.withholds)
    assert await is_silent(ends.gateway)
    assert await is_silent(ends.client)
    ends.passage.restore()
    assert await ends.gateway.readexactly(9) == b"late ping"
    assert await ends.client.readexactly(9) == b"late pong"


async def flood(writer: asyncio.StreamWriter, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while True:
            writer.write(b"\x00" * 1_000_000)
            await writer.drain()


@pytest.mark.parametrize("strike", [Passage.lose, Passage.stall])
async def test_a_sender_into_a_lost_or_stalled_line_blocks(ends: Ends, strike: Any) -> None:
    strike(ends.passage)
    with pytest.raises(TimeoutError):
        await flood(ends.to_gateway, 0.2)
    assert await is_silent(ends.gateway)


async def test_a_stalled_line_still_delivers_what_the_gateway_says(ends: Ends) -> None:
    ends.passage.stall()
    ends.to_client.write(b"pong")
    assert await ends.client.readexactly(4) == b"pong"


async def test_a_slow_line_delivers_all_of_it_a_little_at_a_time(ends: Ends) -> None:
    ends.passage.slow(0.001, 1)
    ends.to_client.write(b"pong")
    assert await ends.client.read(100) == b"p"
    assert await ends.client.readexactly(3) == b"ong"


async def test_a_reset_is_one(ends: Ends) -> None:
    ends.passage.reset()
    with pytest.raises(ConnectionResetError):
        await ends.client.read(1)
    await ends.proxy.wait_until(lambda: not ends.proxy.passages)


async def test_a_half_closed_line_still_carries_what_the_client_sends(ends: Ends) -> None:
    ends.passage.half_close()
    assert await ends.client.read(1) == b""
    ends.to_gateway.write(b"still here")
    assert await ends.gateway.readexactly(10) == b"still here"


async def test_an_end_at_one_side_ends_the_other(ends: Ends) -> None:
    ends.to_gateway.close()
    assert await ends.gateway.read(1) == b""
    ends.to_client.close()
    await ends.proxy.wait_until(lambda: not ends.proxy.passages)


async def test_a_client_that_stays_is_told_of(ends: Ends) -> None:
    with pytest.raises(TimeoutError, match="near=open"):
        await ends.proxy.until_clients_have_left(0.05)
    ends.to_gateway.close()
    await ends.proxy.until_clients_have_left(1.0)


async def greet(port: int) -> None:
    """Connect, speak and wait for an answer."""
    # A reset may come before connect() has returned: that is the kernel's to say.
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello")
    try:
        await reader.read(1)
    finally:
        writer.close()


@pytest.mark.parametrize("moment", ["at_accept", "at_first_bytes"])
async def test_what_is_armed_strikes_the_next_connection_alone(ends: Ends, moment: str) -> None:
    setattr(ends.proxy, moment, Passage.reset)
    await exchange(ends)
    with pytest.raises(ConnectionResetError):
        await greet(ends.proxy.port)
    await exchange(ends)
    assert getattr(ends.proxy, moment) is None


async def test_a_proxy_that_refuses_or_ignores_connects_can_be_healed(ends: Ends) -> None:
    ends.proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", ends.proxy.port)
    await ends.proxy.heal()
    ends.proxy.ignore_connects()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await asyncio.open_connection("127.0.0.1", ends.proxy.port)
    await ends.proxy.heal()
    _, writer = await asyncio.open_connection("127.0.0.1", ends.proxy.port)
    writer.close()
    await writer.wait_closed()
