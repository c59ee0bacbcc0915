"""The five cases of the crash that this package grew from, and the guard against it."""

from __future__ import annotations

import pytest
from helpers.support import Line, Room

from agent_conn import AgentIdentity, AttributionLevel, WaitOutcome


async def test_unconnected_room(line: Line, room: Room) -> None:
    connection = line.dial(identity=room.identity, room_connected=room.connected, connect_wait=0)
    async with connection:
        sent = line.gateway.handshakes[-1].identity
    assert sent == AgentIdentity(job_id="AJ_1", room_id="RM_1")
    assert connection.attribution is AttributionLevel.ROOM
    assert connection.record.wait_outcome is WaitOutcome.TIMED_OUT
    assert connection.record.identity is not None
    assert dict(connection.record.identity.omitted) == {"agent_id": "raised Exception"}


async def test_connected_room(line: Line, room: Room) -> None:
    room.connected.set()
    connection = line.dial(identity=room.identity, room_connected=room.connected)
    async with connection:
        sent = line.gateway.handshakes[-1].identity
    assert sent == AgentIdentity(job_id="AJ_1", room_id="RM_1", agent_id="PA_1")
    assert connection.attribution is AttributionLevel.AGENT
    assert connection.record.wait_outcome is WaitOutcome.ALREADY_CONNECTED


@pytest.mark.parametrize("sid", [b"PA_1", 7, None, object()])
async def test_sid_that_is_no_string(line: Line, sid: object) -> None:
    connection = line.dial(
        identity=lambda: AgentIdentity.best_effort(job_id="AJ_1", room_id="RM_1", agent_id=sid)
    )
    async with connection:
        sent = line.gateway.handshakes[-1].identity
    assert sent == AgentIdentity(job_id="AJ_1", room_id="RM_1")
    assert connection.attribution is AttributionLevel.ROOM


async def test_empty_sid(line: Line) -> None:
    connection = line.dial(
        identity=lambda: AgentIdentity.best_effort(job_id="AJ_1", room_id="", agent_id="")
    )
    async with connection:
        sent = line.gateway.handshakes[-1].identity
    assert sent == AgentIdentity(job_id="AJ_1")
    assert connection.attribution is AttributionLevel.JOB


async def test_no_job_context(line: Line) -> None:
    def outside_of_a_job() -> AgentIdentity:
        raise RuntimeError("no job context found")

    connection = line.dial(identity=outside_of_a_job)
    async with connection:
        handshake = line.gateway.handshakes[-1]
    assert handshake.identity == AgentIdentity()
    assert connection.attribution is AttributionLevel.NONE
    assert connection.record.identity is not None
    assert set(connection.record.identity.omitted.values()) == {"identity raised RuntimeError"}


async def test_without_the_guard_the_pump_would_die_of_the_rooms_bare_exception(
    room: Room,
) -> None:
    with pytest.raises(Exception, match=r"^cannot access local participant before connecting$"):
        room.agent_sid()
    assert room.identity().level is AttributionLevel.ROOM
