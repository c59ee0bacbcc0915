"""What one connection did, and who is told while it does it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from agent_conn.errors import AgentConnError
from agent_conn.identity import AgentIdentity, AttributionLevel
from agent_conn.lifecycle import ConnectionState, Ending
from agent_conn.readiness import WaitOutcome


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
    """From the request to the gateway's 101."""
    opened: float | None = None
    """In ``on_open``."""
    close_code: int | None = None
    """The close code (RFC 6455, section 7.4), 1006 where no Close frame came."""
    ended: Ending | None = None
    """How the open connection ended; None where it never opened or is still open."""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A connection went from one state to another.

    ``at`` is of the event loop's clock, in seconds. ``error`` is why it failed to open.
    """

    previous: ConnectionState
    state: ConnectionState
    at: float
    record: ConnectionRecord
    error: AgentConnError | None = None


ConnectionObserver = Callable[[StateChanged], None]
"""Called on every change of state. What it raises is logged and goes no further."""


def new_session_id() -> str:
    """A fresh id for the session header: 32 hexadecimal digits. It is a name, no secret."""
    return f"{random.getrandbits(128):032x}"


def seconds_between(start: float | None, end: float | None) -> float | None:
    """The length of a phase, or None where it has not begun or not ended."""
    return None if start is None or end is None else end - start
