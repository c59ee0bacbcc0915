"""How a connection ended is told by what the peer sent, whoever had read it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress

import aiohttp
import pytest
from helpers.support import Line, open_line

from agent_conn import ConnectionLost, Ending, HandshakeInvalid, InferenceConnection, StateError
from agent_conn.gateway import CloseWith, GoSilent, IgnoreClose
from agent_conn.gateway.server.certificates import make_contexts

KEY = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PING, PONG, TEXT, CLOSE = 0x89, 0x8A, 0x81, 0x88


def frame(opcode: int, payload: bytes = b"") -> bytes:
    return bytes([opcode, len(payload)]) + payload


def close(code: int, reason: str = "") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


@asynccontextmanager
async def peer(
    sends: bytes, *, tls: bool = False, hangs_up: bool = True, extra: str = ""
) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """A plain socket that upgrades, ``sends`` and, if told so, hangs up; and a session to it."""
    server_context, client_context = (
        await asyncio.to_thread(make_contexts, "localhost") if tls else (None, True)
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionError, asyncio.IncompleteReadError):
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            key = request.split("Sec-WebSocket-Key: ")[1].split("\r\n")[0]
            accept = base64.b64encode(hashlib.sha1((key + KEY).encode()).digest()).decode()
            writer.write(
                f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n{extra}"
                f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )
            # The client answers nothing before it has the handshake.
            await reader.readexactly(1)
            writer.write(sends)
            if not hangs_up:
                await reader.read()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
    async with (
        listening,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_context)) as session,
    ):
        port = listening.sockets[0].getsockname()[1]
        yield f"{'wss' if tls else 'ws'}://localhost:{port}/", session


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_close_that_could_not_be_answered_is_the_verdict(tls: bool) -> None:
    """The pump is busy with a message while the Close and the FIN come behind it."""
    sends = frame(TEXT, b"quota exceeded") + close(1008, "no credits left")
    async with peer(sends, tls=tls) as (url, session):
        for _ in range(10):
            connection = InferenceConnection(session, url)
            async with connection as ws:
                await ws.send_str("begin")
                assert (await ws.receive()).data == "quota exceeded"
                while not connection.is_closing():  # noqa: ASYNC110  (nobody is told of it)
                    await asyncio.sleep(0)
                assert [message async for message in ws] == []
                assert connection.loss is not None
                assert (connection.loss.code, connection.loss.reason) == (1008, "no credits left")
            assert connection.record.ended is Ending.CLOSED_BY_PEER
            assert (connection.record.close_code, connection.record.close_reason) == (
                1008,
                "no credits left",
            )


@pytest.mark.parametrize("hangs_up", [False, True], ids=["stays", "hangs up"])
async def test_a_close_that_nobody_had_read_is_the_verdict(hangs_up: bool) -> None:
    async with peer(frame(TEXT, b"x") + close(1013, "later"), hangs_up=hangs_up) as (url, session):
        connection = InferenceConnection(session, url)
        ws = await connection
        await ws.send_str("begin")
        reading = asyncio.create_task(ws.receive())
        await reading
        await connection.aclose()
        assert connection.loss is not None
        assert (connection.loss.code, connection.loss.reason) == (1013, "later")
        assert str(connection.loss) == "the peer closed with code 1013: later"


async def test_an_empty_close_is_1005_at_once() -> None:
    async with peer(frame(CLOSE), hangs_up=False) as (url, session):
        connection = InferenceConnection(session, url, close_timeout=30.0)
        async with connection as ws:
            await ws.send_str("begin")
            message = await ws.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1005)
            assert connection.loss is not None
            assert connection.loss.code == 1005
        assert connection.record.close_code == 1005


async def test_a_reason_that_repeats_a_secret_is_withheld() -> None:
    async with peer(close(1008, "bad token swordfish-4711")) as (url, session):
        connection = InferenceConnection(session, url, token="swordfish-4711")
        async with connection as ws:
            await ws.send_str("begin")
            await ws.receive()
        assert connection.loss is not None
        assert connection.loss.reason == connection.record.close_reason == ""
        assert "withheld" in str(connection.loss)


async def test_the_peers_1009_is_told_from_ones_own() -> None:
    async with peer(close(1009, "over 1 MiB")) as (url, session):
        connection = InferenceConnection(session, url)
        async with connection as ws:
            await ws.send_str("begin")
            await ws.receive()
        assert connection.loss is not None
        assert str(connection.loss) == "the peer closed with code 1009: over 1 MiB"


@pytest.mark.parametrize(
    ("extra", "asked", "opens"),
    [
        ("Sec-WebSocket-Extensions: permessage-deflate\r\n", True, True),
        ("Sec-WebSocket-Extensions: permessage-deflate, x-mux\r\n", True, False),
        ("Sec-WebSocket-Extensions: x-mux\r\n", True, False),
        ("Sec-WebSocket-Extensions: permessage-deflate\r\n", False, False),
        ("", True, True),
    ],
)
async def test_an_extension_that_was_not_asked_for_is_refused(
    extra: str, asked: bool, opens: bool
) -> None:
    async with peer(b"", extra=extra) as (url, session):
        connection = InferenceConnection(session, url, compress=asked, close_timeout=0.05)
        if opens:
            async with connection as ws:
                assert bool(ws.compress) is bool(extra)
        else:
            with pytest.raises(HandshakeInvalid, match="extension"):
                await connection


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_close_to_a_frozen_peer_is_aborted(loop_reports: list[object], tls: bool) -> None:
    async with open_line(tls=tls) as line:
        line.gateway.inject(GoSilent())
        connection = line.dial(close_timeout=0.05)
        async with connection:
            pass
        assert connection.record.ended is Ending.ABORTED
        assert connection.loss is None


@pytest.mark.parametrize("opcode", [TEXT, PING])
async def test_a_close_holds_its_bound_under_a_flood(opcode: int, line: Line) -> None:
    """Frames of two bytes, which aiohttp's own close reads without end."""
    async with peer(frame(opcode) * 500_000, hangs_up=False) as (url, session):
        connection = InferenceConnection(session, url, close_timeout=0.1)
        ws = await connection
        await ws.send_str("begin")
        await ws.receive() if opcode == TEXT else await asyncio.sleep(0)
        started = asyncio.get_running_loop().time()
        await connection.aclose()
        assert asyncio.get_running_loop().time() - started < 1.0
        assert connection.state == "closed"


async def test_a_paused_reader_is_not_taken_for_a_dead_peer(line: Line) -> None:
    """The peer's pong lies unread behind what it said before."""
    connection = line.dial(heartbeat=0.05)
    async with connection as ws:
        for _ in range(3):
            await ws.send_str("x" * 1000)
        assert (await ws.receive()).data == "x" * 1000
        await asyncio.get_running_loop().run_in_executor(None, _pause, 0.3)
        assert (await ws.receive()).data == "x" * 1000
        assert (await ws.receive()).data == "x" * 1000
        await ws.send_str("still here")
        assert (await ws.receive()).data == "still here"
        assert connection.loss is None


async def test_a_loop_that_was_held_up_hears_the_peer_before_it_judges(line: Line) -> None:
    connection = line.dial(heartbeat=0.2)
    async with connection as ws:
        reading = asyncio.create_task(ws.receive())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.21, _pause, 0.5)
        asyncio.get_running_loop().call_later(1.0, reading.cancel)
        await asyncio.wait({reading})
        assert reading.cancelled()
        assert connection.loss is None


def _pause(seconds: float) -> None:
    """Hold up a thread: the event loop's, or another while the loop goes on."""
    time.sleep(seconds)


async def test_closing_during_the_opening_is_told_to_who_opens(line: Line) -> None:
    line.gateway.inject(IgnoreClose())
    opening: list[InferenceConnection] = []

    async def close(_: aiohttp.ClientWebSocketResponse) -> None:
        await opening[0].aclose()

    opening.append(line.dial(on_open=close))
    with pytest.raises(StateError):
        await opening[0]


async def test_a_close_with_1000_leaves_no_loss_though_nobody_read_it(line: Line) -> None:
    connection = line.dial()
    async with connection:
        line.gateway.connections[-1].inject(CloseWith(1000))
    assert connection.loss is None
    assert connection.record.ended in {Ending.CLOSED_BY_PEER, Ending.CLOSED_HERE}


async def hear(connection: InferenceConnection, heard: list[str]) -> None:
    async for message in connection:
        heard.append(message.data)  # noqa: PERF401  (kept where it raises)


async def test_iterating_the_connection_gives_messages_and_raises_the_loss() -> None:
    async with peer(frame(TEXT, b"one") + close(1011, "crashed")) as (url, session):
        connection = InferenceConnection(session, url)
        heard: list[str] = []
        async with connection as ws:
            await ws.send_str("begin")
            with pytest.raises(ConnectionLost) as lost:
                await hear(connection, heard)
        assert (heard, lost.value.code, lost.value.reason) == (["one"], 1011, "crashed")


async def test_iterating_the_connection_ends_quietly_after_1000(line: Line) -> None:
    connection = line.dial()
    async with connection as ws:
        await ws.send_str("one")
        line.gateway.connections[-1].inject(CloseWith(1000, after_messages=1))
        await ws.send_str("two")
        assert "one" in [message.data async for message in connection]
