from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
import ssl
from collections.abc import AsyncIterator
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

import aiohttp
import pytest

from agent_conn.gateway import (
    FAULTS,
    AcceptAndClose,
    BadAccept,
    CloseWith,
    DropAfter,
    DropHandshake,
    Fault,
    Garbage,
    Gateway,
    GoSilent,
    IgnoreClose,
    NotWebSocket,
    Redirect,
    Reject,
    Reset,
    StallAtAccept,
    StallAtTLS,
    StallInHandshake,
    StopReading,
    UnaskedExtension,
    UnaskedSubprotocol,
)

if TYPE_CHECKING:
    from gateway.conftest import Client

pytestmark = pytest.mark.timeout(20)

SHORT = 0.15
REQUEST = (
    b"GET /v1/echo HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@contextlib.asynccontextmanager
async def raw_connection(
    gateway: Gateway,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", gateway.port, ssl=gateway.client_ssl
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask_raw(gateway: Gateway) -> bytes:
    """Send a handshake; return everything that comes until the end of the stream."""
    async with raw_connection(gateway) as (reader, writer):
        writer.write(REQUEST)
        return await reader.read()


async def no_answer(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(SHORT):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


def test_every_fault_is_listed_and_documented() -> None:
    assert len(set(FAULTS)) == 21
    assert all(fault.__doc__ for fault in FAULTS)


async def test_stall_at_accept_hangs_the_connect_until_it_is_withdrawn(gateway: Gateway) -> None:
    with gateway.inject(StallAtAccept()):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT):
                await asyncio.open_connection("127.0.0.1", gateway.port)
        assert gateway.accepted == 0
    async with raw_connection(gateway) as (_, writer):
        await gateway.wait_until(lambda: gateway.accepted == 1)
        assert writer.get_extra_info("peername")[1] == gateway.port
    await gateway.wait_idle(2)


async def test_a_connect_that_hung_goes_on_when_the_stall_ends(gateway: Gateway) -> None:
    stall = gateway.inject(StallAtAccept())
    connect = asyncio.ensure_future(asyncio.open_connection("127.0.0.1", gateway.port))
    done, _ = await asyncio.wait({connect}, timeout=SHORT)
    assert not done
    stall.withdraw()
    stall.withdraw()
    # The kernel repeats the SYN after a second.
    async with asyncio.timeout(5):
        _, writer = await connect
    writer.close()
    await writer.wait_closed()
    await gateway.wait_idle(2)
    assert gateway.accepted == 1


async def test_stall_at_tls_answers_no_byte() -> None:
    async with Gateway(tls=True) as gateway:
        gateway.inject(StallAtTLS())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT):
                await asyncio.open_connection("127.0.0.1", gateway.port, ssl=gateway.client_ssl)
        assert gateway.accepted == 1
        await gateway.wait_idle(2)


async def test_stall_in_handshake_reads_the_request_and_never_answers(
    either_gateway: Gateway,
) -> None:
    either_gateway.inject(StallInHandshake())
    async with raw_connection(either_gateway) as (reader, writer):
        writer.write(REQUEST)
        await either_gateway.wait_until(lambda: len(either_gateway.handshakes) == 1)
        assert await no_answer(reader)
        assert either_gateway.open_sockets == 1
    await either_gateway.wait_idle(2)
    assert either_gateway.handshakes[0].status is None


@pytest.mark.parametrize("phase", ["accept", "tls", "handshake"])
@pytest.mark.parametrize("tls", [False, True])
async def test_a_reset_before_the_answer_is_a_connection_reset(phase: str, tls: bool) -> None:
    async with Gateway(tls=tls) as gateway:
        gateway.inject(Reset(phase))  # type: ignore[arg-type]
        with pytest.raises(ConnectionResetError):
            await ask_raw(gateway)
        await gateway.wait_idle(2)
        assert len(gateway.handshakes) == (1 if phase == "handshake" else 0)


async def test_a_reset_when_open_comes_after_the_101(either_gateway: Gateway) -> None:
    either_gateway.inject(Reset("open"))
    with pytest.raises(ConnectionResetError):
        await ask_raw(either_gateway)
    await either_gateway.wait_idle(2)
    assert either_gateway.handshakes[0].status == 101


async def test_drop_handshake_ends_the_stream_without_a_byte(either_gateway: Gateway) -> None:
    either_gateway.inject(DropHandshake())
    assert await ask_raw(either_gateway) == b""
    await either_gateway.wait_idle(2)
    assert either_gateway.handshakes[0].status is None


async def test_garbage_is_what_is_answered(either_gateway: Gateway) -> None:
    either_gateway.inject(Garbage(b"\x16\x03nonsense"))
    assert await ask_raw(either_gateway) == b"\x16\x03nonsense"
    await either_gateway.wait_idle(2)


async def test_reject_sends_its_status_headers_and_body(either_client: Client) -> None:
    either_client.gateway.inject(Reject(429, {"Retry-After": "3"}, b'{"hint": "slow down"}'))
    async with either_client.session.get(either_client.gateway.url("/v1/stt")) as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "3"
        assert await response.read() == b'{"hint": "slow down"}'
    assert either_client.gateway.handshakes[0].status == 429


async def test_redirect_names_its_location(client: Client) -> None:
    client.gateway.inject(Redirect("http://elsewhere.invalid/", 307))
    url = client.gateway.base_url + "/stt"
    async with client.session.get(url, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (
            307,
            "http://elsewhere.invalid/",
        )


async def test_bad_accept_is_a_101_that_a_client_refuses(either_client: Client) -> None:
    either_client.gateway.inject(BadAccept())
    with pytest.raises(aiohttp.WSServerHandshakeError, match="Invalid challenge") as refused:
        await either_client.open()
    assert refused.value.status == 101
    await either_client.gateway.wait_idle(2)


async def test_an_unasked_extension_is_named_in_the_101(gateway: Gateway) -> None:
    gateway.inject(UnaskedExtension("x-mystery"))
    async with raw_connection(gateway) as (reader, writer):
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    assert b"Sec-WebSocket-Extensions: x-mystery\r\n" in head


async def test_an_unasked_subprotocol_is_named_in_a_101_that_works(client: Client) -> None:
    client.gateway.inject(UnaskedSubprotocol("x-mystery"))
    async with client.session.get(
        client.gateway.base_url + "/echo",
        headers={
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        },
    ) as response:
        assert response.status == 101
        assert response.headers["Sec-WebSocket-Protocol"] == "x-mystery"


async def test_not_websocket_is_a_200(client: Client) -> None:
    client.gateway.inject(NotWebSocket(b"welcome"))
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await client.open()
    assert refused.value.status == 200


@pytest.mark.parametrize(
    ("fault", "code"), [(AcceptAndClose(1013), 1013), (CloseWith(4001, reason="bye"), 4001)]
)
async def test_a_close_follows_the_101_at_once(
    either_client: Client, fault: Fault, code: int
) -> None:
    either_client.gateway.inject(fault)
    ws = await either_client.open()
    assert (await ws.receive(2)).type is aiohttp.WSMsgType.CLOSE
    assert ws.close_code == code
    await either_client.gateway.wait_idle(2)


async def test_close_with_waits_for_its_messages(client: Client) -> None:
    client.gateway.inject(CloseWith(1011, after_messages=2, reason="enough"))
    ws = await client.open()
    await ws.send_str("one")
    await ws.send_str("two")
    first, second, last = [await ws.receive(2) for _ in range(3)]
    assert (first.data, second.data) == ("one", "two")
    assert (last.type, last.data, last.extra) == (aiohttp.WSMsgType.CLOSE, 1011, "enough")


async def test_a_silent_gateway_answers_neither_message_nor_ping_nor_close(
    either_client: Client,
) -> None:
    gateway = either_client.gateway
    gateway.inject(GoSilent(after_messages=1))
    ws = await either_client.open(autoping=False, timeout=aiohttp.ClientWSTimeout(ws_close=SHORT))
    await ws.send_str("one")
    assert (await ws.receive(2)).data == "one"
    await ws.send_str("two")
    await ws.ping()
    with pytest.raises(TimeoutError):
        await ws.receive(SHORT)
    (connection,) = gateway.connections
    await gateway.wait_until(lambda: connection.messages_received == 2)
    await ws.close()
    assert ws.close_code == 1006
    await either_client.abort()
    await gateway.wait_idle(2)


async def test_a_sender_blocks_when_the_gateway_stops_reading(either_client: Client) -> None:
    gateway = either_client.gateway
    gateway.inject(StopReading(after_messages=1))
    ws = await either_client.open()
    await ws.send_str("one")
    assert (await ws.receive(2)).data == "one"
    with pytest.raises(TimeoutError):
        await either_client.flood(ws, 0.5)
    (connection,) = gateway.connections
    assert connection.messages_received == 1
    await either_client.abort()
    await gateway.wait_idle(2)


async def test_ignore_close_keeps_sending_after_a_close(either_client: Client) -> None:
    gateway = either_client.gateway
    gateway.inject(IgnoreClose(0.01))
    ws = await either_client.open()
    closing = asyncio.ensure_future(ws.close())
    (connection,) = gateway.connections
    await gateway.wait_until(lambda: connection.handshake.status == 101)
    before = connection.messages_sent
    done, _ = await asyncio.wait({closing}, timeout=4 * SHORT)
    assert not done
    assert connection.messages_sent > before + 5
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await either_client.abort()
    await gateway.wait_idle(2)


@pytest.mark.parametrize("reset", [False, True])
async def test_drop_after_ends_tcp_without_a_close(either_client: Client, reset: bool) -> None:
    either_client.gateway.inject(DropAfter(2, reset=reset))
    ws = await either_client.open()
    await ws.send_str("one")
    assert (await ws.receive(2)).data == "one"
    await ws.send_str("two")
    received = [message.data async for message in ws]
    assert received in (["two"], [])
    assert received == ["two"] or reset
    assert ws.close_code == 1006
    await either_client.gateway.wait_idle(2)


@pytest.mark.parametrize("fault", [kind for kind in FAULTS if kind is not Redirect], ids=str)
def test_a_fault_is_plain_data(fault: type[Fault]) -> None:
    made = CloseWith(1011) if fault is CloseWith else fault()  # type: ignore[call-arg]
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == made
    assert asdict(made) == {item.name: getattr(made, item.name) for item in fields(made)}


async def test_a_client_that_aborts_its_tls_handshake_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Gateway(tls=True) as gateway:
        for first_bytes in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00"):
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(first_bytes)
            await gateway.wait_until(lambda: gateway.open_sockets == 1)
            writer.transport.abort()
            await gateway.wait_idle(2)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(
                "127.0.0.1", gateway.port, ssl=ssl.create_default_context()
            )
        await gateway.wait_idle(2)
        assert gateway.accepted == 4
    assert [record.message for record in caplog.records if record.levelname != "DEBUG"] == []
