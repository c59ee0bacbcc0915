"""Which trace a connection belongs to, here and at the gateway."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import aiohttp
from helpers.exported import Exported, attributes_of, context_of, parent_of
from helpers.staying_bench import converse, listen
from helpers.support import Line
from opentelemetry import baggage, context

from agent_conn import AgentIdentity, ConnectionPool, InferenceConnection, Standby, reconnect
from agent_conn.gateway import Connection, DropAfter, Gateway, Handshake, Reject

CONNECTION = "agent_conn.connection"


def sent(handshake: Handshake) -> tuple[int, int]:
    """The trace's and the parent's id that a handshake named."""
    _, trace_id, parent_id, _ = handshake.headers["traceparent"].split("-")
    return int(trace_id, 16), int(parent_id, 16)


def at_gateway(gateway: Gateway, connection: InferenceConnection) -> Connection:
    """The gateway's end of ``connection``."""
    session_id = connection.record.session_id
    return next(one for one in gateway.connections if one.handshake.session_id == session_id)


def identity_of(job: str) -> AgentIdentity:
    return AgentIdentity(job_id=f"AJ_{job}", room_id=f"RM_{job}", agent_id=f"PA_{job}")


async def test_the_gateway_is_told_the_connect_span_as_its_parent(
    line: Line, exported: Exported
) -> None:
    async with line.dial(**exported.options()):
        pass
    (span,) = exported.spans()
    ids = context_of(span)
    assert sent(line.gateway.handshakes[-1]) == (ids.trace_id, ids.span_id)


async def test_trace_context_goes_out_only_when_asked_for(line: Line, exported: Exported) -> None:
    async with line.dial(observer=exported.telemetry):
        pass
    assert "traceparent" not in line.gateway.handshakes[-1].headers
    assert len(exported.spans()) == 1


async def test_the_callers_baggage_goes_along(line: Line, exported: Exported) -> None:
    attached = context.attach(baggage.set_baggage("tenant", "blue"))
    try:
        async with line.dial(**exported.options()):
            pass
    finally:
        context.detach(attached)
    assert line.gateway.handshakes[-1].headers["baggage"] == "tenant=blue"


async def test_a_dropped_connection_and_its_redials_are_in_one_trace(
    line: Line, exported: Exported
) -> None:
    dial = partial(line.dial, **exported.options())
    with exported.tracer.start_as_current_span("call") as call:
        async with reconnect(dial) as loop:
            async for connection in loop:
                await converse(connection)
                if connection.record.redial:
                    break
                line.gateway.connections[-1].inject(DropAfter())
                line.gateway.inject(Reject(503, {"Retry-After": "0"}))
                await connection.ws.send_str("dropped")
                await listen(connection)
    trace_id = call.get_span_context().trace_id
    first, refused, last = exported.spans()
    lost, closed = exported.spans(CONNECTION)
    assert {context_of(span).trace_id for span in exported.all_spans()} == {trace_id}
    assert [parent_of(span) for span in (first, refused, last)] == [
        call.get_span_context().span_id
    ] * 3
    assert [attributes_of(span).get("agent_conn.redial") for span in (first, refused, last)] == [
        None,
        1,
        2,
    ]
    assert attributes_of(refused)["http.response.status_code"] == 503
    assert parent_of(lost) == context_of(first).span_id
    assert attributes_of(lost)["error.type"] == "ConnectionLost"
    assert parent_of(closed) == context_of(last).span_id
    assert [sent(handshake) for handshake in line.gateway.handshakes[:3]] == [
        (trace_id, context_of(span).span_id) for span in (first, refused, last)
    ]
    assert exported.values("agent_conn.redials", "agent_conn.outcome") == {"failed": 1, "opened": 1}


async def test_a_spare_is_in_the_trace_of_its_call_and_says_that_it_is_one(
    line: Line, session: aiohttp.ClientSession, exported: Exported
) -> None:
    # The line's own session has a connector for one connection.
    url = line.gateway.url("/v1/echo")
    dial = partial(InferenceConnection, session, url, **exported.options())
    with exported.tracer.start_as_current_span("call") as call:
        async with reconnect(dial, standby=Standby.WEBSOCKET, random=lambda: 0.0) as loop:
            async for connection in loop:
                if connection.record.spare:
                    break
                await line.gateway.wait_until(lambda: len(line.gateway.connections) == 2)
                line.gateway.connections[0].inject(DropAfter())
                await listen(connection)
    first, spare = exported.spans()
    assert context_of(spare).trace_id == call.get_span_context().trace_id
    assert parent_of(spare) == parent_of(first) == call.get_span_context().span_id
    told = [attributes_of(span).get("agent_conn.spare") for span in (first, spare)]
    assert told == [None, True]


async def test_two_jobs_are_told_apart_by_their_traces(
    gateway: Gateway, session: aiohttp.ClientSession, exported: Exported
) -> None:
    both_open = asyncio.Barrier(2)

    async def job(name: str) -> int:
        dial = partial(
            InferenceConnection,
            session,
            gateway.url("/v1/echo"),
            identity=identity_of(name),
            **exported.options(),
        )
        with exported.tracer.start_as_current_span("job") as span:
            async with reconnect(dial) as loop:
                async for connection in loop:
                    await both_open.wait()
                    if connection.record.redial:
                        break
                    await converse(connection)
                    at_gateway(gateway, connection).inject(DropAfter())
                    await connection.ws.send_str("dropped")
                    await listen(connection)
            return span.get_span_context().trace_id

    traces = await asyncio.gather(job("1"), job("2"))
    assert traces[0] != traces[1]
    for name, trace_id in zip("12", traces, strict=True):
        of_job = [span for span in exported.all_spans() if context_of(span).trace_id == trace_id]
        assert Counter(span.name for span in of_job) == {
            "agent_conn.connect": 2,
            CONNECTION: 2,
            "job": 1,
        }
        ids = {attributes_of(span).get("agent_conn.job.id") for span in of_job}
        assert ids == {None, f"AJ_{name}"}
        told = {sent(each)[0] for each in gateway.handshakes if each.identity == identity_of(name)}
        assert told == {trace_id}
    await gateway.wait_idle()


async def test_of_many_at_once_each_has_its_own_parent(
    gateway: Gateway, session: aiohttp.ClientSession, exported: Exported
) -> None:
    all_open = asyncio.Barrier(50)

    async def turn() -> tuple[int, str]:
        connection = InferenceConnection(session, gateway.url("/v1/echo"), **exported.options())
        with exported.tracer.start_as_current_span("turn") as span:
            async with connection:
                await all_open.wait()
        return span.get_span_context().span_id, connection.record.session_id

    turns = await asyncio.gather(*(turn() for _ in range(50)))
    connects = {
        (parent_of(span), attributes_of(span)["agent_conn.session.id"]) for span in exported.spans()
    }
    assert connects == set(turns)
    parents = {each.session_id: sent(each)[1] for each in gateway.handshakes}
    assert parents == {
        attributes_of(span)["agent_conn.session.id"]: context_of(span).span_id
        for span in exported.spans()
    }
    assert len(exported.spans(CONNECTION)) == 50
    await gateway.wait_idle()


async def test_a_pools_dial_is_in_the_trace_of_whom_it_serves(
    gateway: Gateway, session: aiohttp.ClientSession, exported: Exported
) -> None:
    dial = partial(InferenceConnection, session, gateway.url("/v1/echo"), **exported.options())
    async with ConnectionPool(dial) as pool:
        with exported.tracer.start_as_current_span("turn") as turn:
            async with pool.acquire() as connection:
                await converse(connection)
    (span,) = exported.spans()
    assert parent_of(span) == turn.get_span_context().span_id
    await gateway.wait_idle()
