"""A line that freezes or breaks under TLS, where an orderly close would wait for its peer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import aiohttp
import pytest
from helpers.support import Room
from matrix.proxy import FaultProxy

from agent_conn import ConnectTimeout, Ending, HandshakeInvalid, InferenceConnection
from agent_conn.gateway import Gateway, StallInHandshake
from agent_conn.gateway.server.certificates import make_contexts


@dataclass
class FrozenLine:
    """A TLS line to a gateway through a proxy, and a session with one slot to reach it."""

    proxy: FaultProxy
    gateway: Gateway
    session: aiohttp.ClientSession
    url: str

    def dial(self, **options: object) -> InferenceConnection:
        return InferenceConnection(
            self.session,
            self.url,
            close_timeout=0.1,
            **options,  # type: ignore[arg-type]
        )


@asynccontextmanager
async def frozen_line() -> AsyncIterator[FrozenLine]:
    async with Gateway(tls=True) as gateway, FaultProxy(gateway.port) as proxy:
        connector = aiohttp.TCPConnector(limit=1, ssl=gateway.client_ssl or True)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield FrozenLine(proxy, gateway, session, f"wss://127.0.0.1:{proxy.port}/v1/echo")


@pytest.fixture
async def line() -> AsyncIterator[FrozenLine]:
    async with frozen_line() as opened:
        yield opened


async def test_a_pre_dial_that_is_given_up_closes_its_socket_at_once(line: FrozenLine) -> None:
    connection = line.dial(room_connected=asyncio.Event(), connect_wait=None)
    opening = asyncio.create_task(_open(connection))
    await line.gateway.wait_until(lambda: line.gateway.accepted == 1)
    await until_pre_dialed(connection)
    line.proxy.passages[0].lose()
    opening.cancel()
    await asyncio.wait({opening})
    await line.proxy.until_clients_have_left(2.0)
    assert opening.cancelled()


async def test_a_handshake_that_is_given_up_closes_its_socket_at_once(line: FrozenLine) -> None:
    line.gateway.inject(StallInHandshake())
    opening = asyncio.create_task(_open(line.dial(open_timeout=0.3)))
    await line.gateway.wait_until(lambda: bool(line.gateway.handshakes))
    line.proxy.passages[0].lose()
    with pytest.raises(ConnectTimeout):
        await opening
    await line.proxy.until_clients_have_left(2.0)


async def test_an_open_connection_that_is_closed_closes_its_socket_in_time(
    line: FrozenLine,
) -> None:
    connection = line.dial()
    await connection
    line.proxy.passages[0].lose()
    await connection.aclose()
    await line.proxy.until_clients_have_left(2.0)
    assert connection.record.ended is Ending.ABORTED


async def test_a_pre_dial_that_broke_during_the_wait_is_replaced_by_one_cold_dial_in_its_slot(
    line: FrozenLine, room: Room
) -> None:
    connection = line.dial(room_connected=room.connected, connect_wait=None)
    opening = asyncio.create_task(_open(connection))
    await until_pre_dialed(connection)
    line.proxy.passages[0].half_close()
    await line.proxy.wait_until(lambda: not line.proxy.passages)
    room.connected.set()
    await opening
    assert (connection.record.pre_dialed, connection.record.dials) == (False, 2)
    assert line.proxy.accepted == 2
    await connection.aclose()


async def until_pre_dialed(connection: InferenceConnection) -> None:
    async with asyncio.timeout(2.0):
        while connection.record.pre_dial is None:  # noqa: ASYNC110  (a record has no event)
            await asyncio.sleep(0)


async def _open(connection: InferenceConnection) -> object:
    return await connection


async def test_a_peer_that_talks_nonsense_and_then_nothing_keeps_no_socket() -> None:
    server_ssl, client_ssl = await asyncio.to_thread(make_contexts, "127.0.0.1")
    client_left = asyncio.Event()

    async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        transport = cast("asyncio.Transport", writer.transport)
        # It will not see the client's end of TLS, and so never answer it.
        transport.pause_reading()
        writer.write(b"\0nonsense\r\n\r\n")
        await client_left.wait()
        transport.abort()

    server = await asyncio.start_server(talk_nonsense, "127.0.0.1", 0, ssl=server_ssl)
    port = server.sockets[0].getsockname()[1]
    async with server, FaultProxy(port) as proxy:
        connector = aiohttp.TCPConnector(limit=1, ssl=client_ssl)
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(HandshakeInvalid):
                await InferenceConnection(session, f"wss://127.0.0.1:{proxy.port}/")
            await proxy.until_clients_have_left(2.0)
        client_left.set()
