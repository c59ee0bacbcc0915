from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from helpers.support import Room, Stopwatch
from yarl import URL

from agent_conn import (
    AgentIdentity,
    AttributionLevel,
    AttributionMiddleware,
    ConfigurationError,
    ConnectionRecord,
    HandshakeInvalid,
    HeaderNames,
    WaitOutcome,
)
from agent_conn._attribution import MAX_RECORDS, RequestAttribution
from agent_conn.gateway import DropHandshake, Gateway, Redirect, Reject

AGENT = AgentIdentity(job_id="AJ_1", room_id="RM_1", agent_id="PA_1")


@asynccontextmanager
async def attributed(
    gateway: Gateway, room: Room, connector: aiohttp.BaseConnector | None = None, **options: Any
) -> AsyncIterator[tuple[aiohttp.ClientSession, AttributionMiddleware]]:
    arguments = {"identity": room.identity, "room_connected": room.connected, **options}
    middleware = AttributionMiddleware(gateway.base_url, **arguments)
    connector = connector or aiohttp.TCPConnector(ssl=gateway.client_ssl or True)
    async with aiohttp.ClientSession(connector=connector, middlewares=(middleware,)) as session:
        yield session, middleware
    await gateway.wait_idle(2.0)


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
async def any_gateway(
    request: pytest.FixtureRequest, loop_reports: list[dict[str, Any]]
) -> AsyncIterator[Gateway]:
    async with Gateway(tls=request.param) as gateway:
        yield gateway


async def test_a_dial_waits_for_the_room_and_leaves_on_what_was_dialled_meanwhile(
    any_gateway: Gateway, room: Room
) -> None:
    gateway = any_gateway
    async with attributed(gateway, room, connect_wait=None) as (session, middleware):
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(_open(session, gateway.url("/v1/echo")))
            await gateway.wait_until(lambda: gateway.accepted == 1)
            assert gateway.handshakes == []
            room.connected.set()
        ws = opening.result()
        await ws.send_str("through")
        assert await ws.receive_str() == "through"
        await ws.close()
        (record,) = middleware.records
    (handshake,) = gateway.handshakes
    assert handshake.identity == AGENT == record.identity
    assert handshake.session_id == record.session_id
    assert gateway.accepted == 1
    assert record.attribution is AttributionLevel.AGENT
    assert record.wait_outcome is WaitOutcome.CONNECTED
    assert (record.pre_dialed, record.dials) == (True, 1)
    phases = [record.waited, record.pre_dial, record.dialed, record.upgraded]
    assert all(seconds is not None and seconds >= 0 for seconds in phases)


async def test_a_room_that_does_not_connect_in_time_costs_the_agents_id_alone(
    gateway: Gateway, room: Room
) -> None:
    async with attributed(gateway, room, connect_wait=0.05) as (session, middleware):
        await (await _open(session, gateway.url("/v1/echo"))).close()
        (record,) = middleware.records
    assert gateway.handshakes[0].identity == AgentIdentity("AJ_1", "RM_1")
    assert record.wait_outcome is WaitOutcome.TIMED_OUT
    assert record.identity is not None
    assert record.identity.omitted["agent_id"] == "raised Exception"


async def test_a_connected_room_costs_no_wait_and_no_pre_dial(gateway: Gateway, room: Room) -> None:
    room.connected.set()
    async with attributed(gateway, room) as (session, middleware):
        await (await _open(session, gateway.url("/v1/echo"))).close()
        (record,) = middleware.records
    assert gateway.handshakes[0].identity == AGENT
    assert (record.wait_outcome, record.pre_dial) == (WaitOutcome.ALREADY_CONNECTED, None)
    assert (record.pre_dialed, record.dials, record.dialed) == (False, 1, None)


async def test_what_the_client_set_stays_and_what_it_lacks_is_added(
    gateway: Gateway, room: Room
) -> None:
    room.connected.set()
    sent = {"x-livekit-room-id": "RM_1", "X-LiveKit-Session-ID": "theirs"}
    async with attributed(gateway, room) as (session, middleware):
        await (await _open(session, gateway.url("/v1/echo"), headers=sent)).close()
    (handshake,) = gateway.handshakes
    assert handshake.identity == AGENT
    assert handshake.session_id == "theirs" == middleware.records[0].session_id


async def test_ids_of_two_callers_are_never_mixed(gateway: Gateway, room: Room) -> None:
    room.connected.set()
    other = {"X-LiveKit-Job-ID": "AJ_other"}
    async with attributed(gateway, room) as (session, middleware):
        await (await _open(session, gateway.url("/v1/echo"), headers=other)).close()
    assert gateway.handshakes[0].identity == AgentIdentity(job_id="AJ_other")
    assert middleware.records[0].identity == AgentIdentity(job_id="AJ_other")


async def test_other_origins_get_nothing_and_wait_for_nothing(gateway: Gateway, room: Room) -> None:
    async with Gateway() as other, attributed(gateway, room, connect_wait=None) as opened:
        session, middleware = opened
        await (await _open(session, other.url("/v1/echo"))).close()
        assert other.handshakes[0].identity == AgentIdentity()
        assert other.handshakes[0].session_id is None
        assert middleware.records == ()
        await other.wait_idle(2.0)


def test_the_origin_is_scheme_host_and_port_whether_http_or_websocket() -> None:
    middleware = AttributionMiddleware("https://gateway.example/v1", identity=AGENT)
    for same in (
        "https://gateway.example/v2",
        "wss://gateway.example:443",
        "wss://GATEWAY.example",
    ):
        assert middleware.covers(URL(same))
    for other in ("http://gateway.example", "wss://gateway.example:8443", "wss://example"):
        assert not middleware.covers(URL(other))


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_redirect_is_refused_before_the_ids_go_elsewhere(
    gateway: Gateway, room: Room, method: str
) -> None:
    room.connected.set()
    async with Gateway() as other, attributed(gateway, room) as (session, middleware):
        gateway.inject(Redirect(other.url("/v1/echo")))
        with pytest.raises(HandshakeInvalid, match="redirects"):
            await session.request(method, gateway.base_url)
        assert other.handshakes == []
        assert len(middleware.records) == 1


async def test_a_handshake_that_aiohttp_sends_again_does_not_wait_again(
    gateway: Gateway, room: Room
) -> None:
    async with attributed(gateway, room, connect_wait=0.5) as (session, middleware):
        gateway.inject(DropHandshake(), times=1)
        async with Stopwatch() as watch:
            await (await _open(session, gateway.url("/v1/echo"))).close()
        outcomes = [record.wait_outcome for record in middleware.records]
        assert outcomes == [WaitOutcome.TIMED_OUT, WaitOutcome.TIMED_OUT]
        assert [record.upgraded is None for record in middleware.records] == [True, False]
        assert watch.elapsed < 0.9
        gateway.inject(DropHandshake(), times=2)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await _open(session, gateway.url("/v1/echo"))
        async with Stopwatch() as watch:
            await (await _open(session, gateway.url("/v1/echo"))).close()
        assert watch.elapsed > 0.4


async def test_aiohttps_own_errors_reach_the_client(gateway: Gateway, room: Room) -> None:
    room.connected.set()
    async with attributed(gateway, room) as (session, middleware):
        gateway.inject(Reject(429))
        with pytest.raises(aiohttp.WSServerHandshakeError) as rejected:
            await _open(session, gateway.url("/v1/echo"))
        assert rejected.value.status == 429
        assert len(middleware.records) == 1
    port = gateway.port
    await gateway.aclose()
    async with attributed(gateway, room) as (session, middleware):
        with pytest.raises(aiohttp.ClientConnectorError):
            await _open(session, f"ws://127.0.0.1:{port}/v1/echo")
        assert len(middleware.records) == 1


@pytest.mark.parametrize("case", ["post", "force_close"])
async def test_what_could_not_use_a_parked_connection_waits_without_one(
    gateway: Gateway, room: Room, case: str
) -> None:
    connector = aiohttp.TCPConnector(force_close=case == "force_close")
    method = "POST" if case == "post" else "GET"
    async with attributed(gateway, room, connector, connect_wait=0.05) as (session, middleware):
        (await session.request(method, gateway.base_url)).close()
    (record,) = middleware.records
    assert (record.pre_dial, record.wait_outcome) == (None, WaitOutcome.TIMED_OUT)
    assert gateway.accepted == 1


async def test_a_client_that_gives_up_during_the_wait_leaves_nothing(
    any_gateway: Gateway, room: Room
) -> None:
    gateway = any_gateway
    async with attributed(gateway, room, connect_wait=None) as (session, middleware):
        opening = asyncio.create_task(_open(session, gateway.url("/v1/echo")))
        await gateway.wait_until(lambda: gateway.accepted == 1)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await gateway.wait_idle(2.0)
        assert gateway.handshakes == []
        assert middleware.records == ()


async def test_other_header_names_are_used(room: Room, loop_reports: list[Any]) -> None:
    room.connected.set()
    names = HeaderNames(agent_id="X-Acme-Agent", session_id="X-Acme-Session")
    async with Gateway(header_names=names) as gateway:
        async with attributed(gateway, room, header_names=names) as (session, _):
            await (await _open(session, gateway.url("/v1/echo"))).close()
        assert gateway.handshakes[0].identity == AGENT
        assert gateway.handshakes[0].session_id


def test_the_latest_records_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="agent_conn")
    attribution = RequestAttribution("https://host", identity=AGENT)
    for number in range(MAX_RECORDS + 2):
        attribution.keep(ConnectionRecord(session_id=str(number)))
    assert len(attribution.records) == MAX_RECORDS
    assert attribution.records[0].session_id == "2"
    last = f"request_attributed: session_id={MAX_RECORDS + 1}, attribution=NONE"
    assert caplog.records[-1].getMessage() == last


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"origins": ()}, "origins must have"),
        ({"origins": 7}, "origins must be a URL"),
        ({"origins": ["ftp://host"]}, "origins needs a scheme"),
        ({"origins": [7]}, "origins must be a str"),
        ({"origins": "https://user:canary@host"}, "origins must hold no user"),
        ({"identity": 7}, "identity must be"),
        ({"room_connected": 7}, "room_connected must have"),
        ({"connect_wait": -1}, "connect_wait must be"),
        ({"header_names": 7}, "header_names must be"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as refused:
        AttributionMiddleware(**{"origins": "https://host", "identity": AGENT, **arguments})
    assert "canary" not in str(refused.value)


async def _open(
    session: aiohttp.ClientSession, url: str, **options: Any
) -> aiohttp.ClientWebSocketResponse:
    ws: aiohttp.ClientWebSocketResponse = await session.ws_connect(url, **options)
    return ws
