"""What a loop is doing and has done, as it is told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from agent_conn.errors import AgentConnError


class ReconnectState(StrEnum):
    """What a loop is doing."""

    IDLE = "idle"
    DIALING = "dialing"
    OPEN = "open"
    BACKOFF = "backoff"
    CLOSING = "closing"
    CLOSED = "closed"


_S = ReconnectState
FOLLOWING: dict[ReconnectState, frozenset[ReconnectState]] = {
    _S.IDLE: frozenset({_S.DIALING, _S.CLOSING}),
    _S.DIALING: frozenset({_S.OPEN, _S.BACKOFF, _S.DIALING, _S.CLOSING}),
    _S.OPEN: frozenset({_S.OPEN, _S.BACKOFF, _S.DIALING, _S.CLOSING}),
    _S.BACKOFF: frozenset({_S.DIALING, _S.CLOSING}),
    _S.CLOSING: frozenset({_S.CLOSED}),
    _S.CLOSED: frozenset(),
}
"""The states that each state may be followed by."""


@dataclass(frozen=True, slots=True)
class ReconnectStatistics:
    """What a loop has done up to now."""

    dials: int = 0
    """Attempts begun; those of upgrades, rotations and spares are left out."""
    failed: int = 0
    """Attempts that did not open."""
    opened: int = 0
    """Connections handed out, successors and spares included."""
    lost: int = 0
    """Connections that ended, or were left, before a successor took over."""
    waited: float = 0.0
    """Seconds between attempts."""
    redials_left: float | None = None
    """What is left of ``RetryPolicy.attempts``; None without a limit."""
    upgrades_begun: int = 0
    upgrades_failed: int = 0
    """Upgrades whose dial failed, or gave no better connection."""
    upgraded: int = 0
    """Connections that took over from one under other ids."""
    rotations_begun: int = 0
    rotations_failed: int = 0
    """Rotations whose dial failed."""
    rotated: int = 0
    """Connections that took over from one under the same ids."""
    spares_dialed: int = 0
    spares_failed: int = 0
    """Spares that did not come up, or were found dead when they were used."""
    spares_used: int = 0
    """Losses that a spare made good."""
    spare_ready: bool = False
    """Whether a spare is there now."""
    drains_cut: int = 0
    """Drains that failed, or were still at it after ``drain_timeout``."""
    last_error: str | None = None
    """The class and message of the loop's ``last_error``."""


class StatisticsBuilder:
    """Counts what a loop does."""

    def __init__(self) -> None:
        self.last_error: AgentConnError | None = None
        self._counted = ReconnectStatistics()

    def count(self, **more: float) -> None:
        """Add ``more`` to the counts of these names."""
        counted: dict[str, Any] = {
            name: getattr(self._counted, name) + number for name, number in more.items()
        }
        self._counted = replace(self._counted, **counted)

    def build(self, redials_left: float | None, *, spare_ready: bool) -> ReconnectStatistics:
        """What was counted up to now."""
        error = self.last_error
        told = None if error is None else f"{type(error).__name__}: {error}"
        return replace(
            self._counted, redials_left=redials_left, spare_ready=spare_ready, last_error=told
        )
