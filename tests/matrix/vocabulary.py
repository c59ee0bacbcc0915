"""The four sides of the matrix, and what a cell can hold. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent_conn import Ending, Phase

WAIT = 0.3
"""Seconds of ``connect_wait`` where that is the deadline; the strike has to come before."""
BUDGET = 0.3
"""Seconds of ``open_timeout``, ``acquire(timeout=)`` or the caller's own timeout, likewise."""
HEARTBEAT = 0.2
"""Seconds between pings where the heartbeat is the deadline; it strikes after 1.5 of them."""
CLOSE = 0.1
"""Seconds of ``close_timeout``, where it may be needed."""
LONG = 10.0
"""Seconds of every bound that must not be what ends a cell."""
PACE = 0.01
"""Seconds between two deliveries of a slow line."""
SWEEP = 1.0
"""Between two looks of a pool for idle ones that a heartbeat gave up."""
REDIAL = 0.1
"""Seconds in which a loop pauses, dials again, echoes and closes."""
SLOWNESS = 0.4
"""Seconds that a line of this pace may take for a dial, an echo and a close."""


class Consumer(StrEnum):
    """Who uses the line."""

    CORE = "core"
    RECONNECT = "reconnect"
    POOL = "pool"
    MIDDLEWARE = "middleware"


class Place(StrEnum):
    """The part of a connection's life in which the fault strikes."""

    WAITING = "waiting"
    DIAL = "dial"
    TLS = "tls"
    TOKEN = "token"
    HANDSHAKE = "handshake"
    ON_OPEN = "on_open"
    IDLE = "idle"
    READING = "reading"
    WRITING = "writing"
    CLOSING = "closing"


class Fault(StrEnum):
    """What goes wrong: first the line, made by the proxy; then the gateway, by itself."""

    NONE = "none"
    LOSE = "lose"
    RESTORE = "lose+restore"
    STALL = "stall"
    DELAY = "delay"
    TRICKLE = "trickle"
    RESET = "reset"
    HALF_CLOSE = "half-close"
    REFUSE = "refuse"
    REJECT = "reject 401"
    UNAVAILABLE = "reject 503"
    REDIRECT = "redirect"
    GARBAGE = "garbage"
    BAD_ACCEPT = "bad accept"
    UNASKED = "unasked extension"
    NOT_WEBSOCKET = "no websocket"
    CLOSE_1011 = "close 1011"
    CLOSE_1008 = "close 1008"
    SILENT = "go silent"
    IGNORE_CLOSE = "ignore close"


class Way(StrEnum):
    """What ends it."""

    NOTHING = "nothing"
    """Nobody acts: the fault ends it, or passes."""
    CANCEL = "cancel"
    """The task is cancelled from outside."""
    ACLOSE = "aclose"
    """Another task calls ``aclose()``."""
    DEADLINE = "deadline"
    """A bound in seconds runs out."""


class Empty(StrEnum):
    """Why a cell is empty."""

    WELL = "nothing is wrong and nobody acts: a plain run, which other tests have"
    AT_ONCE = "the fault ends it before anyone can act"
    PASSES = "the fault passes within every bound; from then on the line is well"
    UNENDING = "nothing ends it but a bound or the caller"
    UNBOUNDED = "no bound runs here: what goes on is the caller's own"
    SYN = "the kernel repeats a SYN after a second, beyond every bound here"
    NOT_ACCEPTED = "there is no connection that could do this: the same as lose"
    AT_TLS = "the first byte that the line carries is TLS's: see tls"
    LINE_DOWN = "only a connect can be refused"
    ANSWERED = "this is an answer to the handshake"
    OPEN_ONLY = "this needs an open websocket"
    CLOSE_ONLY = "this is an answer to a close"
    NEVER_HELD = "a line that is well does not stay in this place"
    NO_ANSWER = "a blocked writer reads nothing, a Close frame included"
    STILL_READ = "a silent peer still reads, so that no writer blocks"
    RESUMES = "the writer only goes on: as a plain send"
    PEER_CLOSES = "two Close frames that cross: as a plain close"
    POOL_ONLY = "only a pool keeps connections idle"
    NO_TOKEN = "the middleware mints no token: the client does, before its request"
    NOT_ITS_SOCKET = "the middleware's part ends with the answer; the websocket is the client's"
    NO_ACLOSE = "the middleware has nothing to close; closing the session is the client's"
    TAKEN = "aiohttp's client takes it, and the middleware passes answers on as they are"


@dataclass(frozen=True)
class Result:
    """What the caller of one connection meets; no ``error``: it goes on or ends quietly."""

    error: type[BaseException] | None = None
    phase: Phase | None = None
    code: int | None = None
    """The code of a ``ConnectionLost``."""
    ending: Ending | None = None
    """How the open connection ended, where that tells something."""


@dataclass(frozen=True)
class Expected(Result):
    """What a cell's consumer makes of it."""

    recovers: bool = False
    """Whether ``error`` is only noted, and another connection takes the place."""
    within: float = 0.0
    """Seconds from the strike, or from the way out, to the end."""


Held = Expected | Empty
