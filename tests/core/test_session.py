"""A dial is one request of the caller's own session, for whoever looks at that from outside."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from helpers.support import Line, Room, open_line

from agent_conn import (
    AgentIdentity,
    ConfigurationError,
    ConnectTimeout,
    DialFailed,
    HandshakeInvalid,
    HeaderNames,
    InferenceConnection,
)
from agent_conn.gateway import Gateway

INSTRUMENTS = {
    "opentelemetry": "opentelemetry.instrumentation.aiohttp_client",
    "sentry": "sentry_sdk",
    "ddtrace": "ddtrace",
}


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_an_instrument_of_the_process_sees_one_request_an_open(instrument: str) -> None:
    if importlib.util.find_spec(INSTRUMENTS[instrument]) is None:
        pytest.skip(f"{instrument} is not installed")
    script = Path(__file__).with_name("instruments.py")
    done = subprocess.run(
        [sys.executable, script, instrument], capture_output=True, text=True, check=True
    )
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen == {"bare": [1, 0], "cold": [1, 0], "after a wait": [1, 0]}


with pytest.warns(DeprecationWarning, match="Inheritance"):

    class Counting(aiohttp.ClientSession):
        """A caller's own session, which sees each of its requests."""

        async def _request(self, *args: Any, **options: Any) -> aiohttp.ClientResponse:
            vars(self).setdefault("seen", []).append(options)
            return await super()._request(*args, **options)


@pytest.mark.parametrize("waits", [False, True], ids=["cold", "after a wait"])
async def test_a_subclass_of_the_session_makes_the_request(gateway: Gateway, waits: bool) -> None:
    room = Room()
    async with Counting() as session:
        connection = InferenceConnection(
            session,
            gateway.url("/v1/echo"),
            room_connected=room.connected if waits else None,
            connect_wait=0.02,
        )
        async with connection:
            assert len(vars(session)["seen"]) == 1


@asynccontextmanager
async def server(
    answer: Callable[[web.WebSocketResponse, web.Request], None],
) -> AsyncIterator[str]:
    """A websocket server whose handshake ``answer`` may change; gives its URL."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        answer(ws, request)
        await ws.prepare(request)
        async for message in ws:
            await ws.send_str(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_the_sessions_size_limits_hold_for_the_answer(loop_reports: list[object]) -> None:
    def long_header(ws: web.WebSocketResponse, _: web.Request) -> None:
        ws.headers["X-Policy"] = "p" * 12_000

    sizes: Any = {"max_field_size": 65536, "max_line_size": 65536}
    async with (
        server(long_header) as url,
        aiohttp.ClientSession(**sizes) as wide,
        aiohttp.ClientSession() as narrow,
    ):
        async with InferenceConnection(wide, url) as ws:
            await ws.send_str("heard")
            assert await ws.receive_str() == "heard"
        with pytest.raises(HandshakeInvalid, match="more than 8190 bytes: raise max_line_size"):
            await InferenceConnection(narrow, url)


async def test_the_sessions_cookies_go_out_and_new_ones_are_kept(
    loop_reports: list[object],
) -> None:
    sent: list[str | None] = []

    def cookie(ws: web.WebSocketResponse, request: web.Request) -> None:
        sent.append(request.cookies.get("seen"))
        ws.set_cookie("seen", "yes")

    async with (
        server(cookie) as url,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        for _ in range(2):
            connection = InferenceConnection(session, url)
            async with connection:
                assert "set-cookie" not in connection.record.response_headers
    assert sent == [None, "yes"]


async def test_the_answers_headers_are_in_the_record_but_for_what_repeats_a_secret(
    session: aiohttp.ClientSession,
) -> None:
    def echo(ws: web.WebSocketResponse, request: web.Request) -> None:
        ws.headers["x-request-id"] = "r-1"
        ws.headers["X-Echo"] = request.headers["Authorization"]

    async with server(echo) as url:
        connection = InferenceConnection(session, url, token="swordfish-4711")
        async with connection:
            headers = connection.record.response_headers
    assert headers["x-request-id"] == "r-1"
    assert "x-echo" not in headers


async def test_a_session_that_was_closed_and_dropped_is_collected(gateway: Gateway) -> None:
    class Client:
        """Owns a session that traces by a method of its own."""

        def __init__(self) -> None:
            trace = aiohttp.TraceConfig()
            trace.on_request_start.append(self.note)
            self.session = aiohttp.ClientSession(trace_configs=[trace])

        async def note(self, *_: object) -> None:
            """See a request."""

    gone: list[weakref.ref[aiohttp.ClientSession]] = []
    for _ in range(5):
        client = Client()
        async with InferenceConnection(client.session, gateway.url("/v1/echo")):
            pass
        await client.session.close()
        gone.append(weakref.ref(client.session))
        del client
    await gateway.wait_idle()
    gc.collect()
    assert [reference() for reference in gone] == [None] * 5


async def test_a_full_connector_is_told_as_that(gateway: Gateway) -> None:
    connector = aiohttp.TCPConnector(limit_per_host=1)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        InferenceConnection(session, gateway.url("/v1/echo")),
    ):
        second = InferenceConnection(session, gateway.url("/v1/echo"), open_timeout=0.05)
        with pytest.raises(ConnectTimeout, match="limit_per_host=1"):
            await second
    assert second.record.dials == 0


async def test_closing_the_session_during_the_wait_is_final(gateway: Gateway, room: Room) -> None:
    session = aiohttp.ClientSession()
    connection = InferenceConnection(
        session, gateway.url("/v1/echo"), room_connected=room.connected, connect_wait=None
    )
    opening = asyncio.ensure_future(connection.open())
    await gateway.wait_until(lambda: gateway.accepted == 1)
    await session.close()
    room.connected.set()
    with pytest.raises(DialFailed, match="the session is closed") as failed:
        await opening
    assert not failed.value.retryable


async def test_no_session_id_goes_out_where_it_has_no_name(line: Line) -> None:
    identity = AgentIdentity("AJ_1")
    async with line.dial(identity=identity, header_names=HeaderNames(session_id=None)):
        pass
    (handshake,) = line.gateway.handshakes
    assert (handshake.session_id, handshake.identity) == (None, identity)


async def test_auth_of_the_session_gives_way_to_a_token(gateway: Gateway) -> None:
    seen: list[str] = []

    def note(_: web.WebSocketResponse, request: web.Request) -> None:
        seen.append(request.headers["Authorization"])

    with pytest.warns(DeprecationWarning, match="auth"):
        session = aiohttp.ClientSession(auth=aiohttp.BasicAuth("user", "pass"))
    async with session, server(note) as url:
        async with InferenceConnection(session, url, token="t0ken"):
            pass
        async with InferenceConnection(session, url):
            pass
    assert seen[0] == "Bearer t0ken"
    assert seen[1].startswith("Basic ")


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No proxy in the environment."""
    for scheme in ("http", "https", "ws", "wss", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    return monkeypatch


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that refuses everything; its URL, and the requests that it was sent."""
    asked: list[str] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(head.decode())
            writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", asked


async def test_https_proxy_serves_wss_and_its_change_is_followed(
    clean_environment: pytest.MonkeyPatch,
) -> None:
    async with (
        proxy() as (first, asked_first),
        proxy() as (second, asked_second),
        aiohttp.ClientSession(trust_env=True) as session,
    ):
        for url in (first, second):
            clean_environment.setenv("https_proxy", url)
            with pytest.raises(DialFailed, match="the proxy answered 403"):
                await InferenceConnection(session, "wss://gateway.test/v1")
        clean_environment.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(DialFailed, match="Connection refused"):
            await InferenceConnection(session, "wss://127.0.0.1:9/v1")
    lines = [asked.splitlines()[0] for asked in (*asked_first, *asked_second)]
    assert lines == ["CONNECT gateway.test:443 HTTP/1.1"] * 2


async def test_a_proxy_of_the_websockets_own_scheme_comes_first(
    clean_environment: pytest.MonkeyPatch,
) -> None:
    async with proxy() as (other, asked_other), proxy() as (own, asked_own):
        clean_environment.setenv("https_proxy", other)
        clean_environment.setenv("wss_proxy", own)
        async with aiohttp.ClientSession(trust_env=True) as session:
            with pytest.raises(DialFailed, match="403"):
                await InferenceConnection(session, "wss://gateway.test/v1")
    assert (len(asked_own), asked_other) == (1, [])


async def test_a_proxy_that_cannot_serve_is_refused_whoever_set_it() -> None:
    async with aiohttp.ClientSession(proxy="socks5://127.0.0.1:1080") as session:
        with pytest.raises(ConfigurationError, match="proxy must be an http"):
            await InferenceConnection(session, "wss://127.0.0.1:9/")


async def test_a_token_in_the_clear_through_a_proxy_elsewhere_is_refused(
    gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    for given in ({"token": "t0ken"}, {"headers": lambda: {"Authorization": "Basic x"}}):
        for elsewhere in (
            {"session": aiohttp.ClientSession(proxy="http://198.51.100.1:3128")},
            {"session": session, "proxy": "http://198.51.100.1:3128"},
        ):
            arguments: dict[str, Any] = {**given, **elsewhere, "open_timeout": 0.2}
            caller = arguments.pop("session")
            with pytest.raises((ConfigurationError, ConnectTimeout)) as refused:
                await InferenceConnection(caller, gateway.url("/v1/echo"), **arguments)
            if "token" in given:
                assert "proxy must be on this machine" in str(refused.value)
            if caller is not session:
                await caller.close()
    assert gateway.accepted == 0


async def test_a_header_of_the_sessions_own_is_no_way_around(gateway: Gateway) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer t0ken"}) as session:
        with pytest.raises(ConfigurationError, match="url must be encrypted"):
            await InferenceConnection(session, "ws://198.51.100.1/")


async def test_the_certificate_is_checked_against_server_hostname(
    loop_reports: list[object],
) -> None:
    async with open_line(tls=True) as line:
        async with line.dial(server_hostname="localhost"):
            pass
        with pytest.raises(DialFailed, match="certificate was refused: Hostname mismatch"):
            await line.dial(server_hostname="another.example")


async def test_proxy_headers_reach_the_proxy_alone(session: aiohttp.ClientSession) -> None:
    async with proxy() as (url, asked):
        with pytest.raises(DialFailed, match="403"):
            await InferenceConnection(
                session,
                "wss://gateway.test/v1",
                proxy=url,
                proxy_headers={"X-Team": "voice"},
                headers={"X-Mine": "1"},
            )
    (head,) = asked
    assert "X-Team: voice" in head
    assert "X-Mine" not in head
