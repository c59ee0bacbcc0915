"""``ConnectionPool``: a warm, attributed connection for every turn."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Self

from agent_conn._checks import check_callable, check_count
from agent_conn._connection import InferenceConnection
from agent_conn._identity import AttributionLevel
from agent_conn._options import check_seconds, check_type
from agent_conn._pool.acquire import Lease, Probe
from agent_conn._pool.liveness import Keepalive
from agent_conn._pool.maintenance import Maintenance, Reset
from agent_conn._pool.slot import CloseReason, SlotState
from agent_conn.errors import StateError


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What a pool owns now, and what it has done so far. ``in_use`` includes resets.

    ``waiting``: tasks that wait in ``acquire``. ``reused``: loans of what had been idle or
    lent before. ``timeouts``: those of ``acquire``. ``dropped``: messages that came while
    nobody had the connection.
    """

    size: int
    idle: int
    in_use: int
    dialing: int
    closing: int
    waiting: int
    acquired: int
    reused: int
    dialed: int
    dials_failed: int
    timeouts: int
    dropped: int
    closed: dict[CloseReason, int]


_COUNTED = ("acquired", "reused", "dialed", "dials_failed", "timeouts", "dropped")


class ConnectionPool:
    """Open connections, lent to one borrower at a time and kept warm in between.

    The newest idle connection is lent first. Where none is idle, borrowers wait in a queue for
    one that is returned, or for a dial that the pool begins for them. A connection is lent only
    while its identity source, asked in the borrower's own context, gives the ids that it sent.

    The pool reads idle connections, so that pings are answered and an end is noticed. It drops
    and counts what they receive: read a greeting in ``on_open``. It looks at a connection before
    it lends it, and never lends one whose end has reached this machine. A close still in flight,
    or a recent freeze, goes undetected; pass ``probe``.

    Where an answer was interrupted, the rest of it still comes, and the next borrower would take
    it for its own. Return such a connection by ``release(connection, reuse=False)``, or pass
    ``reset``.

    Use it in one event loop; ``async with`` closes it.

    Args:
        dial: makes a new connection for each call, such as a ``functools.partial`` of
            ``InferenceConnection``. Called in the borrower's context, and in an empty one to
            prewarm, refill or replace: bind what the identity is read from, such as a job.
        max_size: connections owned at most, those being opened and closed included.
        min_idle: connections to have idle, or on their way, from ``async with`` or the first
            use on. Those that end are dialled anew, after failures by the retry policy.
        max_age: seconds after which a connection is lent no more. An idle one is replaced up
            to a tenth earlier. Choose less than the server's own limit. None: no limit.
        max_idle: seconds after which an idle connection is closed, unless ``min_idle`` needs
            it. None: no limit.
        rotate: seconds within which the dials that replace idle connections begin once their
            identity is out of date; one in use is replaced when it is returned. A new one is
            opened before the old one is closed, unless the pool is full. None: off.
        keepalive: what to send where nothing was sent for long, idle or in use.
        reset: awaited with the websocket when it is returned, for at most 5 s, before it is lent
            again. Where it raises, the connection is closed.
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
        min_idle: int = 0,
        max_age: float | None = 300.0,
        max_idle: float | None = 600.0,
        rotate: float | None = 0.5,
        keepalive: Keepalive | None = None,
        reset: Reset | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        for name, function in (("dial", dial), ("clock", clock), ("jitter", jitter)):
            check_callable(name, function)
        if reset is not None:
            check_callable("reset", reset)
        if keepalive is not None:
            check_type("keepalive", keepalive, Keepalive)
        check_count("max_size", max_size)
        check_count("min_idle", min_idle, least=0, most=max_size)
        self._maintenance = Maintenance(
            dial=dial,
            max_size=max_size,
            min_idle=min_idle,
            max_age=inf if max_age is None else check_seconds("max_age", max_age),
            max_idle=inf if max_idle is None else check_seconds("max_idle", max_idle),
            rotate=None if rotate is None else check_seconds("rotate", rotate),
            keepalive=keepalive,
            reset=reset,
            clock=clock,
            jitter=jitter,
        )
        self._state = self._maintenance.state
        self._ending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._state.tidy(self._maintenance.enter())
        return self

    async def __aexit__(self, *_: object) -> None:
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
            timeout: seconds for all of it, dials and probes included. A dial that fails is
                followed by others, by the retry policy, until then. None: no limit.
            probe: awaited with the websocket before it is lent. One that raises on a reused
                connection has it replaced, within ``timeout``, and is awaited again on the
                next; on a fresh one its exception goes to the caller. It may be the
                caller's first send. A bound on one try is its own to keep.

        Raises:
            ConfigurationError: an argument is wrong.
            PoolTimeout: there was none within ``timeout``; its cause is the last failure.
            AttributionUnavailable: a fresh connection has less than ``min_attribution``.
            ConnectError: the dial failed, and another would too.
            StateError: the pool is closed, or belongs to another event loop.
        """
        check_type("min_attribution", min_attribution, AttributionLevel)
        if timeout is not None:
            timeout = check_seconds("timeout", timeout)
        if probe is not None:
            check_callable("probe", probe)
        return Lease(self._maintenance, min_attribution, timeout, probe)

    def release(self, connection: InferenceConnection, *, reuse: bool = True) -> None:
        """Return what was lent, once; without ``reuse`` it is closed.

        Raises:
            StateError: it is not lent by this pool, or was returned before.
        """
        self._maintenance.enter()
        if connection not in self._maintenance.lent:
            raise StateError("the connection is not lent by this pool")
        self._maintenance.end_loan(connection, None if reuse else CloseReason.FAILED)

    def prewarm(self, count: int = 1) -> None:
        """Begin to dial until ``count`` connections are owned; returns at once.

        One that is lent or being opened counts. A dial that fails is logged and counted, and
        followed by another, by the retry policy, unless that would fail too.

        Raises:
            ConfigurationError: ``count`` is not a whole number from 1 to ``max_size``.
            StateError: the pool is closed, or no event loop runs here, or another one does.
        """
        check_count("count", count, most=self._state.max_size)
        now = self._maintenance.enter()
        if self._state.closed:
            raise StateError("the pool is closed")
        self._state.prewarm(count, now)

    def invalidate(self) -> None:
        """Lend none of the present connections again, such as after a change of settings.

        Idle ones are closed, those in use when they are returned, and those being opened are
        given up and dialled anew. Does nothing to a closed pool.

        Raises:
            StateError: no event loop runs here, or another one than the pool's.
        """
        now = self._maintenance.enter()
        if not self._state.closed:
            self._state.invalidate(now)

    @property
    def closed(self) -> bool:
        """Whether ``aclose`` was called; closing may still be under way."""
        return self._state.closed

    def __repr__(self) -> str:
        now = self.statistics()
        return (
            f"<ConnectionPool {now.in_use} in use, {now.idle} idle, {now.dialing} dialing, "
            f"{now.waiting} waiting>"
        )

    def statistics(self) -> PoolStatistics:
        """A snapshot of what is owned and what was done. Any thread may ask for it."""
        states = self._state.states()
        return PoolStatistics(
            size=states.total(),
            idle=states[SlotState.IDLE],
            in_use=states[SlotState.BUSY],
            dialing=states[SlotState.DIALING],
            closing=states[SlotState.CLOSING],
            waiting=len(self._state.borrowers),
            **{name: self._maintenance.counts[name] for name in _COUNTED},
            closed=dict(self._state.closes),
        )

    async def aclose(self, grace: float = 1.0) -> None:
        """Close every connection; those in use have ``grace`` seconds to be returned first.

        Who waits in ``acquire`` gets ``StateError``. It takes ``grace`` and a ``close_timeout``
        at most. Cancelled, it cuts what is lent at once and still closes all. A second call
        waits for the first.

        Raises:
            ConfigurationError: ``grace`` is not a number of seconds of 0 or more.
            StateError: the pool belongs to another event loop.
        """
        grace = check_seconds("grace", grace, zero=True)
        self._maintenance.enter()
        if self._ending is None:
            self._state.shut(StateError("the pool was closed"))
            end = self._maintenance.end(grace)
            self._ending = asyncio.create_task(end, name="agent_conn.pool.aclose")
        if asyncio.current_task() in self._maintenance.work.values():
            # Called from within a dial or a reset, which is waited for there.
            return
        cancelled: asyncio.CancelledError | None = None
        while not self._ending.done():
            try:
                await asyncio.wait({self._ending})
            except asyncio.CancelledError as error:
                # Also again and again, as by anyio's cancel scopes.
                cancelled = error
                self._maintenance.none_lent.set()
        if cancelled is not None:
            raise cancelled
