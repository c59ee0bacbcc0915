"""What one connection did, and who is told while it does it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from yarl import URL

from agent_conn._identity import AgentIdentity, AttributionLevel
from agent_conn._lifecycle import ConnectionState, Ending
from agent_conn._options import check_headers
from agent_conn._room import WaitOutcome
from agent_conn.errors import AgentConnError, Phase

logger: logging.Logger = logging.getLogger("agent_conn")


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
    """Connections begun: 1, or 2 where a pre-dial failed or died and was replaced."""
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


class RecordBuilder:
    """What is known of one connection up to now. Times are of the loop's clock, in seconds."""

    redial: int = 0
    spare: bool = False
    identity: AgentIdentity | None = None
    wait_outcome: WaitOutcome | None = None
    pre_dialed: bool = False
    dials: int = 0
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
        logger.warning("observer_failed", extra={"error": type(error).__name__})


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
        logger.warning("trace_headers_left_out", extra={"error": type(error).__name__})
        return {}


def new_session_id() -> str:
    """A fresh id for the session header: 32 hexadecimal digits. It is a name, no secret."""
    return f"{random.getrandbits(128):032x}"


def seconds_between(start: float | None, end: float | None) -> float | None:
    """The length of a phase, or None where it has not begun or not ended."""
    return None if start is None or end is None else end - start
