"""The headers of a trace: read right before the request, and never worth a call."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest
from helpers.support import Line, Room, events

from agent_conn import ConnectionRecord, StateChanged, WaitOutcome


async def test_they_are_read_once_with_what_is_known_before_the_request(
    line: Line, room: Room
) -> None:
    records: list[ConnectionRecord] = []

    def trace_headers(record: ConnectionRecord) -> Mapping[str, str]:
        records.append(record)
        return {"traceparent": "00-1-2-01"}

    async with line.dial(identity=room.identity, trace_headers=trace_headers):
        pass
    (record,) = records
    (handshake,) = line.gateway.handshakes
    assert handshake.headers["traceparent"] == "00-1-2-01"
    assert record.session_id == handshake.session_id
    assert record.identity == handshake.identity
    assert record.wait_outcome is WaitOutcome.NOT_REQUESTED


def raises(_: ConnectionRecord) -> Mapping[str, str]:
    raise LookupError("canary")


@pytest.mark.parametrize(
    "trace_headers",
    [
        raises,
        lambda _: {"traceparent": "two\r\nlines"},
        lambda _: {"traceparent": "1", "X-LiveKit-Agent-ID": "PA_other"},
        lambda _: {"traceparent": "1", "x-livekit-session-id": "another"},
        lambda _: {"traceparent": "1", "authorization": "Bearer other"},
        lambda _: {"traceparent": "1", "x-mine": "theirs"},
        lambda _: {"traceparent": "1", "Sec-WebSocket-Key": "theirs"},
    ],
)
async def test_where_one_cannot_be_sent_none_is_and_the_connection_opens(
    line: Line, caplog: pytest.LogCaptureFixture, trace_headers: Any
) -> None:
    with caplog.at_level(logging.WARNING, logger="agent_conn"):
        async with line.dial(headers={"X-Mine": "mine"}, trace_headers=trace_headers) as ws:
            assert not ws.closed
    assert events(caplog) == ["trace_headers_left_out"]
    sent = line.gateway.handshakes[-1].headers
    assert "traceparent" not in sent
    assert "Authorization" not in sent
    assert sent["X-Mine"] == "mine"


async def test_the_observer_is_told_where_a_connection_leads_without_the_query(
    line: Line,
) -> None:
    seen: list[StateChanged] = []
    async with line.dial("/v1/echo?key=secret#part", observer=seen.append):
        pass
    assert {str(change.url) for change in seen} == {line.gateway.url("/v1/echo")}
