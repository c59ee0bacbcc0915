"""Several endpoints: which is dialled, which serves, and what each failure leads to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from helpers.canary import TOKEN
from helpers.pair import Pair, echoed, failed, open_pair, trusting
from helpers.support import Room, Stopwatch

from agent_conn import (
    AttributionLevel,
    AttributionUnavailable,
    ConnectError,
    ConnectionLost,
    ConnectionPool,
    ConnectTimeout,
    DialFailed,
    Endpoints,
    HandshakeInvalid,
    HandshakeRejected,
    InferenceConnection,
    OpenHookFailed,
    Phase,
    RetryPolicy,
    TokenUnavailable,
    reconnect,
)
from agent_conn.gateway import (
    CloseWith,
    DropAfter,
    DropHandshake,
    Fault,
    NotWebSocket,
    Redirect,
    Reject,
    Reset,
    StallAtTLS,
    StallInHandshake,
)

HEAD_START = 0.25


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
async def any_pair(
    request: pytest.FixtureRequest, loop_reports: list[dict[str, Any]]
) -> AsyncIterator[Pair]:
    async with open_pair(tls=request.param) as opened:
        yield opened


@pytest.fixture
async def pair(loop_reports: list[dict[str, Any]]) -> AsyncIterator[Pair]:
    async with open_pair(tls=True) as opened:
        yield opened


async def test_an_endpoint_that_answers_is_the_only_one_dialled(any_pair: Pair) -> None:
    connection = any_pair.dial()
    assert connection.url == any_pair.endpoints.current
    assert await echoed(connection) == any_pair.near.url("/v1/echo")
    assert (any_pair.near.accepted, any_pair.far.accepted) == (1, 0)
    assert connection.record.dials == 1


@pytest.mark.parametrize(
    "fault",
    [
        Reject(500),
        Reject(503, {"Retry-After": "60"}),
        DropHandshake(),
        Reset("accept"),
        Reset("handshake"),
    ],
    ids=repr,
)
async def test_a_dial_that_fails_moves_on_at_once(any_pair: Pair, fault: Fault) -> None:
    any_pair.near.inject(fault)
    connection = any_pair.dial()
    async with Stopwatch() as watch:
        assert await echoed(connection) == any_pair.far.url("/v1/echo")
    assert watch.elapsed < HEAD_START
    assert connection.record.dials == 2
    assert (len(any_pair.far.handshakes), any_pair.far.accepted) == (1, 1)
    # It is the current one now.
    assert any_pair.endpoints.current == connection.url
    assert await echoed(any_pair.dial()) == any_pair.far.url("/v1/echo")
    assert any_pair.near.accepted == 1


async def test_a_refused_connect_moves_on_at_once(any_pair: Pair) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"wss://127.0.0.1:{unused.getsockname()[1]}"
    any_pair.endpoints = Endpoints([nobody, any_pair.far.url("/v1/echo")])
    async with Stopwatch() as watch:
        assert await echoed(any_pair.dial()) == any_pair.far.url("/v1/echo")
    assert watch.elapsed < HEAD_START


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Reject(401), HandshakeRejected),
        (Reject(403), HandshakeRejected),
        (Reject(404), HandshakeRejected),
        (Reject(429), HandshakeRejected),
        (Redirect("/v1/elsewhere"), HandshakeInvalid),
        (NotWebSocket(), HandshakeInvalid),
    ],
    ids=repr,
)
async def test_a_refusal_of_the_caller_does_not_move_on(
    any_pair: Pair, fault: Fault, error: type[ConnectError]
) -> None:
    any_pair.near.inject(fault)
    met = await failed(any_pair.dial(token=TOKEN))
    assert type(met) is error
    assert isinstance(met, ConnectError)
    assert met.endpoint == any_pair.near.url("/v1/echo")
    assert any_pair.far.accepted == 0
    assert await echoed(any_pair.dial()) == any_pair.near.url("/v1/echo")


async def test_the_token_is_minted_once_for_all(pair: Pair) -> None:
    minted: list[str] = []

    def mint() -> str:
        minted.append(TOKEN)
        return TOKEN

    pair.near.inject(Reject(503))
    await echoed(pair.dial(token=mint))
    assert len(minted) == 1
    assert "Authorization" in pair.far.handshakes[0].headers


async def test_each_upgrade_reads_the_identity_anew(pair: Pair, room: Room) -> None:
    pair.near.inject(Reject(503))
    pair.near.inject(Reject(503))
    read: list[bool] = []

    def identity() -> Any:
        read.append(True)
        room.connected.set()
        return room.identity()

    connection = pair.dial(identity=identity)
    await echoed(connection)
    assert connection.attribution is AttributionLevel.AGENT
    assert len(read) >= 2


async def test_where_each_has_failed_the_last_failure_is_raised(any_pair: Pair) -> None:
    any_pair.near.inject(Reject(503))
    any_pair.far.inject(Reject(500))
    connection = any_pair.dial()
    met = await failed(connection)
    assert isinstance(met, HandshakeRejected)
    assert (met.status, met.endpoint) == (500, any_pair.far.url("/v1/echo"))
    assert any_pair.far.url("/v1/echo") in str(met)
    assert (any_pair.near.accepted, any_pair.far.accepted) == (1, 1)
    assert connection.record.endpoint == met.endpoint


async def test_a_failure_that_a_loop_may_dial_again_after_is_raised_before_a_final_one(
    pair: Pair,
) -> None:
    pair.near.inject(Reject(503))
    connector = aiohttp.TCPConnector(ssl=trusting(pair.near))
    async with aiohttp.ClientSession(connector=connector) as session:
        met = await failed(InferenceConnection(session, pair.endpoints))
    assert isinstance(met, HandshakeRejected)
    assert met.retryable


async def test_an_endpoint_whose_certificate_is_refused_is_moved_on_from(pair: Pair) -> None:
    connector = aiohttp.TCPConnector(ssl=trusting(pair.far))
    async with aiohttp.ClientSession(connector=connector) as session:
        assert await echoed(InferenceConnection(session, pair.endpoints)) == pair.far.url(
            "/v1/echo"
        )
        met = await failed(InferenceConnection(session, pair.near.url("/v1/echo")))
    assert isinstance(met, DialFailed)
    assert met.certificate_refused


async def test_open_timeout_bounds_all_the_tries_together(pair: Pair) -> None:
    pair.near.inject(StallAtTLS(), times=None)
    pair.far.inject(StallAtTLS(), times=None)
    async with Stopwatch() as watch:
        met = await failed(pair.dial(open_timeout=0.5))
    assert type(met) is ConnectTimeout
    assert met.phase is Phase.DIAL
    assert watch.elapsed < 0.6
    pair.near.withdraw_faults()
    pair.far.withdraw_faults()
    # Both were waited for, and both count as failed: neither is preferred for it.
    assert await echoed(pair.dial()) == pair.near.url("/v1/echo")


async def test_an_endpoint_that_answers_no_upgrade_has_its_share_of_open_timeout(
    any_pair: Pair,
) -> None:
    any_pair.near.inject(StallInHandshake())
    async with Stopwatch() as watch:
        connection = any_pair.dial(open_timeout=0.8)
        assert await echoed(connection) == any_pair.far.url("/v1/echo")
    assert 0.35 < watch.elapsed < 0.6
    assert any_pair.endpoints.current == connection.url


async def test_the_last_endpoint_has_all_that_is_left_of_open_timeout(any_pair: Pair) -> None:
    any_pair.near.inject(Reject(503))
    any_pair.far.inject(StallInHandshake())
    async with Stopwatch() as watch:
        met = await failed(any_pair.dial(open_timeout=0.4))
    assert type(met) is ConnectTimeout
    assert (met.phase, met.endpoint) == (Phase.HANDSHAKE, any_pair.far.url("/v1/echo"))
    assert 0.35 < watch.elapsed < 0.6


async def test_a_token_that_takes_too_long_is_no_endpoints_fault(pair: Pair) -> None:
    async def mint() -> str:
        await asyncio.Event().wait()
        return TOKEN

    met = await failed(pair.dial(token=mint, open_timeout=0.1))
    assert isinstance(met, ConnectTimeout)
    assert met.phase is Phase.TOKEN
    assert await echoed(pair.dial()) == pair.near.url("/v1/echo")


async def test_a_failing_token_or_level_dials_no_other(pair: Pair) -> None:
    def mint() -> str:
        raise RuntimeError

    assert isinstance(await failed(pair.dial(token=mint)), TokenUnavailable)
    met = await failed(pair.dial(require=AttributionLevel.JOB))
    assert isinstance(met, AttributionUnavailable)
    assert pair.far.accepted == 0


@pytest.mark.parametrize(
    ("fault", "moves"),
    [
        (CloseWith(1012), True),
        (CloseWith(1013), True),
        (DropAfter(), True),
        (DropAfter(reset=True), True),
        (CloseWith(1000), False),
        (CloseWith(1001), False),
        (CloseWith(1011), False),
        (CloseWith(4000), False),
    ],
    ids=repr,
)
async def test_a_loss_counts_against_its_endpoint(
    any_pair: Pair, fault: Fault, moves: bool
) -> None:
    connection = any_pair.dial()
    async with connection as ws:
        any_pair.near.connections[0].inject(fault)
        async for _ in ws:
            pass
    loss = connection.loss
    if loss is not None:
        assert loss.endpoint == any_pair.near.url("/v1/echo")
    served = any_pair.far if moves else any_pair.near
    assert await echoed(any_pair.dial()) == served.url("/v1/echo")


async def test_a_drop_under_on_open_counts_against_its_endpoint(any_pair: Pair) -> None:
    async def greet(ws: aiohttp.ClientWebSocketResponse) -> None:
        any_pair.near.connections[0].inject(DropAfter(reset=True))
        await ws.receive_bytes()

    met = await failed(any_pair.dial(on_open=greet))
    assert isinstance(met, OpenHookFailed)
    assert met.endpoint == any_pair.near.url("/v1/echo")
    # The hook has sent what it sent, and nobody else may send it again.
    assert any_pair.far.accepted == 0
    assert await echoed(any_pair.dial()) == any_pair.far.url("/v1/echo")


async def test_a_hook_that_times_out_counts_against_its_endpoint(any_pair: Pair) -> None:
    async def greet(ws: aiohttp.ClientWebSocketResponse) -> None:
        await ws.receive_bytes()

    met = await failed(any_pair.dial(on_open=greet, open_timeout=0.1))
    assert isinstance(met, ConnectTimeout)
    assert met.phase is Phase.ON_OPEN
    assert await echoed(any_pair.dial()) == any_pair.far.url("/v1/echo")


async def test_a_loop_dials_the_next_after_a_loss(any_pair: Pair) -> None:
    served: list[str | None] = []

    async def pump(connection: InferenceConnection) -> str | None:
        served.append(connection.record.endpoint)
        if len(served) == 1:
            any_pair.near.connections[0].inject(Reset())
            async for _ in connection.ws:
                pass
            return None
        return "done"

    async with reconnect(any_pair.dial, retry=RetryPolicy(initial=0.05)) as loop:
        assert await loop.run(pump) == "done"
    assert served == [any_pair.near.url("/v1/echo"), any_pair.far.url("/v1/echo")]
    assert isinstance(loop.last_error, ConnectionLost)
    assert loop.last_error.endpoint == served[0]


async def test_a_pool_dials_by_what_the_endpoints_know(any_pair: Pair) -> None:
    any_pair.near.inject(Reject(503))
    async with ConnectionPool(any_pair.dial, min_idle=0) as pool:
        async with pool.acquire() as connection:
            assert connection.record.endpoint == any_pair.far.url("/v1/echo")
        async with pool.acquire() as again:
            assert again is connection


async def test_connections_share_what_their_endpoints_found(any_pair: Pair) -> None:
    any_pair.near.inject(Reject(503))
    await echoed(any_pair.dial())
    assert await echoed(any_pair.dial()) == any_pair.far.url("/v1/echo")
    any_pair.endpoints = any_pair.make_endpoints()
    assert await echoed(any_pair.dial()) == any_pair.near.url("/v1/echo")
