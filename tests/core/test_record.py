from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from helpers.support import Line, events, own_records

from agent_conn import AgentIdentity, AttributionLevel, ConnectError, ConnectionRecord
from agent_conn.gateway import CloseWith, Reject


def without_agent() -> AgentIdentity:
    def agent_id() -> str:
        raise RuntimeError("not joined")

    return AgentIdentity.best_effort(job_id="AJ_1", room_id="RM_1", agent_id=agent_id)


async def ended_record(line: Line, reason: str, **options: Any) -> ConnectionRecord:
    """The record of a connection that its peer closed with 1008 and ``reason``."""
    line.gateway.inject(CloseWith(1008, reason=reason))
    connection = line.dial(identity=without_agent, **options)
    async with connection as ws:
        await ws.receive()
    return connection.record


async def test_a_record_is_printed_with_its_ids_its_phases_and_its_end(line: Line) -> None:
    record = await ended_record(line, "quota", room_connected=asyncio.Event(), connect_wait=0.02)
    shown = dict(text.split(maxsplit=1) for text in str(record).splitlines())
    assert shown["attribution"] == "ROOM"
    assert shown["agent_id"] == "left out: raised RuntimeError"
    assert (shown["room_id"], shown["job_id"]) == ("RM_1", "AJ_1")
    assert shown["session_id"] == record.session_id
    assert shown["room"] == "timed out"
    assert shown["dials"] == "1, dialled during the wait, redial 0"
    phases = (record.waited, record.minted, record.dialed, record.upgraded, record.opened)
    total = sum(phase or 0.0 for phase in phases)
    assert shown["phases"].startswith(f"waited {1000 * (record.waited or 0):.0f} ms, minted ")
    assert shown["phases"].endswith(f": {1000 * total:.0f} ms in all")
    assert shown["ended"] == "closed by the peer, close code 1008: quota"


def test_what_is_not_known_yet_is_not_printed() -> None:
    assert str(ConnectionRecord(session_id="s")) == (
        "attribution  NONE\nsession_id   s\ndials        0, redial 0"
    )


async def test_a_notebook_draws_a_record_and_runs_nothing_of_what_a_peer_said(line: Line) -> None:
    record = await ended_record(line, "<script>alert(1)</script>")
    drawn = record._repr_html_()
    assert drawn.count("<tr>") == len(str(record).splitlines())
    assert "<script>" not in drawn
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in drawn


async def test_ids_that_were_left_out_are_a_warning_that_says_why(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="agent_conn"):
        async with line.dial(identity=without_agent):
            pass
    assert events(caplog) == ["ids_left_out"]
    assert own_records(caplog)[0].getMessage().endswith("agent_id=raised RuntimeError")


async def test_a_room_that_did_not_connect_is_a_warning(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    identity = AgentIdentity(job_id="AJ_1")
    with caplog.at_level(logging.WARNING, logger="agent_conn"):
        async with line.dial(identity=identity, room_connected=asyncio.Event(), connect_wait=0):
            pass
    assert events(caplog) == ["ids_left_out"]
    assert "room=timed out" in caplog.text


@pytest.mark.parametrize("identity", [None, AgentIdentity(agent_id="PA_1")])
async def test_an_id_that_nobody_gave_is_no_warning(
    line: Line, caplog: pytest.LogCaptureFixture, identity: AgentIdentity | None
) -> None:
    with caplog.at_level(logging.WARNING, logger="agent_conn"):
        async with line.dial(identity=identity):
            pass
    assert events(caplog) == []


async def test_a_refusal_and_a_loss_are_warnings_with_their_reason(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    line.gateway.inject(Reject(401))
    with caplog.at_level(logging.WARNING, logger="agent_conn"):
        with pytest.raises(ConnectError) as caught:
            await line.dial(identity=AgentIdentity(agent_id="PA_1"))
        line.gateway.inject(CloseWith(1008, reason="quota"))
        connection = line.dial(identity=AgentIdentity(agent_id="PA_1"))
        async with connection as ws:
            await ws.receive()
    assert events(caplog) == ["connection_failed", "connection_lost"]
    failed, lost = own_records(caplog)
    assert str(caught.value) in failed.getMessage()
    assert vars(failed)["url"] == vars(lost)["url"] == str(connection.url)
    assert "quota" in lost.getMessage()
    assert vars(lost)["code"] == 1008


async def test_what_the_caller_ended_is_no_warning(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="agent_conn"):
        connection = line.dial(require=AttributionLevel.NONE)
        async with connection:
            pass
    assert connection.loss is None
    assert events(caplog) == []
