"""Every error that this package raises on purpose.

::

    AgentConnError
    ├── ConfigurationError (ValueError)   an argument is wrong; raised before any I/O
    ├── StateError (RuntimeError)         a single-use connection was used out of order
    ├── ConnectError                      the connection did not open
    │   ├── ConnectTimeout (TimeoutError) open_timeout ran out
    │   ├── DialFailed                    DNS, TCP, TLS or the proxy failed, or the peer hung up
    │   ├── HandshakeRejected             the gateway answered with an HTTP error status
    │   ├── HandshakeInvalid              the answer is not a websocket handshake, or redirects
    │   ├── TokenUnavailable              a callable for token, headers or url failed
    │   ├── OpenHookFailed                on_open raised; its exception is the cause
    │   └── AttributionUnavailable        the attribution is below what was required
    ├── ConnectionLost                    an open connection ended without being closed
    ├── RetriesExhausted                  the budget of redials is spent
    └── PoolTimeout (TimeoutError)        a pool could not lend a connection in time

No message, argument or attribute holds a header value, a token, a cookie or a URL's query.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Phase(StrEnum):
    """The part of opening a connection that was under way."""

    TOKEN = "token"  # noqa: S105  (a phase, no secret)
    IDENTITY = "identity"
    DIAL = "dial"
    HANDSHAKE = "handshake"
    ON_OPEN = "on_open"


@dataclass(frozen=True, slots=True)
class Quota:
    """What a gateway said of an exhausted quota in its 429 answer.

    The texts are the fields of the answer's JSON body, None where absent. ``limits`` holds
    the ``X-LiveKit-Inference-*`` headers, such as ``{"RPM-Limit": "60", "RPM-Used": "61"}``.
    """

    hint: str | None = None
    quota_type: str | None = None
    category: str | None = None
    remaining_limit: str | None = None
    documentation_url: str | None = None
    limits: dict[str, str] = field(default_factory=dict)


class AgentConnError(Exception):
    """Base of every error in this package."""


class ConfigurationError(AgentConnError, ValueError):
    """An argument is wrong. The message names the argument; nothing was sent."""


class StateError(AgentConnError, RuntimeError):
    """An operation does not fit the connection's state, such as opening it twice."""


class ConnectError(AgentConnError):
    """The connection did not open.

    Attributes:
        phase: what was under way.
        retryable: whether the same dial may succeed later.
        retry_after: seconds that the peer asked to wait, or None.
        attempt: which attempt this was, counted from 1.
        endpoint: which of its ``Endpoints`` failed, without the query; None where there are none.
    """

    endpoint: str | None = None
    phase: Phase = Phase.DIAL
    retryable: bool = False

    def __init__(
        self,
        message: str = "",
        *,
        phase: Phase | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
        attempt: int = 1,
    ) -> None:
        super().__init__(message)
        if phase is not None:
            self.phase = phase
        if retryable is not None:
            self.retryable = retryable
        self.retry_after = retry_after
        self.attempt = attempt

    def __str__(self) -> str:
        return _with_endpoint(super().__str__(), self.endpoint)


class ConnectTimeout(ConnectError, TimeoutError):
    """``open_timeout`` ran out; ``phase`` tells in what."""

    retryable = True


class DialFailed(ConnectError):
    """DNS, TCP, TLS or a proxy failed, or the peer hung up before it answered.

    Attributes:
        errno: the system's number where TCP failed, such as ``errno.ECONNREFUSED``, or None.
        certificate_refused: whether TLS failed for the peer's certificate.
    """

    retryable = True
    errno: int | None = None
    certificate_refused: bool = False


class HandshakeRejected(ConnectError):
    """The gateway answered the handshake with an HTTP error.

    Attributes:
        status: the HTTP status.
        body: the first 2 KiB of the answer's body, decoded; empty where it repeats a secret
            that was sent, which the message then says.
        headers: the answer's headers, without cookies and without what repeats a secret.
        quota: what the answer says of a quota, or None.
        date: the peer's clock by the answer's ``Date``, with its time zone, or None.
    """

    phase = Phase.HANDSHAKE

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        body: str = "",
        headers: Mapping[str, str] | None = None,
        quota: Quota | None = None,
        date: datetime | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, retryable=retryable, retry_after=retry_after)
        self.status = status
        self.body = body
        self.headers: dict[str, str] = dict(headers or {})
        self.quota = quota
        self.date = date


class HandshakeInvalid(ConnectError):
    """The answer is not the handshake that was asked for, such as a redirect."""

    phase = Phase.HANDSHAKE


class TokenUnavailable(ConnectError):
    """A callable for ``token``, ``headers`` or ``url`` raised, or gave what cannot be used.

    The callable's exception is left out, since its text may hold the secret.
    """

    phase = Phase.TOKEN


class OpenHookFailed(ConnectError):
    """``on_open`` raised; its exception is the ``__cause__``.

    Attributes:
        loss: how the connection ended under it, or None where it did not.
    """

    phase = Phase.ON_OPEN
    loss: ConnectionLost | None = None

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.loss is None else f"{message}: {self.loss}"


class AttributionUnavailable(ConnectError):
    """The identity known at open time is below the level that ``require`` names."""

    phase = Phase.IDENTITY


class ConnectionLost(AgentConnError):
    """An open connection ended without a normal close.

    Attributes:
        code: the close code (RFC 6455, section 7.4): 1005 for an empty Close frame, 1006 for none.
        reason: the text of the peer's Close frame, or what was seen of the end without one.
        endpoint: which of its ``Endpoints`` it led to, without the query; None where there are
            none.
    """

    endpoint: str | None = None

    def __init__(self, message: str = "", *, code: int = 1006, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return _with_endpoint(super().__str__(), self.endpoint)


class RetriesExhausted(AgentConnError):
    """The budget of redials is spent.

    Attributes:
        attempts: each failure and loss since the budget was last whole, oldest first; the last
            hundred of them.
        last: the last of them, or None where there is none.
    """

    def __init__(self, message: str = "", *, attempts: Iterable[AgentConnError] = ()) -> None:
        super().__init__(message)
        self.attempts: tuple[AgentConnError, ...] = tuple(attempts)
        self.last: AgentConnError | None = self.attempts[-1] if self.attempts else None


class PoolTimeout(AgentConnError, TimeoutError):
    """``ConnectionPool.acquire`` got no connection within its ``timeout``."""


def _with_endpoint(message: str, endpoint: str | None) -> str:
    return message if endpoint is None else f"{message} (at {endpoint})"
