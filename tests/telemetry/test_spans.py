"""A span for each connect, with its phases as events, and one for the connection's life."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from helpers.exported import Exported, attributes_of, context_of, exporting, parent_of
from helpers.support import Line, Room, events
from opentelemetry import trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode

from agent_conn import AgentConnError, AttributionLevel, DialFailed, InferenceConnection, StateError
from agent_conn.gateway import (
    CloseWith,
    DropAfter,
    Fault,
    IgnoreClose,
    Redirect,
    Reject,
    Reset,
    StallInHandshake,
)
from agent_conn.integrations.opentelemetry import Telemetry

CONNECTION = "agent_conn.connection"


async def nothing_to_do(_: object) -> None:
    pass


async def raising(*_: object) -> Any:
    raise LookupError("canary")


async def test_an_opening_is_told_under_the_conventions_names(
    line: Line, room: Room, exported: Exported
) -> None:
    room.connected.set()
    connection = line.dial(
        "/v1/echo?model=auto",
        identity=room.identity,
        room_connected=room.connected,
        **exported.options(),
    )
    async with connection:
        (span,) = exported.spans()
        assert exported.spans(CONNECTION) == []
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert attributes_of(span) == {
        "network.protocol.name": "websocket",
        "server.address": "127.0.0.1",
        "server.port": line.gateway.port,
        "url.scheme": "ws",
        "url.path": "/v1/echo",
        "http.response.status_code": 101,
        "agent_conn.outcome": "opened",
        "agent_conn.session.id": connection.record.session_id,
        "agent_conn.job.id": "AJ_1",
        "agent_conn.room.id": "RM_1",
        "agent_conn.agent.id": "PA_1",
        "agent_conn.attribution.level": "agent",
        "agent_conn.wait.outcome": "already_connected",
        "agent_conn.pre_dialed": False,
        "agent_conn.dials": 1,
    }
    scope = span.instrumentation_scope
    assert scope is not None
    assert scope.name == "agent_conn"


async def test_the_phases_are_events_in_their_order_with_their_seconds(
    line: Line, room: Room, exported: Exported
) -> None:
    connection = line.dial(
        identity=room.identity,
        room_connected=room.connected,
        on_open=nothing_to_do,
        **exported.options(),
    )
    opening = asyncio.create_task(connection.open())
    await line.gateway.wait_until(lambda: line.gateway.accepted == 1)
    room.connected.set()
    await opening
    await connection.aclose()
    (span,) = exported.spans()
    record = connection.record
    seconds = {
        event.name: (event.attributes or {})["agent_conn.phase.duration"] for event in span.events
    }
    assert seconds == {
        "agent_conn.pre_dial": record.pre_dial,
        "agent_conn.wait": record.waited,
        "agent_conn.token": record.minted,
        "agent_conn.dial": record.dialed,
        "agent_conn.handshake": record.upgraded,
        "agent_conn.on_open": record.opened,
    }
    assert span.start_time is not None
    assert span.end_time is not None
    in_turn = [event.timestamp for event in span.events if "pre_dial" not in event.name]
    assert [span.start_time, *in_turn, span.end_time] == sorted(
        [span.start_time, *in_turn, span.end_time]
    )
    assert attributes_of(span)["agent_conn.pre_dialed"] is True
    assert attributes_of(span)["agent_conn.wait.outcome"] == "connected"


async def test_it_says_why_an_id_is_missing(line: Line, room: Room, exported: Exported) -> None:
    async with line.dial(identity=room.identity, **exported.options()):
        pass
    (span,) = exported.spans()
    attributes = attributes_of(span)
    assert attributes["agent_conn.agent.omitted"] == "raised Exception"
    assert attributes["agent_conn.attribution.level"] == "room"
    assert "agent_conn.agent.id" not in attributes


@pytest.mark.parametrize(
    ("fault", "options", "error", "phase", "status"),
    [
        (Reject(429), {}, "HandshakeRejected", "handshake", 429),
        (Redirect("http://127.0.0.1:1/"), {}, "HandshakeInvalid", "handshake", None),
        (StallInHandshake(), {"open_timeout": 0.05}, "ConnectTimeout", "handshake", None),
        (Reset("handshake"), {}, "DialFailed", "handshake", None),
        (None, {"token": raising}, "TokenUnavailable", "token", None),
        (None, {"on_open": raising}, "OpenHookFailed", "on_open", 101),
        (
            None,
            {"require": AttributionLevel.JOB},
            "AttributionUnavailable",
            "identity",
            None,
        ),
    ],
)
async def test_a_failure_is_an_error_with_its_type_and_phase(
    line: Line,
    exported: Exported,
    fault: Fault | None,
    options: dict[str, Any],
    error: str,
    phase: str,
    status: int | None,
) -> None:
    if fault is not None:
        line.gateway.inject(fault)
    with pytest.raises(AgentConnError) as failed:
        await line.dial(**options, **exported.options())
    (span,) = exported.spans()
    attributes = attributes_of(span)
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert attributes["agent_conn.outcome"] == "failed"
    assert attributes["error.type"] == type(failed.value).__name__ == error
    assert attributes["agent_conn.phase"] == phase
    assert attributes.get("http.response.status_code") == status
    assert exported.spans(CONNECTION) == []


async def test_a_dial_to_nobody_is_a_failed_dial(line: Line, exported: Exported) -> None:
    # The gateway listens on 127.0.0.1 alone.
    url = f"ws://127.0.0.2:{line.gateway.port}/v1/echo"
    with pytest.raises(DialFailed):
        await InferenceConnection(line.session, url, **exported.options())
    (span,) = exported.spans()
    assert attributes_of(span)["error.type"] == "DialFailed"
    assert attributes_of(span)["agent_conn.phase"] == "dial"
    assert attributes_of(span)["server.address"] == "127.0.0.2"


async def test_cancelled_it_is_no_error(line: Line, exported: Exported) -> None:
    line.gateway.inject(StallInHandshake())
    opening = asyncio.create_task(line.dial(**exported.options()).open())
    await line.gateway.wait_until(lambda: len(line.gateway.handshakes) == 1)
    opening.cancel()
    await asyncio.wait({opening})
    assert opening.cancelled()
    (span,) = exported.spans()
    assert span.status.status_code is StatusCode.UNSET
    assert attributes_of(span)["agent_conn.outcome"] == "cancelled"
    assert "error.type" not in attributes_of(span)
    assert [event.name for event in span.events] == [
        "agent_conn.wait",
        "agent_conn.token",
        "agent_conn.dial",
    ]


async def test_closed_while_it_opens_it_is_cancelled(line: Line, exported: Exported) -> None:
    line.gateway.inject(StallInHandshake())
    connection = line.dial(**exported.options())
    opening = asyncio.create_task(connection.open())
    await line.gateway.wait_until(lambda: len(line.gateway.handshakes) == 1)
    await connection.aclose()
    with pytest.raises(StateError):
        await opening
    (span,) = exported.spans()
    assert attributes_of(span)["agent_conn.outcome"] == "cancelled"
    assert span.status.status_code is StatusCode.UNSET


async def test_closed_before_it_was_opened_it_has_no_span(line: Line, exported: Exported) -> None:
    await line.dial(**exported.options()).aclose()
    assert exported.all_spans() == ()


@pytest.mark.parametrize(
    ("fault", "ended", "code", "lost"),
    [
        (None, "closed_here", 1000, False),
        (CloseWith(1000), "closed_by_peer", 1000, False),
        (CloseWith(1011), "closed_by_peer", 1011, True),
        (DropAfter(), "lost", 1006, True),
        (IgnoreClose(), "aborted", 1006, False),
    ],
)
async def test_the_life_of_a_connection_says_how_it_ended(
    line: Line, exported: Exported, fault: Fault | None, ended: str, code: int, *, lost: bool
) -> None:
    async with line.dial(close_timeout=0.1, **exported.options()) as ws:
        if fault is not None:
            line.gateway.connections[-1].inject(fault)
        if not isinstance(fault, IgnoreClose | None):
            await ws.send_str("?")
            async for _ in ws:
                pass
    (connect,) = exported.spans()
    (life,) = exported.spans(CONNECTION)
    assert parent_of(life) == context_of(connect).span_id
    assert life.start_time == connect.end_time
    attributes = attributes_of(life)
    assert attributes["agent_conn.ended"] == ended
    assert attributes["agent_conn.close_code"] == code
    assert attributes.get("error.type") == ("ConnectionLost" if lost else None)
    assert (life.status.status_code is StatusCode.ERROR) is lost
    assert attributes["agent_conn.session.id"] == attributes_of(connect)["agent_conn.session.id"]


async def test_no_span_is_made_the_current_one(line: Line, exported: Exported) -> None:
    seen: list[trace.Span] = []

    async def look(_: object) -> None:
        seen.append(trace.get_current_span())

    async with line.dial(on_open=look, **exported.options()):
        seen.append(trace.get_current_span())
    assert seen == [trace.INVALID_SPAN, trace.INVALID_SPAN]


async def test_without_an_sdk_nothing_is_sent_and_the_connection_opens(line: Line) -> None:
    telemetry = Telemetry(tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
    async with line.dial(observer=telemetry, trace_headers=telemetry.headers) as ws:
        await ws.send_str("?")
        assert await ws.receive_str() == "?"
    assert "traceparent" not in line.gateway.handshakes[-1].headers


async def test_what_is_not_sampled_is_measured_and_tells_the_gateway_so(line: Line) -> None:
    with exporting(ALWAYS_OFF) as exported:
        async with line.dial(**exported.options()):
            pass
        assert exported.all_spans() == ()
        assert exported.values("agent_conn.connect.duration", "agent_conn.outcome") == {"opened": 1}
    flags = line.gateway.handshakes[-1].headers["traceparent"].rpartition("-")[2]
    assert int(flags, 16) & trace.TraceFlags.SAMPLED == 0


class Broken(SpanProcessor):
    def on_start(self, span: Span, parent_context: object = None) -> None:
        raise LookupError("canary")


async def test_an_sdk_that_fails_costs_no_call(
    line: Line, exported: Exported, caplog: pytest.LogCaptureFixture
) -> None:
    exported.tracer_provider.add_span_processor(Broken())
    with caplog.at_level(logging.WARNING, logger="agent_conn"):
        async with line.dial(**exported.options()) as ws:
            await ws.send_str("?")
            assert await ws.receive_str() == "?"
    assert set(events(caplog)) == {"observer_failed"}
    assert "canary" not in caplog.text


async def test_headers_are_given_for_connections_that_are_observed_alone(
    line: Line, exported: Exported
) -> None:
    async with line.dial(trace_headers=exported.telemetry.headers):
        pass
    assert "traceparent" not in line.gateway.handshakes[-1].headers


async def test_a_closed_connection_is_forgotten(line: Line, exported: Exported) -> None:
    connection = line.dial(**exported.options())
    async with connection:
        assert exported.telemetry.headers(connection.record)["traceparent"]
    assert exported.telemetry.headers(connection.record) == {}
