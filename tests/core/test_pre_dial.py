from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from helpers.support import Line, Room, open_line

from agent_conn import (
    ConnectionState,
    ConnectTimeout,
    DialFailed,
    InferenceConnection,
    Phase,
    StateChanged,
    WaitOutcome,
)
from agent_conn.gateway import DropHandshake, Gateway, Reset, StallAtTLS, StallInHandshake


def waiting_for(room: Room, line: Line, **options: Any) -> InferenceConnection:
    return line.dial(
        identity=room.identity, room_connected=room.connected, connect_wait=None, **options
    )


async def test_while_the_room_is_awaited_tcp_and_tls_are_dialled_and_nothing_is_sent(
    any_line: Line, room: Room
) -> None:
    connection = waiting_for(room, any_line)
    opening = asyncio.create_task(_open(connection))
    await any_line.gateway.wait_until(lambda: any_line.gateway.accepted == 1)
    assert any_line.gateway.handshakes == []
    assert connection.state is ConnectionState.WAITING
    room.connected.set()
    await opening
    record = connection.record
    await connection.aclose()
    assert any_line.gateway.accepted == 1
    assert any_line.gateway.handshakes[0].identity.agent_id == "PA_1"
    assert (record.pre_dialed, record.dials) == (True, 1)
    assert record.wait_outcome is WaitOutcome.CONNECTED
    assert record.pre_dial is not None


async def test_a_wait_that_times_out_leaves_the_pre_dial_for_the_request(
    any_line: Line, room: Room
) -> None:
    connection = any_line.dial(
        identity=room.identity, room_connected=room.connected, connect_wait=0.1
    )
    async with connection:
        assert connection.record.wait_outcome is WaitOutcome.TIMED_OUT
        assert connection.record.pre_dialed
    assert any_line.gateway.accepted == 1


@pytest.mark.parametrize("connected", [True, False])
async def test_without_a_wait_there_is_no_pre_dial(line: Line, room: Room, connected: bool) -> None:
    if connected:
        room.connected.set()
    connection = line.dial(room_connected=room.connected, connect_wait=0)
    async with connection:
        assert connection.record.pre_dial is None
        assert (connection.record.pre_dialed, connection.record.dials) == (False, 1)


async def test_a_room_already_connected_costs_no_turn_of_the_loop(line: Line, room: Room) -> None:
    room.connected.set()
    turns: list[str] = []
    turns_before_the_token: list[int] = []

    def mint() -> str:
        turns_before_the_token.append(len(turns))
        return "t0ken"

    connection = line.dial(room_connected=room.connected, token=mint)
    asyncio.get_running_loop().call_soon(turns.append, "turned")
    async with connection:
        assert turns_before_the_token == [0]
        assert turns == ["turned"]


async def test_a_pre_dial_that_fails_only_means_a_cold_dial(
    any_line: Line, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    any_line.gateway.inject(Reset("accept"))
    connection = waiting_for(room, any_line)
    with caplog.at_level(logging.DEBUG, logger="agent_conn"):
        opening = asyncio.create_task(_open(connection))
        await any_line.gateway.wait_until(lambda: any_line.gateway.accepted == 1)
        await any_line.gateway.wait_idle()
        room.connected.set()
        await opening
    await connection.aclose()
    assert (connection.record.pre_dialed, connection.record.dials) == (False, 2)
    assert any_line.gateway.accepted == 2


async def test_after_a_pre_dial_a_request_is_sent_once_though_the_peer_hangs_up(
    any_line: Line, room: Room
) -> None:
    any_line.gateway.inject(DropHandshake())
    connection = waiting_for(room, any_line, token="t0ken")
    opening = asyncio.create_task(_open(connection))
    await any_line.gateway.wait_until(lambda: any_line.gateway.accepted == 1)
    room.connected.set()
    with pytest.raises(DialFailed, match="hung up during the handshake"):
        await opening
    assert any_line.gateway.accepted == 1
    assert (connection.record.pre_dialed, connection.record.dials) == (True, 1)


async def test_a_pre_dial_whose_peer_went_away_is_replaced_by_one_cold_dial(
    session: aiohttp.ClientSession, room: Room, gateway: Gateway
) -> None:
    """Its FIN has come, and nobody has read it, when the room connects."""
    hung_up: list[bool] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not hung_up:
            hung_up.append(True)
            writer.close()
            await writer.wait_closed()
            room.connected.set()
            return
        to_gateway = await asyncio.open_connection("127.0.0.1", gateway.port)
        await asyncio.gather(pipe(reader, to_gateway[1]), pipe(to_gateway[0], writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = InferenceConnection(
            session, f"ws://127.0.0.1:{port}/v1/echo", room_connected=room.connected
        )
        async with connection as ws:
            await ws.send_str("heard")
            assert await ws.receive_str() == "heard"
        await gateway.wait_idle()
    assert (connection.record.pre_dialed, connection.record.dials) == (False, 2)


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


async def test_an_idle_connection_of_the_session_serves_and_is_no_dial(line: Line) -> None:
    async with line.session.get(line.gateway.base_url + "/stt") as answer:
        await answer.read()
    connection = line.dial()
    async with connection:
        assert connection.record.dials == 0
    assert line.gateway.accepted == 1


async def test_a_pre_dial_that_hangs_is_bounded_by_open_timeout(room: Room) -> None:
    async with open_line(tls=True) as line:
        line.gateway.inject(StallAtTLS())
        room_soon = asyncio.get_running_loop().call_later(0.01, room.connected.set)
        connection = waiting_for(room, line, open_timeout=0.1)
        with pytest.raises(ConnectTimeout) as failed:
            await connection
        assert room_soon.when() > 0
        assert failed.value.phase is Phase.DIAL
        assert connection.record.dials == 1


async def test_nobody_else_gets_the_connection_that_is_held_for_the_request(
    room: Room,
) -> None:
    async with (
        Gateway() as gateway,
        aiohttp.ClientSession() as session,
    ):
        connection = InferenceConnection(
            session, gateway.url("/v1/echo"), room_connected=room.connected, connect_wait=None
        )
        opening = asyncio.create_task(_open(connection))
        await gateway.wait_until(lambda: gateway.accepted == 1)
        async with session.ws_connect(gateway.url("/v1/echo")):
            assert gateway.accepted == 2
            room.connected.set()
            await opening
        assert connection.record.pre_dialed
        await connection.aclose()
        assert gateway.accepted == 2


async def test_two_that_wait_for_one_room_each_keep_their_own(room: Room) -> None:
    async with Gateway() as gateway, aiohttp.ClientSession() as session:
        connections = [
            InferenceConnection(
                session, gateway.url("/v1/echo"), room_connected=room.connected, connect_wait=None
            )
            for _ in range(5)
        ]
        openings = [asyncio.create_task(_open(connection)) for connection in connections]
        await gateway.wait_until(lambda: gateway.accepted == 5)
        room.connected.set()
        await asyncio.gather(*openings)
        assert all(connection.record.pre_dialed for connection in connections)
        assert gateway.accepted == 5
        for connection in connections:
            await connection.aclose()


async def test_waiting_makes_no_further_session(
    line: Line, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with line.dial():
        pass
    make, made = aiohttp.ClientSession.__init__, []

    def note(session: aiohttp.ClientSession, **options: Any) -> None:
        made.append(session)
        make(session, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", note)
    connection = line.dial(room_connected=room.connected, connect_wait=0.05)
    async with connection:
        assert connection.record.pre_dialed
    assert made == []


async def test_a_connector_that_keeps_nothing_alive_is_not_pre_dialled(room: Room) -> None:
    connector = aiohttp.TCPConnector(force_close=True)
    async with Gateway() as gateway, aiohttp.ClientSession(connector=connector) as session:
        connection = InferenceConnection(
            session, gateway.url("/v1/echo"), room_connected=room.connected, connect_wait=0.01
        )
        async with connection:
            assert (connection.record.pre_dial, connection.record.dials) == (None, 1)
        assert gateway.accepted == 1


@pytest.fixture
async def traced() -> AsyncIterator[tuple[Gateway, aiohttp.ClientSession, list[str]]]:
    seen: list[str] = []
    config = aiohttp.TraceConfig()

    def note(name: str) -> None:
        async def on_signal(*_: object) -> None:
            seen.append(name)

        getattr(config, f"on_{name}").append(on_signal)

    for name in ("request_start", "connection_create_end", "connection_reuseconn", "request_end"):
        note(name)
    async with Gateway() as gateway, aiohttp.ClientSession(trace_configs=[config]) as session:
        await _settle_proxy(session, gateway)
        seen.clear()
        yield gateway, session, seen


async def _settle_proxy(session: aiohttp.ClientSession, gateway: Gateway) -> None:
    async with InferenceConnection(session, gateway.url("/v1/echo")):
        pass


async def test_the_callers_trace_configs_see_a_dial(
    traced: tuple[Gateway, aiohttp.ClientSession, list[str]],
) -> None:
    gateway, session, seen = traced
    async with InferenceConnection(session, gateway.url("/v1/echo")):
        assert seen == ["request_start", "connection_reuseconn", "request_end"]


async def test_the_callers_trace_configs_see_the_request_on_a_pre_dial(
    traced: tuple[Gateway, aiohttp.ClientSession, list[str]], room: Room
) -> None:
    gateway, session, seen = traced
    connection = InferenceConnection(
        session, gateway.url("/v1/echo"), room_connected=room.connected, connect_wait=0.05
    )
    async with connection:
        assert seen == ["request_start", "connection_reuseconn", "request_end"]


async def test_the_token_is_minted_while_the_pre_dial_goes_on(any_line: Line, room: Room) -> None:
    minting, minted = asyncio.Event(), asyncio.Event()

    async def mint() -> str:
        minting.set()
        await minted.wait()
        return "t0ken"

    def connect_the_room(change: StateChanged) -> None:
        if change.state is ConnectionState.WAITING:
            asyncio.get_running_loop().call_soon(room.connected.set)

    connection = waiting_for(room, any_line, token=mint, observer=connect_the_room)
    opening = asyncio.create_task(_open(connection))
    await minting.wait()
    await any_line.gateway.wait_until(lambda: any_line.gateway.accepted == 1)
    minted.set()
    await opening
    await connection.aclose()
    assert connection.record.pre_dialed


async def test_a_handshake_that_hangs_after_a_pre_dial_is_told_as_one(
    any_line: Line, room: Room
) -> None:
    any_line.gateway.inject(StallInHandshake())
    room.connected.clear()
    asyncio.get_running_loop().call_later(0.05, room.connected.set)
    with pytest.raises(ConnectTimeout) as failed:
        await waiting_for(room, any_line, open_timeout=0.1)
    assert failed.value.phase is Phase.HANDSHAKE


async def _open(connection: InferenceConnection) -> object:
    return await connection
