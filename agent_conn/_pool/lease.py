"""The loan of one connection, by ``async with`` or by ``await``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Protocol

import aiohttp

from agent_conn._connection import InferenceConnection
from agent_conn._identity import AttributionLevel
from agent_conn._pool.idle import WarmConnection
from agent_conn._pool.state import CloseReason, Slot
from agent_conn.errors import StateError

Probe = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[object]]


class Lender(Protocol):
    """Where a lease gets its connection and returns it."""

    def hit(self, lease: Lease) -> InferenceConnection | None:
        """Lend at once what needs no second look."""
        ...

    async def borrow(self, lease: Lease) -> InferenceConnection:
        """Lend, whatever it takes."""
        ...

    def give_back(
        self, lease: object, slot: Slot[WarmConnection], broken: CloseReason | None
    ) -> None:
        """Take back what was lent to ``lease``."""
        ...


class Lease:
    """What ``ConnectionPool.acquire`` returns: to be awaited or entered, once."""

    __slots__ = ("_lender", "minimum", "probe", "slot", "timeout")

    def __init__(
        self,
        lender: Lender,
        minimum: AttributionLevel,
        timeout: float | None,
        probe: Probe | None,
    ) -> None:
        self._lender = lender
        self.minimum: AttributionLevel = minimum
        self.timeout: float | None = timeout
        self.probe: Probe | None = probe
        self.slot: Slot[WarmConnection] | None = None

    def __await__(self) -> Generator[Any, None, InferenceConnection]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> InferenceConnection:
        if self.slot is not None:
            raise StateError("a lease is used once; call acquire() again")
        return self._lender.hit(self) or await self._lender.borrow(self)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.slot is not None:
            broken = None if exc_type is None else CloseReason.FAILED
            self._lender.give_back(self, self.slot, broken)
