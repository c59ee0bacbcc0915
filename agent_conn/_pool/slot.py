"""One connection that a pool owns, from the start of its dial to the end of its close."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Any

from agent_conn._identity import AttributionLevel


class SlotState(StrEnum):
    """What a slot is taken up by. BUSY: lent, or being reset. CLOSING: also a dial given up."""

    DIALING = "dialing"
    IDLE = "idle"
    BUSY = "busy"
    CLOSING = "closing"


NEXT_STATES = {
    SlotState.DIALING: "idle busy closing",
    SlotState.IDLE: "busy closing",
    SlotState.BUSY: "idle busy closing",
    SlotState.CLOSING: "",
}


class CloseReason(StrEnum):
    """Why a pool closed one of its connections.

    DEAD: its end was noticed. FAILED: its borrower raised, was cancelled or asked for it, or
    the first probe failed. PROBE, RESET: that failed. AGED, UNUSED: it was open, or idle, for
    too long. REPLACED: a younger one, or one with the identity of now, took its place.
    EVICTED: it did not serve those who waited for its slot. INVALIDATED: ``invalidate`` was
    called. CLOSED: the pool was closed.
    """

    DEAD = "dead"
    FAILED = "failed"
    PROBE = "probe"
    RESET = "reset"
    AGED = "aged"
    UNUSED = "unused"
    REPLACED = "replaced"
    EVICTED = "evicted"
    INVALIDATED = "invalidated"
    CLOSED = "closed"


@dataclass(slots=True, eq=False)
class Slot:
    """What the pool's decisions need to know of one connection. Times are in seconds."""

    borrower: Any = None
    """The ``Borrower`` for whom it is being dialled, None where the pool dials for itself."""
    replaces: bool = False
    """Whether it is dialled to take the place of an idle one that is due for renewal."""
    state: SlotState = SlotState.DIALING
    level: AttributionLevel = AttributionLevel.NONE
    stale: bool = False
    """Whether its identity was found to be out of date at the last look."""
    used: bool = False
    """Whether it was idle or lent before, so that it has to be looked at before it is lent."""
    opened_at: float = inf
    idle_since: float = inf
    renew_at: float = inf
    expires_at: float = inf
    doomed: CloseReason | None = None
    """Why it is closed once its borrower has returned it."""

    def move(self, state: SlotState) -> None:
        """The one place that sets the state."""
        if state not in NEXT_STATES[self.state].split():
            raise AssertionError(f"a slot that is {self.state} cannot be {state}")
        self.state = state
