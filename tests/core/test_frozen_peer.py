"""A line that freezes or breaks under TLS, where an orderly close would wait for its peer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from support import Room

from agent_conn import ConnectTimeout, Ending, InferenceConnection
from agent_conn.gateway import Gateway, StallInHandshake


@dataclass
class Forwarder:
    """Carries bytes between its clients and a gateway, until it is told not to."""

    port: int
    connections: int = 0
    open: set[asyncio.Task[None]] = field(default_factory=set)
    frozen: bool = False
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers += [writer, far_writer]
        back = asyncio.create_task(self.carry(far_reader, writer))
        self.open.add(asyncio.create_task(self.carry(reader, far_writer), name="client"))
        await asyncio.wait({back})

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65_536):
                if not self.frozen:
                    writer.write(chunk)
        except ConnectionError:
            pass

    async def until_clients_are_gone(self) -> None:
        async with asyncio.timeout(2.0):
            await asyncio.wait(self.open)

    def drop(self) -> None:
        for writer in self.writers:
            writer.close()

    async def aclose(self) -> None:
        self.drop()
        await asyncio.gather(*(w.wait_closed() for w in self.writers), return_exceptions=True)


@dataclass
class FrozenLine:
    """A TLS line to a gateway through a forwarder."""

    forwarder: Forwarder
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
    async with Gateway(tls=True) as gateway:
        forwarder = Forwarder(gateway.port)
        server = await asyncio.start_server(forwarder.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connector = aiohttp.TCPConnector(ssl=gateway.client_ssl or True)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield FrozenLine(forwarder, gateway, session, f"wss://127.0.0.1:{port}/v1/echo")
        server.close()
        await forwarder.aclose()
        await server.wait_closed()
        await asyncio.sleep(0)


@pytest.fixture
async def line() -> AsyncIterator[FrozenLine]:
    async with frozen_line() as opened:
        yield opened


async def test_a_pre_dial_that_is_given_up_closes_its_socket_at_once(line: FrozenLine) -> None:
    connection = line.dial(room_connected=asyncio.Event(), connect_wait=None)
    opening = asyncio.create_task(_open(connection))
    await line.gateway.wait_until(lambda: line.gateway.accepted == 1)
    await until_pre_dialed(connection)
    line.forwarder.frozen = True
    opening.cancel()
    await asyncio.wait({opening})
    await line.forwarder.until_clients_are_gone()
    assert opening.cancelled()


async def test_a_handshake_that_is_given_up_closes_its_socket_at_once(line: FrozenLine) -> None:
    line.gateway.inject(StallInHandshake())
    opening = asyncio.create_task(_open(line.dial(open_timeout=0.3)))
    await line.gateway.wait_until(lambda: bool(line.gateway.handshakes))
    line.forwarder.frozen = True
    with pytest.raises(ConnectTimeout):
        await opening
    await line.forwarder.until_clients_are_gone()


async def test_an_open_connection_that_is_closed_closes_its_socket_in_time(
    line: FrozenLine,
) -> None:
    connection = line.dial()
    await connection
    line.forwarder.frozen = True
    await connection.aclose()
    await line.forwarder.until_clients_are_gone()
    assert connection.record.ended is Ending.ABORTED


async def test_a_pre_dial_that_broke_during_the_wait_is_replaced_by_one_cold_dial(
    line: FrozenLine, room: Room
) -> None:
    connection = line.dial(room_connected=room.connected, connect_wait=None)
    opening = asyncio.create_task(_open(connection))
    await until_pre_dialed(connection)
    line.forwarder.drop()
    await line.forwarder.until_clients_are_gone()
    room.connected.set()
    await opening
    assert (connection.record.pre_dialed, connection.record.dials) == (False, 2)
    assert line.forwarder.connections == 2
    await connection.aclose()


async def until_pre_dialed(connection: InferenceConnection) -> None:
    async with asyncio.timeout(2.0):
        while connection.record.pre_dial is None:  # noqa: ASYNC110  (a record has no event)
            await asyncio.sleep(0)


async def _open(connection: InferenceConnection) -> object:
    return await connection
