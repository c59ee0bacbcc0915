"""The states of one connection, and what leads from one to the next."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from agent_conn.errors import StateError


class ConnectionState(StrEnum):
    """Where a connection is between its making and its end."""

    IDLE = "idle"
    WAITING = "waiting"
    DIALING = "dialing"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Transition(StrEnum):
    """What moves a connection on."""

    WAIT = "wait for the room"
    DIAL = "dial"
    UPGRADE = "upgraded: run on_open"
    OPEN = "opened"
    CLOSE = "close, fail or cancel"
    CLOSED = "all released"


class Ending(StrEnum):
    """How an open connection ended."""

    CLOSED_HERE = "closed here"
    CLOSED_BY_PEER = "closed by the peer"
    """By its Close frame; or by aiohttp with 1002, 1007 or 1009 over what the peer sent, which
    cannot be told from the peer's own Close with that code."""
    LOST = "lost"
    ABORTED = "aborted"


_S = ConnectionState
_T = Transition

TRANSITIONS: Mapping[tuple[ConnectionState, Transition], ConnectionState] = MappingProxyType(
    {
        (_S.IDLE, _T.WAIT): _S.WAITING,
        (_S.IDLE, _T.DIAL): _S.DIALING,
        (_S.IDLE, _T.CLOSE): _S.CLOSING,
        (_S.WAITING, _T.DIAL): _S.DIALING,
        (_S.WAITING, _T.CLOSE): _S.CLOSING,
        (_S.DIALING, _T.UPGRADE): _S.OPENING,
        (_S.DIALING, _T.CLOSE): _S.CLOSING,
        (_S.OPENING, _T.OPEN): _S.OPEN,
        (_S.OPENING, _T.CLOSE): _S.CLOSING,
        (_S.OPEN, _T.CLOSE): _S.CLOSING,
        (_S.CLOSING, _T.CLOSED): _S.CLOSED,
    }
)
"""The state that each legal transition leads to. What is not here is illegal."""


def next_state(state: ConnectionState, transition: Transition) -> ConnectionState:
    """The state that follows.

    Raises:
        StateError: ``transition`` is not legal in ``state``; the message names both.
    """
    try:
        return TRANSITIONS[state, transition]
    except KeyError:
        pass
    raise StateError(f"cannot {transition.name} a connection that is {state.name}")


def diagram() -> str:
    """The table as a Mermaid state diagram, as the README shows it."""
    lines = ["stateDiagram-v2", f"    [*] --> {_S.IDLE.name}"]
    lines += [
        f"    {state.name} --> {following.name}: {transition.value.replace(':', ',')}"
        for (state, transition), following in TRANSITIONS.items()
    ]
    lines.append(f"    {_S.CLOSED.name} --> [*]")
    return "\n".join(lines)
