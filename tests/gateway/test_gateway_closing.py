from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from agent_conn.gateway import (
    FAULTS,
    CloseWith,
    ConcurrencyLimit,
    Fault,
    Gateway,
    Redirect,
    Reset,
    ScriptedEngine,
    StallAtAccept,
    StallAtTLS,
    Transcript,
)
from agent_conn.gateway.sessions.protocol import InputAudio, SttCreate, to_json

if TYPE_CHECKING:
    from gateway.conftest import Client

pytestmark = pytest.mark.timeout(20)

CLOSE_BOUND = 1.2
SPECIAL: dict[type[Fault], Fault] = {
    Redirect: Redirect("/v1/echo"),
    CloseWith: CloseWith(1011, after_messages=1),
    ConcurrencyLimit: ConcurrencyLimit(0),
    Reset: Reset("tls"),
}
INSTANCES = [SPECIAL[fault] if fault in SPECIAL else fault() for fault in FAULTS]  # type: ignore[call-arg]


async def talk(client: Client) -> None:
    """Connect, send, and read to the end, whatever comes of it."""
    with contextlib.suppress(aiohttp.ClientError, OSError):
        ws = await client.open("/v1/echo")
        await ws.send_bytes(bytes(65_536))
        async for message in ws:
            assert message.data


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("fault", INSTANCES, ids=lambda fault: type(fault).__name__)
async def test_a_gateway_closes_in_time_under_every_fault(
    fault: Fault,
    tls: bool,
    connect_to: Callable[[Gateway], contextlib.AbstractAsyncContextManager[Client]],
) -> None:
    before = asyncio.all_tasks()
    gateway = Gateway(tls=tls)
    await gateway.start()
    injection = gateway.inject(fault)
    async with connect_to(gateway) as client:
        talking = asyncio.ensure_future(talk(client))
        if not isinstance(fault, StallAtAccept):
            await gateway.wait_until(lambda: injection.struck > 0)
        if not isinstance(fault, (StallAtAccept, StallAtTLS, Reset)):
            await gateway.wait_until(lambda: len(gateway.handshakes) > 0)
        started = time.monotonic()
        await gateway.aclose()
        took = time.monotonic() - started
        assert took < CLOSE_BOUND
        assert gateway.open_sockets == 0
        assert gateway.connections == []
        await gateway.aclose()
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
    assert asyncio.all_tasks() == before


async def test_open_connections_are_told_that_the_gateway_goes_away(
    connect_to: Callable[[Gateway], contextlib.AbstractAsyncContextManager[Client]],
) -> None:
    gateway = Gateway()
    await gateway.start()
    async with connect_to(gateway) as client:
        ws = await client.open()
        closing = asyncio.ensure_future(gateway.aclose())
        message = await ws.receive(2)
        await closing
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)


async def test_a_client_that_does_not_read_cannot_hold_the_close(
    either_gateway: Gateway, either_client: Client
) -> None:
    ws = await either_client.open("/v1/echo")
    with pytest.raises(TimeoutError):
        await either_client.flood(ws, 0.5)
    started = time.monotonic()
    await either_gateway.aclose()
    assert time.monotonic() - started < CLOSE_BOUND
    assert either_gateway.open_sockets == 0


async def test_sockets_are_counted_from_accept_to_close(
    either_gateway: Gateway, either_client: Client
) -> None:
    assert (either_gateway.open_sockets, either_gateway.accepted) == (0, 0)
    first = await either_client.open()
    second = await either_client.open()
    assert (either_gateway.open_sockets, either_gateway.accepted) == (2, 2)
    await first.close()
    await either_gateway.wait_until(lambda: either_gateway.open_sockets == 1)
    await second.close()
    await either_gateway.wait_idle(2)
    assert either_gateway.accepted == 2


async def test_a_stalled_socket_is_counted_until_its_peer_closes_it(gateway: Gateway) -> None:
    gateway.inject(StallAtTLS(), times=2)
    writers = []
    for _ in range(2):
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writers.append(writer)
    await gateway.wait_until(lambda: gateway.open_sockets == 2)
    writers[0].close()
    await gateway.wait_until(lambda: gateway.open_sockets == 1)
    with pytest.raises(TimeoutError, match=r"#2 from 127\.0\.0\.1:\d+ \(stalled before TLS\)"):
        await gateway.wait_idle(0.05)
    writers[1].transport.abort()
    await gateway.wait_idle(2)
    for writer in writers:
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    assert gateway.accepted == 2


async def test_a_parked_connection_without_a_request_is_counted(either_gateway: Gateway) -> None:
    _, writer = await asyncio.open_connection(
        "127.0.0.1", either_gateway.port, ssl=either_gateway.client_ssl
    )
    await either_gateway.wait_until(lambda: either_gateway.open_sockets == 1)
    writer.close()
    await writer.wait_closed()
    await either_gateway.wait_idle(2)
    assert either_gateway.handshakes == []


async def test_many_connections_come_and_go(gateway: Gateway, client: Client) -> None:
    async def visit(number: int) -> str:
        ws = await client.open()
        await ws.send_str(str(number))
        answer = await ws.receive(5)
        await ws.close()
        return str(answer.data)

    answers = await asyncio.gather(*(visit(number) for number in range(200)))
    assert answers == [str(number) for number in range(200)]
    await gateway.wait_idle(5)
    assert gateway.accepted == 200


async def test_closing_an_unstarted_gateway_is_nothing() -> None:
    gateway = Gateway()
    await gateway.aclose()
    assert gateway.open_sockets == 0


class StubbornRecognizer:
    """An engine's recogniser that never gets done, not even with closing."""

    async def feed(self, pcm: bytes) -> list[Transcript]:
        await asyncio.Event().wait()
        return []

    async def finalize(self) -> list[Transcript]:
        return []

    async def aclose(self) -> None:
        await asyncio.Event().wait()


class StubbornEngine(ScriptedEngine):
    def recognizer(self, sample_rate: int, language: str | None = None) -> Any:
        return StubbornRecognizer()


async def test_an_engine_that_never_ends_cannot_hold_the_close(
    connect_to: Callable[[Gateway], contextlib.AbstractAsyncContextManager[Client]],
) -> None:
    before = asyncio.all_tasks()
    gateway = Gateway(StubbornEngine())
    await gateway.start()
    async with connect_to(gateway) as client:
        ws = await client.open("/v1/stt")
        for message in (SttCreate(), InputAudio(bytes(3200))):
            await ws.send_str(to_json(message))
        await gateway.wait_until(lambda: gateway.connections[0].messages_received == 2)
        started = time.monotonic()
        await gateway.aclose()
        assert time.monotonic() - started < CLOSE_BOUND
    assert asyncio.all_tasks() == before
