"""Follows one connection from the call to open it to its close."""

from __future__ import annotations

import time

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from agent_conn._lifecycle import ConnectionState, Ending
from agent_conn._record import ConnectionRecord, StateChanged
from agent_conn.errors import ConnectionLost
from agent_conn.integrations.opentelemetry.attributes import (
    CLOSE_CODE,
    ENDED,
    ENDPOINT,
    ERROR_TYPE,
    PHASE_SECONDS,
    STATUS_CODE,
    Attributes,
    label,
    of_caller,
    of_conversation,
    of_opening,
    of_outcome,
    of_url,
    phases,
)
from agent_conn.integrations.opentelemetry.instruments import Instruments

_State = ConnectionState
_NANOSECONDS = 1_000_000_000


class Follower:
    """The two spans of one connection, and what metrics hear of it.

    ``agent_conn.connect`` is a child of the span that is current where the connection is
    opened, ``agent_conn.connection`` a child of that. Neither is ever made the current one.
    Both carry the ``gen_ai.conversation.id`` of the span that was current.
    """

    def __init__(self, tracer: Tracer, instruments: Instruments, first: StateChanged) -> None:
        self._tracer = tracer
        self._instruments = instruments
        self._where = {**of_url(first.url), **of_conversation(trace.get_current_span())}
        self._place = instruments.place(first.url)
        self._started_at = first.at
        # One look at the wall clock; every later time follows from the loop's.
        self._started_ns = time.time_ns()
        self._opened_at = first.at
        self._connect: Span = tracer.start_span(
            "agent_conn.connect",
            kind=SpanKind.CLIENT,
            attributes=self._where,
            start_time=self._started_ns,
        )
        self._life: Span | None = None

    def context(self) -> Context:
        """The current context with the connect span in it, for a propagator."""
        return trace.set_span_in_context(self._connect)

    def follow(self, change: StateChanged) -> None:
        """Take note of a change of state."""
        if change.state is _State.OPEN:
            self._end_connect(change)
            self._begin_life(change)
        elif change.previous is _State.OPEN:
            self._instruments.left_open(self._place, change.record)
        elif change.state is _State.CLOSING:
            self._end_connect(change)
        elif change.state is _State.CLOSED and self._life is not None:
            self._end_life(self._life, change)

    def _end_connect(self, change: StateChanged) -> None:
        record, span = change.record, self._connect
        outcome = of_outcome(change)
        if record.endpoint is not None:
            # Which one it would be was not known when the span began.
            self._where = {**of_url(change.url), ENDPOINT: record.endpoint}
            self._place = self._instruments.place(change.url)
            span.set_attributes(self._where)
        if span.is_recording():
            span.set_attributes({**of_caller(record), **of_opening(record), **outcome})
            if change.previous is _State.OPENING:
                span.set_attribute(STATUS_CODE, 101)
            for name, end, seconds in phases(record):
                at = self._wall_clock(self._started_at + end)
                span.add_event(f"agent_conn.{name}", {PHASE_SECONDS: seconds}, timestamp=at)
            if ERROR_TYPE in outcome:
                span.set_status(StatusCode.ERROR)
        span.end(self._wall_clock(change.at))
        self._instruments.connected(self._place, record, outcome, change.at - self._started_at)

    def _begin_life(self, change: StateChanged) -> None:
        self._opened_at = change.at
        self._life = self._tracer.start_span(
            "agent_conn.connection",
            context=self.context(),
            attributes={**self._where, **of_caller(change.record)},
            start_time=self._wall_clock(change.at),
        )
        self._instruments.opened(self._place, change.record)

    def _end_life(self, span: Span, change: StateChanged) -> None:
        record = change.record
        ending = _of_ending(record)
        if span.is_recording():
            span.set_attributes(ending)
            if record.close_code is not None:
                span.set_attribute(CLOSE_CODE, record.close_code)
            if ERROR_TYPE in ending:
                span.set_status(StatusCode.ERROR)
        span.end(self._wall_clock(change.at))
        self._instruments.closed(self._place, record, ending, change.at - self._opened_at)

    def _wall_clock(self, at: float) -> int:
        return self._started_ns + int((at - self._started_at) * _NANOSECONDS)


def _of_ending(record: ConnectionRecord) -> Attributes:
    """How an open connection ended, for a span and a metric; a loss is an error."""
    ended, code = record.ended, record.close_code
    attributes: Attributes = {} if ended is None else {ENDED: label(ended)}
    if ended is Ending.LOST or (ended is Ending.CLOSED_BY_PEER and code != 1000):
        attributes[ERROR_TYPE] = ConnectionLost.__name__
    return attributes
