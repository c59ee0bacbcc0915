"""The states of one connection, and what leads from one to the next."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

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


TRANSITIONS: Mapping[tuple[ConnectionState, Transition], ConnectionState] = {
    (ConnectionState.IDLE, Transition.WAIT): ConnectionState.WAITING,
    (ConnectionState.IDLE, Transition.DIAL): ConnectionState.DIALING,
    (ConnectionState.IDLE, Transition.CLOSE): ConnectionState.CLOSING,
    (ConnectionState.WAITING, Transition.DIAL): ConnectionState.DIALING,
    (ConnectionState.WAITING, Transition.CLOSE): ConnectionState.CLOSING,
    (ConnectionState.DIALING, Transition.UPGRADE): ConnectionState.OPENING,
    (ConnectionState.DIALING, Transition.CLOSE): ConnectionState.CLOSING,
    (ConnectionState.OPENING, Transition.OPEN): ConnectionState.OPEN,
    (ConnectionState.OPENING, Transition.CLOSE): ConnectionState.CLOSING,
    (ConnectionState.OPEN, Transition.CLOSE): ConnectionState.CLOSING,
    (ConnectionState.CLOSING, Transition.CLOSED): ConnectionState.CLOSED,
}
"""The state that each legal transition leads to. What is not here is illegal."""


def next_state(state: ConnectionState, transition: Transition) -> ConnectionState:
    """The state that follows.

    Raises:
        StateError: ``transition`` is not legal in ``state``.
    """
    try:
        return TRANSITIONS[state, transition]
    except KeyError:
        pass
    raise StateError(
        f"an InferenceConnection opens once, and this one is {state.name}: make a new one"
        if transition in {Transition.WAIT, Transition.DIAL}
        else f"{transition.name} does not follow on {state.name}"
    )


def diagram() -> str:
    """The table as a Mermaid state diagram, as docs/architecture.md shows it."""
    lines = ["stateDiagram-v2", f"    [*] --> {ConnectionState.IDLE.name}"]
    lines += [
        f"    {state.name} --> {following.name}: {transition.value.replace(':', ',')}"
        for (state, transition), following in TRANSITIONS.items()
    ]
    lines.append(f"    {ConnectionState.CLOSED.name} --> [*]")
    return "\n".join(lines)
