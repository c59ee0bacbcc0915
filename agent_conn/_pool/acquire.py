"""What ``ConnectionPool.acquire`` gives: one loan, by ``async with`` or by ``await``."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any

import aiohttp

from agent_conn._connection import InferenceConnection
from agent_conn._identity import AttributionLevel
from agent_conn._pool.borrowers import Borrower
from agent_conn._pool.maintenance import Maintenance
from agent_conn._pool.slot import CloseReason, Slot, SlotState
from agent_conn.errors import PoolTimeout, StateError

Probe = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[object]]
"""Awaited with the websocket before it is lent; raises where the connection is not usable."""


@dataclass(eq=False, repr=False)
class Lease:
    """What ``ConnectionPool.acquire`` returns: to be awaited or entered, once."""

    _maintenance: Maintenance
    _minimum: AttributionLevel
    _timeout: float | None
    _probe: Probe | None
    _connection: InferenceConnection | None = None

    def __post_init__(self) -> None:
        self._state = self._maintenance.state

    def __await__(self) -> Generator[Any, None, InferenceConnection]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> InferenceConnection:
        if self._connection is not None:
            raise StateError("a lease is used once; call acquire() again")
        self._maintenance.enter()
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                slot = await self._find()
        except TimeoutError:
            if not deadline.expired():
                raise
        else:
            self._connection = self._maintenance.lend(slot, self)
            return self._connection
        self._maintenance.counts["timeouts"] += 1
        states, failure = self._state.states(), self._state.last_failure
        text = (
            f"no connection within {self._timeout:g} s: {states[SlotState.BUSY]} in use, "
            f"{states[SlotState.DIALING]} being opened, at most {self._state.max_size} in all"
        )
        if failure is not None:
            text += f"; the last dial failed: {failure}"
        raise PoolTimeout(text) from failure

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        connection, lent = self._connection, self._maintenance.lent
        if connection in lent and lent[connection][1] is self:
            self._maintenance.end_loan(connection, CloseReason.FAILED if exc_type else None)

    async def _find(self) -> Slot:
        first = False
        while not self._state.closed:
            now = self._maintenance.clock()
            slot = self._state.take(self._minimum, self._maintenance.is_current, now)
            if slot is None:
                slot = await self._wait(first=first)
            unfit: CloseReason | None = CloseReason.FAILED
            try:
                unfit = await self._examine(slot)
            finally:
                if unfit is not None:
                    self._maintenance.give_back(slot, unfit)
            if unfit is None:
                return slot
            # Whoever was given a dead one has waited already, and is next in line.
            first = True
        raise StateError("the pool is closed")

    async def _wait(self, *, first: bool) -> Slot:
        served, context = asyncio.Event(), contextvars.copy_context()
        is_current = self._maintenance.is_current
        borrower = Borrower(
            self._minimum, context, lambda slot: context.run(is_current, slot), served.set
        )
        self._maintenance.queue(borrower, first=first)
        try:
            await served.wait()
        except asyncio.CancelledError:
            self._state.borrowers.leave(borrower)
            if isinstance(borrower.answer, Slot):
                # It was served in the very turn in which it was cancelled.
                self._maintenance.give_back(borrower.answer)
            raise
        if not isinstance(borrower.answer, Slot):
            assert borrower.answer is not None
            raise borrower.answer
        return borrower.answer

    async def _examine(self, slot: Slot) -> CloseReason | None:
        """Why it cannot be lent, or None."""
        opened = self._maintenance.open.get(slot)
        if opened is None or (slot.used and not await opened.is_alive()):
            return CloseReason.DEAD
        if self._probe is not None and slot.doomed is None:
            try:
                await self._probe(opened.ws)
            except Exception:
                if not slot.used:
                    raise
                return CloseReason.PROBE
        # Meanwhile the pool may have decided to close it.
        return slot.doomed
