"""How a gateway can misbehave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Literal, TypeAlias

from agent_conn._checks import check_count
from agent_conn._options import check_seconds
from agent_conn.errors import ConfigurationError
from agent_conn.gateway.faults.checks import (
    check_bytes,
    check_header_value,
    check_headers,
    check_reason,
    check_wire_code,
)


class Stage(Enum):
    """Where in a connection's life a fault is taken up."""

    LISTENER = "listener"
    ACCEPT = "accept"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class StallAtAccept:
    """TCP connect hangs: the backlog is full and SYNs go unanswered.

    It holds for every connect from the injection until it is withdrawn, whatever `times` says.
    On other systems than Linux the connect may fail at once.
    """

    stage: ClassVar[Stage] = Stage.LISTENER


@dataclass(frozen=True, slots=True)
class StallAtTLS:
    """TCP is accepted and then no byte is answered, so that TLS never completes."""

    stage: ClassVar[Stage] = Stage.ACCEPT


@dataclass(frozen=True, slots=True)
class StallInHandshake:
    """The HTTP request is read and never answered."""

    stage: ClassVar[Stage] = Stage.REQUEST


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset (TCP RST) in `phase`.

    accept: as soon as TCP is accepted. tls: after the peer's first bytes. handshake: after
    the HTTP request. open: after the 101.
    """

    phase: Literal["accept", "tls", "handshake", "open"] = "open"

    def __post_init__(self) -> None:
        if self.phase not in ("accept", "tls", "handshake", "open"):
            raise ConfigurationError(
                f"phase must be accept, tls, handshake or open, got {self.phase!a:.40}"
            )

    @property
    def stage(self) -> Stage:
        """The stage that `phase` belongs to."""
        return Stage.ACCEPT if self.phase in ("accept", "tls") else Stage.REQUEST


@dataclass(frozen=True, slots=True)
class DropHandshake:
    """The HTTP request is read and the connection closed (TCP FIN) without an answer."""

    stage: ClassVar[Stage] = Stage.REQUEST


@dataclass(frozen=True, slots=True)
class Garbage:
    """The request is answered with bytes that are not HTTP, and the connection closed."""

    data: bytes = b"\x00\xffthis is no HTTP\r\n\r\n"
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_bytes("data", self.data)


@dataclass(frozen=True, slots=True)
class Reject:
    """The request is answered with an HTTP error."""

    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_count("status", self.status, least=200, most=599)
        check_headers(self.headers)
        check_bytes("body", self.body)


@dataclass(frozen=True, slots=True)
class Redirect:
    """The request is answered with a redirect to `location`."""

    location: str
    status: int = 302
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_count("status", self.status, least=300, most=399)
        check_header_value("location", self.location)


@dataclass(frozen=True, slots=True)
class BadAccept:
    """The handshake is answered by a 101 with a wrong Sec-WebSocket-Accept."""

    stage: ClassVar[Stage] = Stage.REQUEST


@dataclass(frozen=True, slots=True)
class UnaskedExtension:
    """The 101 names a websocket extension that the client did not ask for."""

    extension: str = "x-unasked"
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_header_value("extension", self.extension)


@dataclass(frozen=True, slots=True)
class UnaskedSubprotocol:
    """The 101 names a subprotocol that the client did not ask for."""

    subprotocol: str = "x-unasked"
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_header_value("subprotocol", self.subprotocol)


@dataclass(frozen=True, slots=True)
class NotWebSocket:
    """The handshake is answered by a 200 with a body, as by a plain web server."""

    body: bytes = b"this is no websocket"
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_bytes("body", self.body)


@dataclass(frozen=True, slots=True)
class AcceptAndClose:
    """The 101 is followed at once by a Close frame with `code`."""

    code: int = 1011
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_wire_code(self.code)


@dataclass(frozen=True, slots=True)
class CloseWith:
    """The gateway sends a Close frame after `after_messages` messages of the peer."""

    code: int
    after_messages: int = 0
    reason: str = ""
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_wire_code(self.code)
        check_count("after_messages", self.after_messages, least=0)
        check_reason(self.reason)


@dataclass(frozen=True, slots=True)
class GoSilent:
    """After `after_messages` messages the gateway answers nothing, and the socket stays open.

    It answers no ping and no Close either. It reads what comes in and throws it away.
    """

    after_messages: int = 0
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_count("after_messages", self.after_messages, least=0)


@dataclass(frozen=True, slots=True)
class StopReading:
    """After `after_messages` messages the gateway stops reading, so that the sender blocks."""

    after_messages: int = 0
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_count("after_messages", self.after_messages, least=0)


@dataclass(frozen=True, slots=True)
class IgnoreClose:
    """The gateway ignores a Close, and sends a message every `interval` seconds for ever."""

    interval: float = 0.02
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_seconds("interval", self.interval)


@dataclass(frozen=True, slots=True)
class DropAfter:
    """TCP ends without a Close frame after `messages` messages of the peer.

    It ends by a FIN, or with `reset` by a RST.
    """

    messages: int = 0
    reset: bool = False
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_count("messages", self.messages, least=0)


@dataclass(frozen=True, slots=True)
class IdleTimeout:
    """The gateway sends a Close frame when the peer sends no message in the given `seconds`.

    The clock starts when the connection opens, or when the fault is injected into it.
    """

    seconds: float = 10.0
    code: int = 1011
    reason: str = "idle timeout"
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_seconds("seconds", self.seconds)
        check_wire_code(self.code)
        check_reason(self.reason)


@dataclass(frozen=True, slots=True)
class SessionLimit:
    """The gateway sends a Close frame after the given `seconds`, however busy the connection is.

    The clock starts when the connection opens, or when the fault is injected into it.
    """

    seconds: float = 60.0
    code: int = 1001
    reason: str = "session limit reached"
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_seconds("seconds", self.seconds)
        check_wire_code(self.code)
        check_reason(self.reason)


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """The request is answered with a 429 and a quota body if `limit` websockets are open.

    With fewer open websockets the request is served. `times` counts the refusals; with None the
    limit lasts.
    """

    limit: int = 1
    stage: ClassVar[Stage] = Stage.REQUEST

    def __post_init__(self) -> None:
        check_count("limit", self.limit, least=0)


OpenFault: TypeAlias = (
    Reset
    | AcceptAndClose
    | CloseWith
    | GoSilent
    | StopReading
    | IgnoreClose
    | DropAfter
    | IdleTimeout
    | SessionLimit
)
"""A fault that an open connection can meet."""

Fault: TypeAlias = (
    StallAtAccept
    | StallAtTLS
    | StallInHandshake
    | DropHandshake
    | Garbage
    | Reject
    | Redirect
    | BadAccept
    | UnaskedExtension
    | UnaskedSubprotocol
    | NotWebSocket
    | ConcurrencyLimit
    | OpenFault
)
"""Any of the ways in which a gateway can misbehave."""

FAULTS: tuple[type[Fault], ...] = (
    StallAtAccept,
    StallAtTLS,
    StallInHandshake,
    Reset,
    DropHandshake,
    Garbage,
    Reject,
    Redirect,
    BadAccept,
    UnaskedExtension,
    UnaskedSubprotocol,
    NotWebSocket,
    AcceptAndClose,
    CloseWith,
    GoSilent,
    StopReading,
    IgnoreClose,
    DropAfter,
    IdleTimeout,
    SessionLimit,
    ConcurrencyLimit,
)
"""Every fault."""


def messages_before(fault: OpenFault) -> int:
    """Return after how many messages of the peer an open connection's fault strikes."""
    if isinstance(fault, DropAfter):
        return fault.messages
    if isinstance(fault, (CloseWith, GoSilent, StopReading)):
        return fault.after_messages
    return 0
