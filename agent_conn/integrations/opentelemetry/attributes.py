"""What spans and metrics say, under the names of OpenTelemetry's semantic conventions.

``agent_conn.*`` names what they have no name for. Only spans carry ids: a metric has one
series for each set of values, so that its values have to be few.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum

from opentelemetry.trace import Span
from yarl import URL

from agent_conn._lifecycle import ConnectionState
from agent_conn._record import ConnectionRecord, StateChanged
from agent_conn.errors import AgentConnError, ConnectError, HandshakeRejected, StateError

Attributes = dict[str, str | int | float | bool]

OTHER = "_OTHER"
"""The conventions' value for one of too many."""

ERROR_TYPE = "error.type"
STATUS_CODE = "http.response.status_code"
LEVEL = "agent_conn.attribution.level"
OUTCOME = "agent_conn.outcome"
PHASE = "agent_conn.phase"
PHASE_SECONDS = "agent_conn.phase.duration"
ENDED = "agent_conn.ended"
CLOSE_CODE = "agent_conn.close_code"
ENDPOINT = "agent_conn.endpoint"
REASON = "agent_conn.reason"
POOL = "agent_conn.pool.name"
CONVERSATION = "gen_ai.conversation.id"


class Few:
    """Lets a limited number of different values through; any further one is ``_OTHER``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """``value``, or what stands for it."""
        if value not in self._seen:
            if len(self._seen) >= self._limit:
                return OTHER
            self._seen.add(value)
        return value


def label(member: Enum) -> str:
    """An enum's member as an attribute's value, such as ``timed_out``."""
    return member.name.lower()


def of_url(url: URL) -> Attributes:
    """Where a connection leads, for a span."""
    attributes: Attributes = {
        "network.protocol.name": "websocket",
        "server.address": url.host or "",
        "url.scheme": url.scheme,
        "url.path": url.path,
    }
    if url.port is not None:
        attributes["server.port"] = url.port
    return attributes


def of_conversation(parent: Span) -> Attributes:
    """The conversation that ``parent`` names, as LiveKit's ``agent_session`` span does."""
    # OpenTelemetry's API does not show a span's attributes. Its SDK does.
    known = getattr(parent, "attributes", None)
    conversation = known.get(CONVERSATION) if isinstance(known, Mapping) else None
    return {CONVERSATION: conversation} if isinstance(conversation, str) else {}


def of_caller(record: ConnectionRecord) -> Attributes:
    """Who called, for a span; why an id was left out, where it was."""
    attributes: Attributes = {
        "agent_conn.session.id": record.session_id,
        LEVEL: label(record.attribution),
    }
    identity = record.identity
    if identity is not None:
        ids = {"job": identity.job_id, "room": identity.room_id, "agent": identity.agent_id}
        for name, value in ids.items():
            if value is not None:
                attributes[f"agent_conn.{name}.id"] = value
            elif f"{name}_id" in identity.omitted:
                attributes[f"agent_conn.{name}.omitted"] = identity.omitted[f"{name}_id"]
    return attributes


def of_opening(record: ConnectionRecord) -> Attributes:
    """How a connection was opened, for a span."""
    attributes: Attributes = {
        "agent_conn.pre_dialed": record.pre_dialed,
        "agent_conn.dials": record.dials,
    }
    if record.wait_outcome is not None:
        attributes["agent_conn.wait.outcome"] = label(record.wait_outcome)
    if record.redial:
        attributes["agent_conn.redial"] = record.redial
    if record.spare:
        attributes["agent_conn.spare"] = True
    return attributes


def of_outcome(change: StateChanged) -> Attributes:
    """What came of an opening, for a span and a metric: opened, failed or cancelled."""
    error = change.error
    if change.state is ConnectionState.OPEN:
        return {OUTCOME: "opened"}
    if error is None or isinstance(error, StateError):
        return {OUTCOME: "cancelled"}
    return {OUTCOME: "failed", **_of_error(error)}


def _of_error(error: AgentConnError) -> Attributes:
    """The kind of a failure. Its message stays out: the peer may have had a part in it."""
    attributes: Attributes = {ERROR_TYPE: type(error).__name__}
    if isinstance(error, ConnectError):
        attributes[PHASE] = str(error.phase)
    if isinstance(error, HandshakeRejected):
        attributes[STATUS_CODE] = error.status
    return attributes


def phases(record: ConnectionRecord) -> Iterator[tuple[str, float, float]]:
    """The phases that came to an end: name, end and length in seconds from the start."""
    if record.pre_dial is not None:
        yield "pre_dial", record.pre_dial, record.pre_dial
    end = 0.0
    for name, seconds in (
        ("wait", record.waited),
        ("token", record.minted),
        ("dial", record.dialed),
        ("handshake", record.upgraded),
        ("on_open", record.opened),
    ):
        if seconds is None:
            return
        end += seconds
        yield name, end, seconds
