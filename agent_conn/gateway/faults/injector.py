"""Takes the inspector's requests for faults: on a live connection, or on the next ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

from agent_conn.errors import ConfigurationError
from agent_conn.gateway.faults.forms import build_fault, check_times
from agent_conn.gateway.faults.kinds import Fault, StallAtAccept
from agent_conn.gateway.faults.plan import Injection
from agent_conn.gateway.faults.words import in_words
from agent_conn.gateway.inspector.journal import Journal

MAX_PENDING = 50
# The page needs connections of its own, to withdraw it.
STALL_SECONDS = 30.0

Inject: TypeAlias = Callable[[Fault, int | None], Injection]


class FaultInjector:
    """Injects what a page asks for, and knows what still waits for a connection."""

    def __init__(self, journal: Journal, inject: Inject) -> None:
        self._journal = journal
        self._inject = inject
        self._pending: dict[int, Injection] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._numbered = 0

    def inject(self, request: dict[str, Any]) -> str:
        """Inject `request["fault"]` with `request["fields"]`; return what it does, in words.

        On the open websocket `request["connection"]`; where that is null, on the next
        `request["times"]` connections, null for all of them.

        Raises:
            ConfigurationError: the request is wrong, or cannot be done.
        """
        fault = build_fault(request.get("fault"), request.get("fields", {}))
        number = request.get("connection")
        if number is not None:
            self._strike(number, fault)
            return in_words(fault)
        if len(self.pending()) >= MAX_PENDING:
            raise ConfigurationError(
                f"{MAX_PENDING} faults wait for a connection already: withdraw one"
            )
        injection = self._inject(fault, check_times(request.get("times", 1)))
        self._numbered += 1
        self._pending[self._numbered] = injection
        if isinstance(fault, StallAtAccept):
            self._timers[self._numbered] = asyncio.get_running_loop().call_later(
                STALL_SECONDS, self.withdraw, self._numbered
            )
        return in_words(fault)

    def pending(self) -> list[dict[str, Any]]:
        """Return the faults that still wait for a connection, oldest first."""
        self._pending = {number: one for number, one in self._pending.items() if one.remaining != 0}
        return [
            {
                "number": number,
                "fault": in_words(one.fault),
                "remaining": one.remaining,
                "struck": one.struck,
                "seconds": STALL_SECONDS if isinstance(one.fault, StallAtAccept) else None,
            }
            for number, one in self._pending.items()
        ]

    def withdraw(self, number: int) -> None:
        """Have a fault strike no further connection. Idempotent."""
        timer = self._timers.pop(number, None)
        if timer is not None:
            timer.cancel()
        injection = self._pending.pop(number, None)
        if injection is not None:
            injection.withdraw()

    def close(self) -> None:
        """Forget what waits. Idempotent."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _strike(self, number: object, fault: Fault) -> None:
        entry = self._journal.get(number) if isinstance(number, int) else None
        if entry is None or entry.connection is None:
            raise ConfigurationError("connection must be the number of an open websocket")
        entry.connection.inject(fault)
