"""The record of one websocket handshake, as the gateway saw it, without credentials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from multidict import CIMultiDict, CIMultiDictProxy

from agent_conn._identity import AgentIdentity, AttributionLevel, HeaderNames

REDACTED = "<redacted>"
REQUEST_ID = "X-LiveKit-Request-Id"
SECRET_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "api-key",
        "x-api-key",
        "x-livekit-worker-token",
    }
)


@dataclass(slots=True)
class Handshake:
    """One HTTP request that reached the gateway, filled in as it proceeds.

    Times are seconds of the event loop's clock (`loop.time()`), None where not reached.
    """

    path: str
    """The path without its query."""
    model: str | None
    """The `model` of the query."""
    headers: CIMultiDictProxy[str]
    """The request's headers, by name in any case; a credential's value is `<redacted>`."""
    identity: AgentIdentity
    session_id: str | None
    request_id: str
    """Names the request in every answer, as `X-LiveKit-Request-Id`."""
    socket_number: int
    """Which accepted TCP connection it came on, counted from 1."""
    accepted_at: float
    """When TCP was accepted."""
    secured_at: float | None
    """When TLS was established; without TLS, when HTTP could begin."""
    request_at: float
    """When the request's head had been read."""
    subprotocols: tuple[str, ...] = ()
    """The subprotocols that were asked for."""
    status: int | None = field(default=None)
    """The HTTP status that was answered; None while or where none was."""
    answered_at: float | None = field(default=None)
    """When the answer was sent."""

    @property
    def level(self) -> AttributionLevel:
        """How closely the caller is attributed."""
        return self.identity.level

    @property
    def subprotocol(self) -> str | None:
        """The first subprotocol that was asked for."""
        return self.subprotocols[0] if self.subprotocols else None

    def answer(self, status: int | None, now: float) -> None:
        """Note the answer's status and time; later calls change nothing."""
        if self.answered_at is None:
            self.status = status
            self.answered_at = now


def redact_headers(headers: Mapping[str, str]) -> CIMultiDictProxy[str]:
    """Return a read-only copy in which the values of credentials are replaced."""
    return CIMultiDictProxy(
        CIMultiDict(
            # aiohttp 3.14.0 hands on the space after a value, which is no part of it.
            (name, REDACTED if name.lower() in SECRET_HEADERS else value.rstrip(" \t"))
            for name, value in headers.items()
        )
    )


def read_identity(headers: Mapping[str, str], names: HeaderNames) -> AgentIdentity:
    """Return the ids that the request's headers carry; `headers` must ignore case."""
    return AgentIdentity(
        job_id=headers.get(names.job_id),
        room_id=headers.get(names.room_id),
        agent_id=headers.get(names.agent_id),
    )
