"""What metrics count and measure, and that their series stay few."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from helpers.exported import Exported
from helpers.support import Line, Room

from agent_conn import (
    AgentConnError,
    AgentIdentity,
    ConnectTimeout,
    DialFailed,
    HandshakeRejected,
    InferenceConnection,
    ReplayBuffer,
    reconnect,
)
from agent_conn.gateway import CloseWith, DropAfter, Reject, Reset, StallInHandshake

CONNECT = "agent_conn.connect.duration"


async def test_openings_are_counted_by_outcome_and_level(
    line: Line, room: Room, exported: Exported
) -> None:
    options = exported.options()
    async with line.dial(**options):
        pass
    for _ in range(2):
        async with line.dial(identity=room.identity, **options):
            pass
    line.gateway.inject(Reject(429))
    with pytest.raises(HandshakeRejected):
        await line.dial(identity=room.identity, **options)
    line.gateway.inject(StallInHandshake())
    with pytest.raises(ConnectTimeout):
        await line.dial(open_timeout=0.05, **options)
    line.gateway.inject(Reset("handshake"))
    with pytest.raises(DialFailed):
        await line.dial(**options)
    line.gateway.inject(StallInHandshake())
    opening = asyncio.create_task(line.dial(**options).open())
    await line.gateway.wait_until(lambda: len(line.gateway.handshakes) == 7)
    opening.cancel()
    await asyncio.wait({opening})

    place = {
        "server.address": "127.0.0.1",
        "server.port": line.gateway.port,
        "url.template": "/v1/echo",
    }
    level = "agent_conn.attribution.level"
    failed = {**place, "agent_conn.outcome": "failed", "agent_conn.phase": "handshake"}
    expected: list[tuple[dict[str, Any], int]] = [
        ({**place, level: "none", "agent_conn.outcome": "opened"}, 1),
        ({**place, level: "room", "agent_conn.outcome": "opened"}, 2),
        (
            {
                **failed,
                level: "room",
                "error.type": "HandshakeRejected",
                "http.response.status_code": 429,
            },
            1,
        ),
        ({**failed, level: "none", "error.type": "ConnectTimeout"}, 1),
        ({**failed, level: "none", "error.type": "DialFailed"}, 1),
        ({**place, level: "none", "agent_conn.outcome": "cancelled"}, 1),
    ]
    counted = [(attributes, point.count) for attributes, point in exported.series(CONNECT)]
    assert sorted(counted, key=str_sorted) == sorted(expected, key=str_sorted)


def str_sorted(counted: tuple[dict[str, Any], int]) -> list[str]:
    return sorted(map(str, counted[0].items()))


async def test_the_seconds_of_each_phase_are_measured(
    line: Line, room: Room, exported: Exported
) -> None:
    room.connected.set()
    connection = line.dial(
        identity=room.identity, room_connected=room.connected, **exported.options()
    )
    async with connection:
        pass
    record = connection.record
    measured = {
        attributes["agent_conn.phase"]: (point.count, point.sum)
        for attributes, point in exported.series("agent_conn.phase.duration")
    }
    assert measured == {
        "wait": (1, record.waited),
        "token": (1, record.minted),
        "dial": (1, record.dialed),
        "handshake": (1, record.upgraded),
        "on_open": (1, record.opened),
    }
    ((_, whole),) = exported.series(CONNECT)
    assert whole.sum == pytest.approx(sum(seconds for _, seconds in measured.values()), abs=0.05)
    assert whole.explicit_bounds[0] == 0.005


async def test_a_phase_that_was_cut_short_is_not_measured(line: Line, exported: Exported) -> None:
    line.gateway.inject(StallInHandshake())
    with pytest.raises(ConnectTimeout):
        await line.dial(open_timeout=0.05, **exported.options())
    phases = exported.values("agent_conn.phase.duration", "agent_conn.phase")
    assert phases == {"wait": 1, "token": 1, "dial": 1}


async def test_open_connections_go_up_and_down(line: Line, room: Room, exported: Exported) -> None:
    name, level = "agent_conn.open_connections", "agent_conn.attribution.level"
    async with line.dial(identity=room.identity, **exported.options()):
        assert exported.values(name, level) == {"room": 1}
    assert exported.values(name, level) == {"room": 0}


async def test_a_failed_opening_was_never_open(line: Line, exported: Exported) -> None:
    line.gateway.inject(Reject(500))
    with pytest.raises(HandshakeRejected):
        await line.dial(**exported.options())
    assert exported.series("agent_conn.open_connections") == []
    assert exported.series("agent_conn.connection.duration") == []


async def test_lives_are_counted_by_how_they_ended(line: Line, exported: Exported) -> None:
    for fault in (None, DropAfter(), CloseWith(1012), CloseWith(1000)):
        async with line.dial(**exported.options()) as ws:
            if fault is not None:
                line.gateway.connections[-1].inject(fault)
                await ws.send_str("?")
                async for _ in ws:
                    pass
    name = "agent_conn.connection.duration"
    ended = {"closed_here": 1, "lost": 1, "closed_by_peer": 2}
    assert exported.values(name, "agent_conn.ended") == ended
    assert exported.values(name, "error.type") == {None: 2, "ConnectionLost": 2}


async def test_redials_are_counted_and_first_dials_are_not(line: Line, exported: Exported) -> None:
    line.gateway.inject(Reject(503, {"Retry-After": "0"}))
    dial = partial(line.dial, **exported.options())
    async with reconnect(dial, random=lambda: 0.0) as loop:
        async for _ in loop:
            break
    assert exported.values("agent_conn.redials", "agent_conn.outcome") == {"opened": 1}
    assert exported.values(CONNECT, "agent_conn.outcome") == {"opened": 1, "failed": 1}


def test_what_a_replay_gives_up_is_counted(exported: Exported) -> None:
    buffer = ReplayBuffer[bytes](
        max_seconds=1.0, max_bytes=100, on_give_up=exported.telemetry.given_up
    )
    for _ in range(4):
        buffer.put_nowait(b"frame", size=5, seconds=0.5)
    buffer.put_nowait(b"large", size=100, seconds=0.0)
    buffer.close()
    reason = "agent_conn.reason"
    assert buffer.statistics.unsent == 1
    assert exported.values("agent_conn.replay.given_up_items", reason) == {"seconds": 2, "bytes": 2}
    assert exported.values("agent_conn.replay.given_up_time", reason) == {
        "seconds": 1.0,
        "bytes": 1.0,
    }


async def test_many_ids_and_paths_make_few_series(line: Line, exported: Exported) -> None:
    for number in range(100):
        identity = AgentIdentity(f"AJ_{number}", f"RM_{number}", f"PA_{number}")
        async with line.dial(identity=identity, **exported.options()):
            pass
    assert {len(exported.series(name)) for name, _ in exported.points()} == {1, 5}
    for number in range(100):
        with pytest.raises(AgentConnError):
            await line.dial(f"/v1/rooms/RM_{number}", **exported.options())
    assert exported.values(CONNECT, "url.template")["_OTHER"] == 69
    assert len(exported.series(CONNECT)) == 33
    values = {value for _, point in exported.points() for value in point.attributes.values()}
    assert not any(str(value).startswith(("AJ_", "PA_")) for value in values)
    assert len(exported.spans()) == 200


async def test_many_servers_make_few_series(line: Line, exported: Exported) -> None:
    for number in range(2, 102):
        url = f"ws://127.0.0.{number}:{line.gateway.port}/v1/echo"
        with pytest.raises(DialFailed):
            await InferenceConnection(line.session, url, **exported.options())
    assert len(exported.series(CONNECT)) == 33
    assert exported.values(CONNECT, "server.address")["_OTHER"] == 68
