"""What one connection did, for its owner, its observer and the log."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape

from yarl import URL

from agent_conn._identity import NOT_GIVEN, AgentIdentity, AttributionLevel
from agent_conn._lifecycle import ConnectionState, Ending
from agent_conn._log import is_logged, log
from agent_conn._options import check_headers
from agent_conn._room import WaitOutcome
from agent_conn.errors import AgentConnError, ConnectionLost, Phase

_PHASES = ("waited", "minted", "dialed", "upgraded", "opened")


@dataclass(frozen=True, slots=True)
class ConnectionRecord:
    """How a connection was opened, and how it ended. None stands for what is not yet known.

    Times are in seconds. ``waited``, ``minted``, ``dialed``, ``upgraded`` and ``opened`` follow
    one another and add up to the whole; ``pre_dial`` runs beside ``waited``.
    """

    session_id: str
    """The fresh id that went out in the session header."""
    attribution: AttributionLevel = AttributionLevel.NONE
    """The level that the sent ids give."""
    identity: AgentIdentity | None = None
    """The ids that were sent; its ``omitted`` tells why the others were not."""
    wait_outcome: WaitOutcome | None = None
    pre_dialed: bool = False
    """Whether the request went out on the connection that was dialled during the wait."""
    redial: int = 0
    """How many attempts of its ``reconnect`` loop went before; 0 outside of one."""
    spare: bool = False
    """Whether it was dialled as the spare of its loop; where it is open and in use, it served."""
    dials: int = 0
    """Connections begun: 1, or 2 where a pre-dial failed or died and was replaced; those to
    further endpoints count too."""
    endpoint: str | None = None
    """Which of its ``Endpoints`` it leads to, without the query; None where there are none."""
    pre_dial: float | None = None
    """TCP and TLS of the pre-dial; it may end after the wait, then ``dialed`` has the rest."""
    waited: float | None = None
    """Waiting for the room."""
    minted: float | None = None
    """Getting the token."""
    dialed: float | None = None
    """From then until TCP and TLS were up; next to nothing where a pre-dial was ready."""
    upgraded: float | None = None
    """From the request to the gateway's answer."""
    opened: float | None = None
    """In ``on_open``."""
    response_headers: dict[str, str] = field(default_factory=dict)
    """The headers of the gateway's answer, without cookies and without values that repeat what
    was sent as a secret."""
    close_code: int | None = None
    """The close code (RFC 6455, section 7.4): 1005 for an empty Close frame, 1006 for none."""
    close_reason: str = ""
    """The text of the peer's Close frame, empty where it repeats what was sent as a secret."""
    ended: Ending | None = None
    """How the open connection ended; None where it never opened or is still open."""

    def __str__(self) -> str:
        """What it tells, a line for each thing, for a person."""
        return "\n".join(f"{name:<12} {text}" for name, text in self._rows())

    def _repr_html_(self) -> str:
        """The same as a table, which notebooks draw."""
        rows = (
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(text)}</td></tr>"
            for name, text in self._rows()
        )
        return f"<table>{''.join(rows)}</table>"

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "attribution", self.attribution.name
        if self.identity is not None:
            for name in ("agent_id", "room_id", "job_id"):
                left_out = f"left out: {self.identity.omitted.get(name)}"
                yield name, getattr(self.identity, name) or left_out
        yield "session_id", self.session_id
        if self.wait_outcome is not None:
            yield "room", f"{self.wait_outcome}"
        beside = ", dialled during the wait" if self.pre_dialed else ""
        if self.endpoint is not None:
            yield "endpoint", self.endpoint
        yield "dials", f"{self.dials}{beside}, redial {self.redial}"
        phases = {name: getattr(self, name) for name in _PHASES}
        took = {name: seconds for name, seconds in phases.items() if seconds is not None}
        if took:
            each = ", ".join(f"{name} {_milliseconds(took[name])}" for name in took)
            yield "phases", f"{each}: {_milliseconds(sum(took.values()))} in all"
        if self.ended is not None:
            reason = f": {self.close_reason}" if self.close_reason else ""
            yield "ended", f"{self.ended}, close code {self.close_code}{reason}"


class RecordBuilder:
    """What is known of one connection up to now. Times are of the loop's clock, in seconds."""

    redial: int = 0
    spare: bool = False
    identity: AgentIdentity | None = None
    wait_outcome: WaitOutcome | None = None
    pre_dialed: bool = False
    dials: int = 0
    endpoint: URL | None = None
    started_at: float | None = None
    pre_dial_started_at: float | None = None
    pre_dial_ended_at: float | None = None
    waited_at: float | None = None
    minted_at: float | None = None
    connected_at: float | None = None
    answered_at: float | None = None
    opened_at: float | None = None
    close_code: int | None = None
    close_reason: str = ""
    ended: Ending | None = None

    def __init__(self) -> None:
        self.session_id: str = new_session_id()
        self.read_response_headers: Callable[[], dict[str, str]] = dict

    @property
    def attribution(self) -> AttributionLevel:
        """The level that the sent ids give; NONE before they are read."""
        return AttributionLevel.NONE if self.identity is None else self.identity.level

    @property
    def phase(self) -> Phase:
        """What is under way until it is open."""
        if self.minted_at is None:
            return Phase.TOKEN
        if self.connected_at is None:
            return Phase.DIAL
        return Phase.HANDSHAKE if self.answered_at is None else Phase.ON_OPEN

    def take(self, dial: RecordBuilder) -> None:
        """Tell of ``dial``, one of several of this connection, what it alone has come to."""
        self.pre_dialed = dial.pre_dialed
        self.pre_dial_started_at = dial.pre_dial_started_at
        self.pre_dial_ended_at = dial.pre_dial_ended_at
        self.connected_at = dial.connected_at
        self.answered_at = dial.answered_at
        self.read_response_headers = dial.read_response_headers

    def build(self) -> ConnectionRecord:
        """The record as of now."""
        return ConnectionRecord(
            session_id=self.session_id,
            attribution=self.attribution,
            identity=self.identity,
            wait_outcome=self.wait_outcome,
            pre_dialed=self.pre_dialed,
            redial=self.redial,
            spare=self.spare,
            dials=self.dials,
            endpoint=None if self.endpoint is None else str(self.endpoint),
            pre_dial=seconds_between(self.pre_dial_started_at, self.pre_dial_ended_at),
            waited=seconds_between(self.started_at, self.waited_at),
            minted=seconds_between(self.waited_at, self.minted_at),
            dialed=seconds_between(self.minted_at, self.connected_at),
            upgraded=seconds_between(self.connected_at, self.answered_at),
            opened=seconds_between(self.answered_at, self.opened_at),
            response_headers=self.read_response_headers(),
            close_code=self.close_code,
            close_reason=self.close_reason,
            ended=self.ended,
        )


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A connection went from one state to another.

    ``url`` is where it leads, without the query. ``at`` is of the event loop's clock, in
    seconds. ``error`` is why it failed to open.
    """

    previous: ConnectionState
    state: ConnectionState
    url: URL
    at: float
    record: ConnectionRecord
    error: AgentConnError | None = None


ConnectionObserver = Callable[[StateChanged], None]
"""Called on every change of state. What it raises is logged and goes no further."""
TraceHeaders = Callable[[ConnectionRecord], Mapping[str, str]]
"""Gives the headers that tell a gateway which trace a connection belongs to."""


def tell(observer: ConnectionObserver, change: StateChanged) -> None:
    """Tell ``observer``. What it raises is logged and goes no further."""
    try:
        observer(change)
    except Exception as error:
        log(logging.WARNING, "observer_failed", error=type(error).__name__)


def read_trace_headers(
    source: TraceHeaders, record: ConnectionRecord, reserved: Iterable[str]
) -> dict[str, str]:
    """The headers that ``source`` gives. A failure never fails the call.

    It gives none where ``source`` raises, or where one cannot be sent or has a name in
    ``reserved``.
    """
    try:
        return check_headers(source(record), reserved)
    except Exception as error:
        log(logging.WARNING, "trace_headers_left_out", error=type(error).__name__)
        return {}


def log_opened(record: RecordBuilder, url: Callable[[], URL]) -> None:
    """Log that a connection opened, and which ids it could not name its caller by."""
    if is_logged(logging.INFO):
        log(
            logging.INFO,
            "connection_opened",
            session_id=record.session_id,
            attribution=record.attribution.name,
            url=str(url()),
            dials=record.dials,
        )
    omitted = {} if record.identity is None else record.identity.omitted
    waited_in_vain = record.wait_outcome in {WaitOutcome.TIMED_OUT, WaitOutcome.FAILED}
    if waited_in_vain or not {NOT_GIVEN}.issuperset(omitted.values()):
        log(
            logging.WARNING,
            "ids_left_out",
            session_id=record.session_id,
            attribution=record.attribution.name,
            room=str(record.wait_outcome),
            **omitted,
        )


def log_failed(record: RecordBuilder, url: URL, failure: AgentConnError) -> None:
    """Log that a connection did not open."""
    log(
        logging.WARNING,
        "connection_failed",
        session_id=record.session_id,
        url=str(url),
        error=type(failure).__name__,
        reason=str(failure),
    )


def log_lost(record: RecordBuilder, url: URL, loss: ConnectionLost) -> None:
    """Log that an open connection was lost."""
    log(
        logging.WARNING,
        "connection_lost",
        session_id=record.session_id,
        url=str(url),
        code=loss.code,
        reason=str(loss),
    )


def new_session_id() -> str:
    """A fresh id for the session header: 32 hexadecimal digits. It is a name, no secret."""
    return f"{random.getrandbits(128):032x}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def seconds_between(start: float | None, end: float | None) -> float | None:
    """The length of a phase, or None where it has not begun or not ended."""
    return None if start is None or end is None else end - start
