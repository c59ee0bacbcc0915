"""What must hold of everything that comes over a socket, at either end of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import struct
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Self

import aiohttp
import odd_input as odd
import pure_properties as pure
from hypothesis import strategies as st

from agent_conn import (
    AgentIdentity,
    ConfigurationError,
    ConnectError,
    ConnectionState,
    HandshakeRejected,
    InferenceConnection,
    TokenUnavailable,
)
from agent_conn._dial.translate import MAX_BODY
from agent_conn.gateway import (
    CloseWith,
    Fault,
    Garbage,
    Gateway,
    Redirect,
    Reject,
    UnaskedExtension,
    UnaskedSubprotocol,
)

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TOKEN = "fuzz-token-that-was-sent"
BOUND = 5.0
UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: {accept}\r\n"
)


class Errors(logging.Handler):
    """What was logged as an error, or told to the loop's exception handler."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(f"{record.getMessage()} {record.exc_info}")


class Stage:
    """A gateway, a peer that answers anything, a session of one slot, and a loop to run them."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._errors = Errors()
        self._served: set[asyncio.Future[Any]] = set()
        self.answer = b""

    def __enter__(self) -> Self:
        self._runner.run(self._start())
        logging.getLogger().addHandler(self._errors)
        self._resting = asyncio.all_tasks(self._runner.get_loop())
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self._errors)
        self._runner.run(self._stop())
        self._runner.close()

    def run(self, play: Callable[[Stage, Any], Coroutine[Any, Any, None]], given: Any) -> None:
        """Let ``play`` act within the bound; afterwards nothing is left and no error was told."""

        async def within() -> None:
            async with asyncio.timeout(BOUND):
                await play(self, given)
                await self.gateway.wait_idle()
                await asyncio.gather(*self._served)
                # Idle is what the gateway has answered; its tasks may have a turn left to end.
                while left := asyncio.all_tasks() - self._resting - {asyncio.current_task()}:
                    await asyncio.wait(left)

        self._errors.seen.clear()
        self._runner.run(within())
        assert self._errors.seen == []
        changed = asyncio.all_tasks(self._runner.get_loop()) ^ self._resting
        assert not changed, f"{len(changed)} tasks were left, or ended: {next(iter(changed))}"

    def dial(self, url: str | None = None, **options: Any) -> InferenceConnection:
        return InferenceConnection(
            self.session,
            url or self.gateway.url("/v1/echo"),
            open_timeout=BOUND / 2,
            close_timeout=0.2,
            # aiohttp arms it once more after a close, and pings in a task of its own.
            heartbeat=None,
            **options,
        )

    async def _start(self) -> None:
        self.gateway = Gateway()
        await self.gateway.start()
        self._peer = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.peer_url = "ws://127.0.0.1:{}/?key=value".format(
            *self._peer.sockets[0].getsockname()[1:]
        )
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))

    async def _stop(self) -> None:
        await self.session.close()
        await self.gateway.aclose()
        self._peer.close()
        await self._peer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done = asyncio.get_running_loop().create_future()
        self._served.add(done)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
            accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
            writer.write(self.answer.replace(b"{accept}", accept))
            writer.write_eof()
            await reader.read()
        except OSError:
            pass
        finally:
            writer.close()
            self._served.discard(done)
            done.set_result(None)


async def peer_answer(stage: Stage, answer: bytes) -> None:
    """Whatever answers the handshake, and whatever follows it, ends in a typed error or a close."""
    stage.answer = answer
    connection = stage.dial(stage.peer_url, token=TOKEN)
    try:
        ws = await connection
    except ConnectError as error:
        pure.assert_one_line(str(error))
        body = getattr(error, "body", "")
        assert len(body) <= MAX_BODY
        assert TOKEN not in body
        assert TOKEN not in repr(error)
    else:
        async for _ in ws:
            pass
        await connection.aclose()
        loss = connection.loss
        assert loss is None or 0 <= loss.code <= 0xFFFF
        pure.assert_one_line(str(loss))
    assert connection.state is ConnectionState.CLOSED


async def sent_headers(stage: Stage, given: tuple[Any, Mapping[str, Any]]) -> None:
    """What is accepted arrives, and cannot stand in for an id."""
    headers, ids = given
    identity = AgentIdentity.best_effort(**ids)
    try:
        connection = stage.dial(headers=headers, identity=identity)
    except ConfigurationError as error:
        pure.assert_one_line(str(error))
        return
    try:
        async with connection:
            got = stage.gateway.handshakes[-1]
    except HandshakeRejected as error:
        # The gateway knows no other expectation (RFC 9110, section 10.1.1).
        assert error.status == HTTPStatus.EXPECTATION_FAILED
        return
    assert got.identity.level is connection.attribution
    assert got.session_id == connection.record.session_id
    for name, value in (headers or {}).items():
        assert got.headers[name] in (value.strip(" "), "<redacted>")


async def minted_token(stage: Stage, value: Any) -> None:
    """A token callable gives a token, or the dial fails without telling what it gave."""
    connection = stage.dial(token=lambda: value)
    try:
        await connection
    except TokenUnavailable as error:
        pure.assert_one_line(str(error))
        assert error.__context__ is None
    await connection.aclose()


async def gateway_bytes(stage: Stage, sent: bytes) -> None:
    """Bytes of any kind are answered in HTTP or not at all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
    try:
        writer.write(sent)
        writer.write_eof()
        answer = await reader.read()
    except ConnectionError:
        answer = b""
    finally:
        writer.close()
    assert answer == b"" or answer.startswith(b"HTTP/1.")
    assert b" 500 " not in answer[:16]


async def gateway_messages(stage: Stage, given: tuple[str, list[str | bytes]]) -> None:
    """A session outlives any message, and each answer is a typed JSON message."""
    service, messages = given
    async with stage.session.ws_connect(stage.gateway.url(f"/v1/{service}")) as ws:
        for message in messages:
            await (ws.send_bytes(message) if isinstance(message, bytes) else ws.send_str(message))
        await ws.send_str('{"type": "session.close"}')
        types = [json.loads(message.data)["type"] async for message in ws]
    assert types[-1] == "session.closed"
    assert all(isinstance(name, str) for name in types)


async def struck(stage: Stage, made_of: tuple[type[Fault], dict[str, Any]]) -> None:
    """A fault that could be made strikes, and the dial ends in a typed error or a close."""
    kind, values = made_of
    try:
        fault = kind(**values)
    except ConfigurationError:
        return
    stage.gateway.inject(fault)
    connection = stage.dial()
    try:
        async with connection as ws:
            await ws.send_str("a message")
            await ws.receive()
    except ConnectError as error:
        pure.assert_one_line(str(error))
    except OSError:
        assert connection.loss is not None
    assert connection.state is ConnectionState.CLOSED


def _frame(first: int, payload: bytes, mask: bytes, declared: int | None) -> bytes:
    length = len(payload) if declared is None else declared
    masked = 0x80 if mask else 0
    if length < 126:
        head = struct.pack("!BB", first, masked | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, masked | 126, length)
    else:
        head = struct.pack("!BBQ", first, masked | 127, length)
    body = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload)) if mask else payload
    return head + mask + body


_close = st.builds(
    lambda code, reason: struct.pack("!H", code) + reason.encode("utf-8", "replace")[:123],
    st.integers(0, 0xFFFF),
    odd.text,
)
_payload = st.binary(max_size=140) | _close | odd.text.map(lambda t: t.encode("utf-8", "replace"))


def frames(mask: bytes) -> st.SearchStrategy[bytes]:
    """Frames of any kind, some of which lie about their length."""
    first = st.sampled_from([0x81, 0x82, 0x88, 0x89, 0x8A, 0x01, 0x00]) | st.integers(0, 255)
    lengths = st.none() | st.sampled_from([0, 125, 126, 65_536, (1 << 63) - 1, (1 << 64) - 1])
    return st.lists(st.builds(_frame, first, _payload, st.just(mask), lengths), max_size=5).map(
        b"".join
    )


_line = (odd.text | odd.ascii_text).map(lambda text: text.encode("utf-8", "surrogatepass"))
_status = st.sampled_from([101, 200, 204, 302, 304, 400, 401, 429, 500, 503, 999]) | st.integers(
    0, 10**4
)
_header = st.sampled_from(
    [
        b"Content-Length: 5",
        b"Content-Length: -1",
        b"Transfer-Encoding: chunked",
        b"Location: http://elsewhere.invalid/",
        b"Retry-After: 1e400",
        b"Sec-WebSocket-Protocol: x",
        b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99",
        b"Set-Cookie: a=b",
        b"Content-Encoding: gzip",
        b"Connection: close",
    ]
) | st.builds(lambda name, value: name + b": " + value, _line, _line)
_answer = st.builds(
    lambda version, status, reason, headers, body: b"\r\n".join(
        [b"%s %d %s" % (version, status, reason), *headers, b"", body]
    ),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b"ICY"]),
    _status,
    _line,
    st.lists(_header, max_size=4),
    st.binary(max_size=60) | st.just(TOKEN.encode()),
)
_switched = st.builds(
    lambda headers, after: SWITCHING + b"".join(h + b"\r\n" for h in headers) + b"\r\n" + after,
    st.lists(_header, max_size=1),
    frames(b""),
)
_asked = st.builds(
    lambda path, after: UPGRADE % path + after,
    st.sampled_from([b"/v1/echo", b"/v1/stt?model=%00", b"/v1/tts", b"/", b"*"]),
    frames(b"\x01\x02\x03\x04") | frames(b""),
)
_request = st.builds(
    lambda method, path, headers, body: b"\r\n".join(
        [b"%s %s HTTP/1.1" % (method, path), *headers, b"", body]
    ),
    st.sampled_from([b"GET", b"POST", b"CONNECT", b"\x00"]),
    st.just(b"/v1/stt") | _line,
    st.lists(_header | _line.map(lambda value: b"Authorization: Bearer " + value), max_size=4),
    st.binary(max_size=60),
)
_names = st.sampled_from(
    ["X-Custom", "User-Agent", "Cookie", "Accept", "Expect", "TE", "Content-Type", "Retry-After"]
)

PROPERTIES: dict[
    str, tuple[Callable[[Stage, Any], Coroutine[Any, Any, None]], st.SearchStrategy[Any]]
] = {
    "peer_answer": (peer_answer, st.one_of(_switched, _answer, st.binary(max_size=80))),
    "sent_headers": (
        sent_headers,
        st.tuples(
            st.none() | st.dictionaries(_names | odd.ascii_text, odd.ascii_text, max_size=3),
            st.fixed_dictionaries(
                {},
                optional=dict.fromkeys(
                    ("job_id", "room_id", "agent_id"), odd.scalar | odd.ascii_text
                ),
            ),
        ),
    ),
    "struck": (
        struck,
        st.one_of(
            st.tuples(
                st.just(Reject),
                st.fixed_dictionaries(
                    {"status": st.integers(200, 599), "body": st.binary(max_size=40)},
                    optional={"headers": st.dictionaries(_names, odd.ascii_text, max_size=3)},
                ),
            ),
            st.tuples(
                st.just(Redirect),
                st.fixed_dictionaries(
                    {"status": st.integers(300, 399), "location": odd.ascii_text}
                ),
            ),
            st.tuples(
                st.just(CloseWith),
                st.fixed_dictionaries(
                    {"code": st.integers(990, 5000), "reason": odd.text | odd.ascii_text}
                ),
            ),
            st.tuples(
                st.sampled_from([UnaskedExtension, UnaskedSubprotocol]),
                st.just({}),
            ),
            st.tuples(
                st.just(UnaskedExtension), st.fixed_dictionaries({"extension": odd.ascii_text})
            ),
            st.tuples(
                st.just(UnaskedSubprotocol), st.fixed_dictionaries({"subprotocol": odd.ascii_text})
            ),
            st.tuples(
                st.just(Garbage), st.fixed_dictionaries({"data": st.binary(max_size=80) | _answer})
            ),
        ),
    ),
    "minted_token": (minted_token, odd.scalar | odd.ascii_text),
    "gateway_bytes": (gateway_bytes, st.one_of(_asked, _request, st.binary(max_size=80))),
    "gateway_messages": (
        gateway_messages,
        st.tuples(
            st.sampled_from(["stt", "tts"]),
            st.lists(
                pure.messages.filter(
                    lambda m: isinstance(m, bytes) or m.encode("utf-8", "ignore").decode() == m
                ),
                max_size=5,
            ),
        ),
    ),
}
