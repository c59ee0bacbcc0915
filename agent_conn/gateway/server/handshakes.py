"""The record of one request, as the gateway saw it, without credentials; and the last of them."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from multidict import CIMultiDict

from agent_conn._identity import AgentIdentity, AttributionLevel, HeaderNames

REQUEST_ID = "X-LiveKit-Request-Id"
MAX_BYTES = 24 * 1024 * 1024
# Measured: a handshake of short headers, and what a header takes beside its texts.
HANDSHAKE_BYTES = 1_500
HEADER_BYTES = 100


@dataclass(slots=True)
class Handshake:
    """One HTTP request that reached the gateway, filled in as it proceeds.

    Times are seconds of the event loop's clock (`loop.time()`), None where not reached.
    """

    number: int
    """Names the request in the log, on the terminal and in the inspector; counted from 1."""
    method: str
    """The HTTP method."""
    path: str
    """The path without its query."""
    model: str | None
    """The `model` of the query."""
    headers: CIMultiDict[str]
    """The request's headers. Names ignore case; a value that is not known to be harmless is
    `<redacted>`."""
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
    """The subprotocols that the client asked for; one that may be a token is `<redacted>`."""
    status: int | None = field(default=None)
    """The HTTP status that was answered; None while or where none was."""
    answered_at: float | None = field(default=None)
    """When the answer was sent."""
    reason: str | None = field(default=None)
    """Why the gateway refused; None where it did not refuse, or where a fault answered."""

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


class RecentHandshakes:
    """The last handshakes: at most `most`, None for any number, and at most `max_bytes`."""

    def __init__(self, most: int | None, max_bytes: int = MAX_BYTES) -> None:
        self._most = math.inf if most is None else most
        self._max_bytes = max_bytes
        self._kept: deque[tuple[Handshake, int]] = deque()
        self._bytes = 0

    def __iter__(self) -> Iterator[Handshake]:
        return (handshake for handshake, _ in self._kept)

    def append(self, handshake: Handshake) -> None:
        """Keep one more, and give up the first ones if there is no room for it."""
        size = size_of(handshake)
        self._kept.append((handshake, size))
        self._bytes += size
        while self._bytes > self._max_bytes or len(self._kept) > self._most:
            self._bytes -= self._kept.popleft()[1]


def size_of(handshake: Handshake) -> int:
    """Return about how many bytes of memory `handshake` takes."""
    texts = [handshake.path, handshake.model or "", handshake.session_id or ""]
    texts += [text for item in handshake.headers.items() for text in item]
    texts += handshake.subprotocols
    return (
        HANDSHAKE_BYTES
        + HEADER_BYTES * len(handshake.headers)
        + sum(sys.getsizeof(text) for text in texts)
    )


def read_identity(headers: Mapping[str, str], names: HeaderNames) -> AgentIdentity:
    """Return the ids that the request's headers carry; `headers` must ignore case."""
    return AgentIdentity(
        job_id=headers.get(names.job_id),
        room_id=headers.get(names.room_id),
        agent_id=headers.get(names.agent_id),
    )
