"""``ConnectionPool``: a warm, attributed connection for every turn."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from types import MappingProxyType, TracebackType
from typing import Self

import aiohttp

from agent_conn._connection import InferenceConnection
from agent_conn._identity import AttributionLevel
from agent_conn._options import check_seconds
from agent_conn._pool.desk import Desk
from agent_conn._pool.idle import WarmConnection
from agent_conn._pool.lease import Lease, Probe
from agent_conn._pool.maintenance import Keeper
from agent_conn._pool.state import CloseReason, Ledger, Slot, SlotState
from agent_conn._pool.statistics import PoolStatistics
from agent_conn.errors import ConfigurationError, StateError


class ConnectionPool:
    """Open connections, lent to one borrower at a time and kept warm in between.

    The newest idle connection is lent first; where there is none, who came first is served
    first, by what is returned or by a dial of the pool's own. An idle connection is read, so
    that pings are answered and a Close, FIN, reset or missed heartbeat is noticed, and it is
    looked at again before it is lent: one whose end has reached this machine is never lent.
    What cannot be known before the first send is an end that has not arrived yet, and a peer
    that froze less than one and a half heartbeats ago. ``probe`` finds these too.

    Use it in one event loop; ``async with`` closes it.

    Args:
        dial: makes a new connection for each call, such as a ``functools.partial`` of
            ``InferenceConnection``.
        max_size: connections owned at most, those being opened and closed included.
        max_age: seconds after which a connection is lent no more. An idle one is replaced up
            to a tenth earlier. Choose less than the server's own limit. None: no limit.
        max_idle: seconds after which one that nobody borrowed is closed. None: no limit.
        rotate: seconds within which the dials that replace idle connections begin once a
            better identity is known; one in use is replaced when it is returned. A new one is
            opened before the old one is closed, unless the pool is full. None: off.
        clock: gives seconds, for tests.
        jitter: gives a float from 0 to 1, for tests.

    Raises:
        ConfigurationError: an argument is wrong; the message names it.
    """

    def __init__(
        self,
        dial: Callable[[], InferenceConnection],
        *,
        max_size: int = 10,
        max_age: float | None = 300.0,
        max_idle: float | None = 600.0,
        rotate: float | None = 0.5,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        for name, function in (("dial", dial), ("clock", clock), ("jitter", jitter)):
            if not callable(function):
                raise ConfigurationError(f"{name} is not callable")
        age = None if max_age is None else check_seconds("max_age", max_age)
        idle = None if max_idle is None else check_seconds("max_idle", max_idle)
        self._ledger: Ledger[WarmConnection] = Ledger(_check_count("max_size", max_size), idle)
        self._keeper = Keeper(
            self._ledger,
            dial,
            max_age=age,
            rotate=None if rotate is None else check_seconds("rotate", rotate),
            clock=clock,
            jitter=jitter,
        )
        self._desk = Desk(self._ledger, self._keeper, rotates=rotate is not None, clock=clock)
        self._ending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def acquire(
        self,
        *,
        min_attribution: AttributionLevel = AttributionLevel.NONE,
        timeout: float | None = 15.0,
        probe: Probe | None = None,
    ) -> Lease:
        """Borrow a connection: ``async with pool.acquire() as connection``.

        ``connection = await pool.acquire()`` asks for a ``release`` later. A borrower that
        leaves the block by an exception or a cancellation has its connection closed.

        Args:
            min_attribution: lend none that was opened with less.
            timeout: seconds for all of it, dials and probes included. None: no limit.
            probe: awaited with the websocket before it is lent. One that raises on a reused
                connection has it replaced, within ``timeout``, and is awaited again on the
                next; on a fresh one its exception goes to the caller. It may be the
                caller's first send. A bound on one try is its own to keep.

        Raises:
            ConfigurationError: an argument is wrong.
            PoolTimeout: there was none within ``timeout``.
            AttributionUnavailable: a fresh connection has less than ``min_attribution``.
            ConnectError: the dial failed.
            StateError: the pool is closed.
        """
        if type(min_attribution) is not AttributionLevel:
            raise ConfigurationError("min_attribution is no AttributionLevel")
        if timeout is not None and timeout != 15.0:
            timeout = check_seconds("timeout", timeout)
        if probe is not None and not callable(probe):
            raise ConfigurationError("probe is not callable")
        return Lease(self._desk, min_attribution, timeout, probe)

    def release(self, connection: InferenceConnection, *, reuse: bool = True) -> None:
        """Return what ``await pool.acquire()`` gave; without ``reuse`` it is closed.

        Raises:
            StateError: it is not lent by this pool, or was returned before.
        """
        slot = self._lent(connection)
        self._desk.give_back(slot.loan, slot, None if reuse else CloseReason.FAILED)

    def early(self, connection: InferenceConnection) -> tuple[aiohttp.WSMessage, ...]:
        """The text and binary messages that came while ``connection`` was idle, oldest first.

        They precede what its websocket gives; each is given once. Usually there are none:
        an idle connection with 16 of them is closed.

        Raises:
            StateError: the connection is not lent by this pool.
        """
        warm = self._lent(connection).member
        messages = () if warm is None else tuple(warm.reader.early)
        if warm is not None:
            warm.reader.early.clear()
        return messages

    def prewarm(self, count: int = 1) -> None:
        """Begin to dial until ``count`` connections are owned; returns at once.

        One that is lent or being opened counts. A dial that fails is logged and counted.

        Raises:
            ConfigurationError: ``count`` is no whole number from 1 to ``max_size``.
            StateError: the pool is closed.
        """
        if _check_count("count", count) > self._ledger.max_size:
            raise ConfigurationError("count is over max_size")
        if self._ledger.closed:
            raise StateError("the pool is closed")
        self._ledger.warm(count)
        self._keeper.carry_out()

    def invalidate(self) -> None:
        """Lend none of the present connections again, such as after a change of settings.

        Idle ones are closed, those in use when they are returned, and those being opened are
        given up and dialled anew. Does nothing to a closed pool.
        """
        if not self._ledger.closed:
            self._ledger.invalidate()
            self._keeper.carry_out()

    @property
    def closed(self) -> bool:
        """Whether ``aclose`` was called; closing may still be under way."""
        return self._ledger.closed

    def statistics(self) -> PoolStatistics:
        """A snapshot of what is owned and what was done. Any thread may ask for it."""
        ledger, desk, keeper = self._ledger, self._desk, self._keeper
        states = ledger.states()
        return PoolStatistics(
            size=states.total() - states[SlotState.GONE],
            idle=states[SlotState.IDLE],
            in_use=states[SlotState.BUSY],
            dialing=states[SlotState.DIALING],
            closing=states[SlotState.CLOSING],
            waiting=len(ledger.waiters),
            acquired=desk.acquired,
            reused=desk.acquired - desk.fresh,
            dialed=keeper.dialed,
            dials_failed=keeper.dials_failed,
            timeouts=desk.timeouts,
            early_dropped=desk.early_dropped,
            closed=MappingProxyType(dict(ledger.closes)),
        )

    async def aclose(self, grace: float = 1.0) -> None:
        """Close every connection; those in use have ``grace`` seconds to be returned first.

        Who waits in ``acquire`` gets ``StateError``. It takes ``grace`` and a ``close_timeout``
        at most. Cancelled, it cuts what is lent at once and still closes all. A second call
        waits for the first.

        Raises:
            ConfigurationError: ``grace`` is no number of seconds of 0 or more.
        """
        grace = check_seconds("grace", grace, zero=True)
        if self._ending is None:
            for waiter in self._ledger.shut():
                waiter.answer(StateError("the pool was closed"))
            end = self._keeper.end(grace)
            self._ending = asyncio.create_task(end, name="agent_conn.pool.aclose")
        try:
            await asyncio.wait({self._ending})
        finally:
            self._keeper.end_grace()
            await asyncio.wait({self._ending})

    def _lent(self, connection: InferenceConnection) -> Slot[WarmConnection]:
        slot = self._keeper.slots.get(connection)
        if slot is None or slot.loan is None:
            raise StateError("the connection is not lent by this pool")
        return slot


def _check_count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} is no whole number of 1 or more")
    return value
