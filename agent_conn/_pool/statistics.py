"""What a pool tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent_conn._pool.state import CloseReason


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What a pool owns now, and what it has done so far."""

    size: int
    """Connections owned: idle, in use, being opened and being closed. Never over ``max_size``."""
    idle: int
    in_use: int
    dialing: int
    closing: int
    waiting: int
    """Tasks that wait in ``acquire``."""
    acquired: int
    """Connections lent so far."""
    reused: int
    """Those of them that had been idle or lent before."""
    dialed: int
    """Connections opened so far."""
    dials_failed: int
    timeouts: int
    """Calls of ``acquire`` that ended in ``PoolTimeout``."""
    early_dropped: int
    """Messages that came to an idle connection and that its borrower did not ask for."""
    closed: Mapping[CloseReason, int]
    """Connections closed so far, by reason."""
