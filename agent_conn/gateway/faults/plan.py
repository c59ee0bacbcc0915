"""The plan of which connection meets which fault."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from agent_conn.errors import ConfigurationError
from agent_conn.gateway.faults.kinds import ConcurrencyLimit, Fault, Stage


class Injection:
    """A fault that was injected. It stays in force until it is used up or withdrawn.

    It is a context manager: leaving the block withdraws it.
    """

    def __init__(
        self, fault: Fault, times: int | None, withdraw: Callable[[Injection], None]
    ) -> None:
        self.fault = fault
        self.remaining = times
        """How many connections it will still strike; None is all of them."""
        self.struck = 0
        """How many connections it has struck."""
        self._withdraw = withdraw

    def __repr__(self) -> str:
        left = "any number" if self.remaining is None else self.remaining
        return f"<Injection of {self.fault!r}, {self.struck} struck, {left} to go>"

    def withdraw(self) -> None:
        """Strike no further connection. Connections that have met the fault keep it. Idempotent."""
        self._withdraw(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.withdraw()


def check_fault(fault: object) -> None:
    """Check that `fault` is one.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(fault, Fault):
        raise ConfigurationError(
            "fault must be an instance of one of agent_conn.gateway.FAULTS, "
            f"got {type(fault).__name__}"
        )


class FaultPlan:
    """The faults that coming connections will meet, first in first out.

    Only the first fault in line is ever taken up: one for the accept strikes the next TCP
    connection, one for the request the next HTTP request, whichever connection it comes on.
    A `ConcurrencyLimit` lets requests pass, uncounted, while fewer websockets are open.
    """

    def __init__(self) -> None:
        self._line: deque[Injection] = deque()

    def add(self, fault: Fault, times: int | None = 1) -> Injection:
        """Put a fault at the end of the line, for `times` connections; None is all of them.

        Raises:
            ConfigurationError: `times` is below 1.
        """
        if times is not None and times < 1:
            raise ConfigurationError(f"times must be at least 1 or None, got {times!a:.40}")
        injection = Injection(fault, times, self.withdraw)
        self._line.append(injection)
        return injection

    def take(self, stage: Stage, open_websockets: int = 0) -> Fault | None:
        """Take up the first fault in line if it belongs to `stage`."""
        if not self._line or self._line[0].fault.stage is not stage:
            return None
        injection = self._line[0]
        fault = injection.fault
        if isinstance(fault, ConcurrencyLimit) and open_websockets < fault.limit:
            return None
        injection.struck += 1
        if injection.remaining is not None:
            injection.remaining -= 1
            if not injection.remaining:
                self._line.popleft()
        return fault

    def withdraw(self, injection: Injection) -> None:
        """Take an injection out of the line, if it is still in it."""
        if injection in self._line:
            self._line.remove(injection)
            injection.remaining = 0

    def clear(self) -> None:
        """Take every injection out of the line."""
        while self._line:
            self._line.popleft().remaining = 0
