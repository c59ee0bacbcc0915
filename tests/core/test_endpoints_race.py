"""Endpoints that are dialled side by side, of which one is sent the request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Self

import pytest
from helpers.pair import Pair, echoed, open_pair
from helpers.support import Room, Stopwatch

from agent_conn import (
    AttributionLevel,
    Endpoints,
    InferenceConnection,
)
from agent_conn.gateway import (
    Fault,
    Gateway,
    Reject,
    StallAtAccept,
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


@pytest.mark.parametrize("fault", [StallAtTLS(), StallAtAccept()], ids=repr)
async def test_a_black_hole_costs_the_first_open_the_head_start_and_the_next_nothing(
    pair: Pair, fault: Fault
) -> None:
    pair.near.inject(fault, times=None)
    async with Stopwatch() as first:
        connection = pair.dial()
        assert await echoed(connection) == pair.far.url("/v1/echo")
    assert HEAD_START - 0.02 < first.elapsed < 4 * HEAD_START
    assert connection.record.dials == 2
    again = pair.dial()
    assert await echoed(again) == pair.far.url("/v1/echo")
    assert again.record.dials == 1


class LateLine:
    """Carries TCP to a gateway, from when ``open`` is set."""

    def __init__(self, gateway: Gateway) -> None:
        self.open = asyncio.Event()
        self.clients: list[asyncio.StreamWriter] = []
        self.url = ""
        self._gateway = gateway
        self._piping: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"wss://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1/echo"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._piping)
        await self._server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.open.wait()
        self.clients.append(writer)
        to_gateway = await asyncio.open_connection("127.0.0.1", self._gateway.port)
        for ends in ((reader, to_gateway[1]), (to_gateway[0], writer)):
            self._piping += [asyncio.create_task(pipe(*ends), name="pipe")]


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()


@pytest.mark.parametrize("hangs_up", [False, True], ids=["it stays", "it hangs up"])
async def test_one_upgrade_at_a_time_is_sent_and_who_waits_is_next(
    pair: Pair, hangs_up: bool
) -> None:
    """The near one is connected late, when the far one has the Upgrade and does not answer."""
    async with LateLine(pair.near) as line:
        pair.far.inject(StallInHandshake())
        endpoints = Endpoints([line.url, pair.far.url("/v1/echo")])
        connection = InferenceConnection(pair.session, endpoints, open_timeout=2.0)
        opening = asyncio.create_task(echoed(connection))
        await pair.far.wait_until(lambda: len(pair.far.handshakes) == 1)
        line.open.set()
        await pair.near.wait_until(lambda: pair.near.accepted == 1)
        await asyncio.sleep(0.2)
        assert pair.near.handshakes == []
        if hangs_up:
            line.clients[0].transport.abort()
        # The far one has its share of open_timeout, and no more.
        assert await opening == line.url
    assert len(pair.near.handshakes) == len(pair.far.handshakes) == 1
    assert (pair.near.accepted, connection.record.dials) == ((2, 3) if hangs_up else (1, 2))


async def test_while_the_room_is_awaited_only_what_answers_is_pre_dialled(
    any_pair: Pair, room: Room
) -> None:
    connection = any_pair.dial(
        identity=room.identity, room_connected=room.connected, connect_wait=None
    )
    opening = asyncio.create_task(echoed(connection))
    await any_pair.near.wait_until(lambda: any_pair.near.accepted == 1)
    await asyncio.sleep(1.5 * HEAD_START)
    assert any_pair.far.accepted == 0
    assert any_pair.near.handshakes == []
    room.connected.set()
    await opening
    record = connection.record
    assert (record.pre_dialed, record.dials) == (True, 1)
    assert record.pre_dial is not None
    assert record.pre_dial < HEAD_START
    assert record.attribution is AttributionLevel.AGENT


async def test_while_the_room_is_awaited_the_next_is_pre_dialled_beside_a_black_hole(
    pair: Pair, room: Room
) -> None:
    pair.near.inject(StallAtTLS())
    connection = pair.dial(identity=room.identity, room_connected=room.connected, connect_wait=None)
    opening = asyncio.create_task(echoed(connection))
    await pair.far.wait_until(lambda: pair.far.accepted == 1)
    await asyncio.sleep(0.1)
    async with Stopwatch() as watch:
        room.connected.set()
        assert await opening == pair.far.url("/v1/echo")
    assert watch.elapsed < 0.1
    record = connection.record
    assert (record.pre_dialed, record.dials) == (True, 2)
    assert record.pre_dial is not None
    assert record.pre_dial < HEAD_START


async def test_a_black_hole_met_after_the_room_has_connected_is_raced_too(
    pair: Pair, room: Room
) -> None:
    """What was up, so that no other was dialled, has died, and its endpoint is silent now."""
    async with LateLine(pair.near) as line:
        line.open.set()
        endpoints = Endpoints([line.url, pair.far.url("/v1/echo")])
        connection = InferenceConnection(
            pair.session, endpoints, room_connected=room.connected, connect_wait=None
        )
        opening = asyncio.create_task(echoed(connection))
        await pair.near.wait_until(lambda: pair.near.accepted == 1)
        await asyncio.sleep(2 * HEAD_START)
        assert pair.far.accepted == 0
        line.open.clear()
        line.clients[0].transport.abort()
        await pair.idle()
        async with Stopwatch() as watch:
            room.connected.set()
            assert await opening == pair.far.url("/v1/echo")
        line.open.set()
    assert watch.elapsed < 4 * HEAD_START


@pytest.mark.parametrize("limits", [{"limit": 1}, {"force_close": True}], ids=repr)
async def test_connectors_that_leave_no_room_for_a_race_still_move_on(
    limits: dict[str, Any], loop_reports: list[dict[str, Any]]
) -> None:
    async with open_pair(tls=True, **limits) as pair:
        pair.near.inject(Reject(503))
        assert await echoed(pair.dial()) == pair.far.url("/v1/echo")
