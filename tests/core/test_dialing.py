"""What aiohttp raises or lets pass while dialling, and what becomes of it here."""

from __future__ import annotations

import asyncio
import base64
import errno
import gc
import hashlib
import re
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from helpers.support import Line, Room, open_line
from helpers.virtual_time import elapse, in_virtual_time

from agent_conn import (
    AgentIdentity,
    AttributionLevel,
    AttributionUnavailable,
    ConnectionState,
    ConnectTimeout,
    DialFailed,
    Ending,
    HandshakeInvalid,
    HandshakeRejected,
    InferenceConnection,
    Phase,
)
from agent_conn.gateway import Gateway, GoSilent, StopReading

AGENT = AgentIdentity("AJ_1", "RM_1", "PA_1")


class Resolver(AbstractResolver):
    """Answers every name with what it was made with."""

    def __init__(self, answer: list[ResolveResult] | Exception) -> None:
        self.answer = answer

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def close(self) -> None:
        """Nothing to close."""


async def failure(url: str, connector: aiohttp.BaseConnector, **options: Any) -> DialFailed:
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(DialFailed) as failed:
            await InferenceConnection(session, url, **options)
    assert failed.value.phase is Phase.DIAL
    assert (failed.value.__cause__, failed.value.__context__) == (None, None)
    return failed.value


@pytest.mark.parametrize("answer", [OSError(None, "no such host"), []], ids=["error", "empty"])
async def test_a_name_that_does_not_resolve(answer: list[ResolveResult] | Exception) -> None:
    connector = aiohttp.TCPConnector(resolver=Resolver(answer))
    failed = await failure("wss://gateway.example/", connector)
    assert failed.retryable
    if answer:
        assert "DNS: " in str(failed)


async def test_a_port_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    failed = await failure(f"ws://127.0.0.1:{port}/", aiohttp.TCPConnector())
    assert str(failed) == f"ws://127.0.0.1:{port}: TCP: Connection refused"
    assert failed.errno == errno.ECONNREFUSED
    assert failed.retryable


async def test_a_certificate_that_is_not_trusted_is_final() -> None:
    async with Gateway(tls=True) as gateway:
        failed = await failure(gateway.url(), aiohttp.TCPConnector(ssl=True))
    assert "TLS: the peer's certificate was refused: " in str(failed)
    assert not failed.retryable


async def test_a_certificate_for_another_name_is_final() -> None:
    async with Gateway(tls=True) as gateway:
        own = [
            ResolveResult(
                hostname="gateway.example",
                host="127.0.0.1",
                port=gateway.port,
                family=socket.AF_INET,
                proto=0,
                flags=0,
            )
        ]
        connector = aiohttp.TCPConnector(ssl=gateway.client_ssl or True, resolver=Resolver(own))
        failed = await failure(f"wss://gateway.example:{gateway.port}/", connector)
        await gateway.wait_idle()
    assert "ertificate" in str(failed)
    assert not failed.retryable


async def test_another_fingerprint_is_final() -> None:
    async with Gateway(tls=True) as gateway:
        connector = aiohttp.TCPConnector(ssl=gateway.client_ssl or True)
        fingerprint = aiohttp.Fingerprint(b"\x00" * 32)
        failed = await failure(gateway.url(), connector, ssl=fingerprint)
    assert "fingerprint" in str(failed)
    assert not failed.retryable


async def test_tls_to_a_port_that_speaks_none() -> None:
    async with Gateway() as gateway:
        failed = await failure(
            f"wss://127.0.0.1:{gateway.port}/", aiohttp.TCPConnector(), open_timeout=2.0
        )
    # OpenSSL's reason, whose name differs by release, and not its number taken for the system's.
    assert re.search(r": TLS: [A-Z_]+$", str(failed))
    assert failed.errno is None


async def test_the_tls_settings_of_one_connection_can_be_given(
    session: aiohttp.ClientSession,
) -> None:
    async with Gateway(tls=True) as gateway:
        assert isinstance(gateway.client_ssl, ssl.SSLContext)
        connection = InferenceConnection(
            session, gateway.url("/v1/echo"), ssl=gateway.client_ssl, identity=AGENT
        )
        async with connection as ws:
            await ws.send_str("over tls")
            assert await ws.receive_str() == "over tls"


@asynccontextmanager
async def raw_server(
    answer: Callable[[str], bytes], after: bytes = b"", to_close: bytes = b""
) -> AsyncIterator[str]:
    """A server that answers a handshake's key with ``answer`` and then sends ``after``.

    It answers a Close that has a code and no reason by ``to_close``.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in request.split("\r\n")[1:] if line)
        digest = hashlib.sha1(
            (headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()
        ).digest()
        writer.write(answer(base64.b64encode(digest).decode()) + after)
        if to_close:
            await reader.readexactly(8)
            writer.write(to_close)
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        server.close()
    await asyncio.sleep(0)


def upgrade(accept: str, version: str = "1.1", extra: str = "") -> bytes:
    return (
        f"HTTP/{version} 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\n{extra}Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()


async def test_an_upgrade_in_http_1_0_is_no_handshake(session: aiohttp.ClientSession) -> None:
    async with raw_server(lambda accept: upgrade(accept, "1.0")) as url:
        with pytest.raises(HandshakeInvalid, match=r"HTTP/1\.0"):
            await InferenceConnection(session, url)


async def test_an_upgrade_to_something_else_is_no_handshake(
    session: aiohttp.ClientSession,
) -> None:
    async with raw_server(
        lambda accept: upgrade(accept).replace(b"Upgrade: websocket", b"Upgrade: h2c")
    ) as url:
        with pytest.raises(HandshakeInvalid):
            await InferenceConnection(session, url)


async def test_a_close_frame_without_a_code_is_a_loss(session: aiohttp.ClientSession) -> None:
    async with raw_server(upgrade, after=b"\x88\x00") as url:
        connection = InferenceConnection(session, url, close_timeout=0.1)
        async with connection as ws:
            assert [message async for message in ws] == []
        assert connection.record.close_code == 1005
        assert connection.record.ended is Ending.CLOSED_BY_PEER
        assert connection.loss is not None
        assert connection.loss.code == 1005


async def test_a_close_that_is_answered_by_one_without_a_code_was_closed_here(
    session: aiohttp.ClientSession,
) -> None:
    async with raw_server(upgrade, to_close=b"\x88\x00") as url:
        connection = InferenceConnection(session, url)
        async with connection:
            pass
        assert connection.record.ended is Ending.CLOSED_HERE
        assert connection.record.close_code == 1005
        assert connection.loss is None


def test_a_rejections_body_is_waited_for_and_for_a_second_at_most() -> None:
    head = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        await elapse(0.9)
        writer.write(b"part")
        await reader.read()
        writer.close()

    async def scenario() -> None:
        time = asyncio.get_running_loop().time
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, aiohttp.ClientSession() as session:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            started = time()
            with pytest.raises(HandshakeRejected, match="503") as caught:
                await InferenceConnection(session, url)
            assert caught.value.body == "part"
            assert time() - started == pytest.approx(1.0)

    in_virtual_time(scenario)


async def test_a_connection_that_did_not_open_keeps_no_header_that_it_was_given(
    session: aiohttp.ClientSession,
) -> None:
    class Value(str):
        __slots__ = ("__weakref__",)

    given: list[weakref.ref[str]] = []

    def headers() -> dict[str, str]:
        value = Value("secret")
        given.append(weakref.ref(value))
        return {"X-Key": value}

    connection = InferenceConnection(
        session, "ws://127.0.0.1:1/", headers=headers, require=AttributionLevel.AGENT
    )
    with pytest.raises(AttributionUnavailable):
        await connection
    gc.collect()
    assert [value() for value in given] == [None]
    assert connection.state is ConnectionState.CLOSED


async def test_subprotocols_that_were_asked_for_can_be_chosen(
    session: aiohttp.ClientSession,
) -> None:
    async with raw_server(
        lambda accept: upgrade(accept, extra="Sec-WebSocket-Protocol: b\r\n")
    ) as url:
        connection = InferenceConnection(session, url, protocols=["a", "b"], close_timeout=0.05)
        async with connection as ws:
            assert ws.protocol == "b"


async def test_compression_is_off_unless_asked_for(line: Line) -> None:
    async with line.dial() as ws:
        assert ws.compress == 0
    asked = "Sec-WebSocket-Extensions"
    assert asked not in line.gateway.handshakes[-1].headers
    async with line.dial(compress=True) as ws:
        assert ws.compress > 0
        await ws.send_str("x" * 10_000)
        assert await ws.receive_str() == "x" * 10_000
    assert asked in line.gateway.handshakes[-1].headers


async def test_a_message_over_max_msg_size_ends_the_connection(line: Line) -> None:
    connection = line.dial(max_msg_size=1_000)
    async with connection as ws:
        await ws.send_bytes(b"\x00" * 2_000)
        message = await ws.receive()
        assert message.type is aiohttp.WSMsgType.ERROR
    assert connection.record.close_code == 1009


async def test_a_half_open_peer_is_found_by_the_heartbeat(any_line: Line) -> None:
    any_line.gateway.inject(GoSilent())
    connection = any_line.dial(heartbeat=0.1)
    async with connection as ws:
        message = await ws.receive()
        assert message.type is aiohttp.WSMsgType.CLOSED
        assert connection.loss is not None
        assert connection.loss.reason == "no pong within the heartbeat"
    assert connection.record.ended is Ending.LOST


async def test_cancelling_a_close_does_not_cancel_a_blocked_sender(any_line: Line) -> None:
    async def flood(ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await ws.send_bytes(b"\x00" * 1_000_000)

    any_line.gateway.inject(StopReading())
    connection = any_line.dial(close_timeout=5.0)
    sending = asyncio.create_task(flood(await connection))
    for _ in range(50):
        await asyncio.sleep(0)
    closing = asyncio.create_task(connection.aclose())
    for _ in range(5):
        await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing, sending})
    assert closing.cancelled()
    assert isinstance(sending.exception(), ConnectionError)


async def test_no_free_slot_is_a_dial_that_times_out(line: Line) -> None:
    async with line.dial():
        connection = line.dial(open_timeout=0.1)
        with pytest.raises(ConnectTimeout) as failed:
            await connection
    assert failed.value.phase is Phase.DIAL


class Proxy:
    """An HTTP proxy that tunnels with CONNECT and passes plain requests on."""

    def __init__(self, refuse: bytes = b"", authorization: str = "") -> None:
        self.refuse = refuse
        self.authorization = authorization
        self.methods: list[str] = []
        self.url = ""
        self._streams: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._streams:
            writer.close()
        await asyncio.gather(
            *(writer.wait_closed() for writer in self._streams), return_exceptions=True
        )
        await self._server.wait_closed()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams.append(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, *_ = head.decode().split(" ")
        self.methods.append(method)
        if self.refuse or self.authorization.encode() not in head:
            writer.write(self.refuse or b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        host, port = target.split("//")[-1].split("/")[0].split(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        self._streams.append(far_writer)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            path = "/" + target.split("//")[-1].split("/", 1)[1]
            far_writer.write(head.replace(target.encode(), path.encode(), 1))
        await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer))


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.mark.parametrize("given_to", ["session", "connection", "environment"])
@pytest.mark.parametrize("waits", [False, True], ids=["cold", "after a wait"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_the_proxy_is_used_for_every_dial(
    loop_reports: list[object],
    monkeypatch: pytest.MonkeyPatch,
    room: Room,
    given_to: str,
    waits: bool,
    tls: bool,
) -> None:
    credentials = base64.b64encode(b"user:pass").decode()
    async with Proxy(authorization=credentials) as proxy, Gateway(tls=tls) as gateway:
        url = proxy.url.replace("//", "//user:pass@")
        if given_to == "environment":
            monkeypatch.setenv("https_proxy" if tls else "http_proxy", url)
            monkeypatch.setenv("wss_proxy" if tls else "ws_proxy", url)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=gateway.client_ssl or True),
            proxy=url if given_to == "session" else None,
            trust_env=given_to == "environment",
        ) as session:
            connection = InferenceConnection(
                session,
                gateway.url("/v1/echo"),
                room_connected=room.connected if waits else None,
                connect_wait=0.2,
                proxy=url if given_to == "connection" else None,
            )
            async with connection as ws:
                await ws.send_str("through")
                assert await ws.receive_str() == "through"
                assert connection.record.pre_dialed is waits
            await gateway.wait_idle()
    assert proxy.methods == ["CONNECT" if tls else "GET"]


@pytest.mark.parametrize(("status", "retryable"), [(407, False), (502, True)])
async def test_a_proxy_that_refuses_is_a_dial_that_failed(status: int, retryable: bool) -> None:
    answer = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
    async with Proxy(refuse=answer) as proxy:
        failed = await failure(
            "wss://127.0.0.1:9/", aiohttp.TCPConnector(), proxy=proxy.url, open_timeout=2.0
        )
    assert f"the proxy answered {status}" in str(failed)
    assert failed.retryable is retryable


async def test_a_proxy_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    failed = await failure(
        "wss://127.0.0.1:9/", aiohttp.TCPConnector(), proxy=f"http://127.0.0.1:{port}"
    )
    assert str(failed).endswith("proxy: Connection refused")


async def test_a_netrc_entry_does_not_stand_in_the_way_of_a_token(
    loop_reports: list[object], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password pass\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with (
        Gateway(token="t0ken") as gateway,
        aiohttp.ClientSession(trust_env=True) as session,
        InferenceConnection(session, gateway.url("/v1/echo"), token="t0ken") as ws,
    ):
        assert not ws.closed


async def test_a_session_with_a_closed_connector_is_told() -> None:
    async with Gateway() as gateway:
        connector = aiohttp.TCPConnector()
        session = aiohttp.ClientSession(connector=connector, connector_owner=False)
        await connector.close()
        with pytest.raises(DialFailed, match="session is closed"):
            await InferenceConnection(session, gateway.url())
        await session.close()


async def test_five_lines_in_a_row_leave_nothing() -> None:
    for _ in range(5):
        async with open_line(tls=True) as line, line.dial() as ws:
            assert not ws.closed


async def test_a_session_that_is_gone_leaves_no_session_behind_in_its_place() -> None:
    async with Gateway() as gateway, aiohttp.TCPConnector() as connector:
        session = aiohttp.ClientSession(connector=connector, connector_owner=False)
        async with InferenceConnection(session, gateway.url("/v1/echo")):
            pass
        await session.close()
        gone = weakref.ref(session)
        del session
        # An unclosed session is a ResourceWarning when it is collected, which fails the run.
        gc.collect()
        assert gone() is None
        assert not connector.closed


@pytest.mark.parametrize(
    "url", ["ws://nowhere.invalid/", "ws://[fe80::1%25nowhere]:9/"], ids=["name", "zone"]
)
async def test_a_host_that_has_no_address_is_told_by_what_the_resolver_says(
    session: aiohttp.ClientSession, url: str
) -> None:
    with pytest.raises(DialFailed, match=r"DNS: .* could not be resolved: [A-Z][a-z ]+") as failed:
        await InferenceConnection(session, url, open_timeout=20.0)
    assert failed.value.errno is None


async def test_a_401_whose_body_stalls_past_open_timeout_is_still_a_401(
    session: aiohttp.ClientSession,
) -> None:
    head = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 100\r\n\r\nno"
    async with raw_server(lambda _: head) as url:
        with pytest.raises(HandshakeRejected) as refused:
            await InferenceConnection(session, url, open_timeout=0.1)
    assert refused.value.status == 401


class MovingResolver(AbstractResolver):
    """Gives one address after another, as DNS does after a failover."""

    def __init__(self) -> None:
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        address = {1: "127.0.0.2"}.get(self.asked, "127.0.0.1")
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
        ]

    async def close(self) -> None:
        """It holds nothing."""


async def test_after_a_failed_dial_the_next_asks_dns_again(gateway: Gateway) -> None:
    """aiohttp keeps an address for ten seconds, also one that nobody answers at."""
    resolver = MovingResolver()
    connector = aiohttp.TCPConnector(resolver=resolver)
    async with aiohttp.ClientSession(connector=connector) as session:
        url = f"ws://gateway.test:{gateway.port}/v1/echo"
        with pytest.raises(DialFailed, match="Connection refused"):
            await InferenceConnection(session, url)
        async with InferenceConnection(session, url):
            assert resolver.asked == 2
