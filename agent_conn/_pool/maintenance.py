"""Every task and timer of one pool: what dials, looks, resets, keeps alive and closes."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from math import inf
from typing import Any

import aiohttp

from agent_conn._connection import InferenceConnection
from agent_conn._lifecycle import ConnectionState
from agent_conn._pool.borrowers import Borrower
from agent_conn._pool.idle import IdleConnection
from agent_conn._pool.keepalive import Keepalive, keep_alive
from agent_conn._pool.slot import CloseReason, Slot, SlotState
from agent_conn._pool.state import Order, PoolState
from agent_conn.errors import ConfigurationError, DialFailed, StateError

logger: logging.Logger = logging.getLogger("agent_conn")

TICK = 0.1
"""Seconds between two looks at the clock and at the identities of idle connections."""
RESET_TIMEOUT = 5.0
"""Seconds that a reset may take."""
AGE_SPREAD = 0.1
"""Share of ``max_age`` by which a renewal comes early: from half of it to all of it, so that
what was opened together is not renewed together."""

Reset = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[object]]
"""Awaited with the websocket when it is returned; raises where it cannot be lent again."""


class Maintenance:
    """Carries out what the state orders, and tells it what came of it.

    What the pool does by itself runs in an empty context, not in that of the request that
    happened to be there; a dial that somebody waits for runs in a copy of that one's.
    The arguments are those of ``ConnectionPool``.
    """

    def __init__(
        self,
        dial: Callable[[], InferenceConnection],
        *,
        max_size: int,
        min_idle: int,
        max_age: float,
        max_idle: float,
        rotate: float | None,
        keepalive: Keepalive | None,
        reset: Reset | None,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self.state: PoolState = PoolState(
            self._carry_out, jitter, max_size=max_size, min_idle=min_idle, max_idle=max_idle
        )
        self.clock: Callable[[], float] = clock
        self.open: dict[Slot, IdleConnection] = {}
        self.lent: dict[InferenceConnection, tuple[Slot, object]] = {}
        """What is lent, with its loan."""
        self.counts: Counter[str] = Counter()
        """How often what was done, by its name in the statistics."""
        self.tasks: set[asyncio.Task[None]] = set()
        self._dial = dial
        self._max_age = max_age
        self._rotate = rotate
        self._keepalive = keepalive
        self._reset = reset
        self._jitter = jitter
        self._made: dict[Slot, InferenceConnection] = {}
        """What is being opened."""
        self._work: dict[Slot, asyncio.Task[None]] = {}
        """The dial or the reset under way."""
        self._keepalives: dict[Slot, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._none_lent = asyncio.Event()

    def enter(self) -> float:
        """Bind the pool to the event loop that runs here; the time by the pool's clock.

        Raises:
            StateError: none runs, or it is not the one that the pool was first used in.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is None:
            raise StateError("a pool must be used where an event loop runs, got none")
        if self._loop is None:
            self._loop = loop
            contextvars.Context().run(self._tick)
        elif loop is not self._loop:
            raise StateError(
                "a pool must be used in one event loop, got another: make one for each"
            )
        return self.clock()

    def is_current(self, slot: Slot) -> bool:
        """Whether the identity of a connection holds in the present context."""
        return self.open[slot].connection.is_current()

    def queue(self, borrower: Borrower, *, first: bool) -> None:
        """Have somebody wait whom no idle connection serves."""
        now = self.clock()
        for slot in tuple(self.state.idle):
            self._look(slot, now)
        self.state.wait(borrower, now, first=first)

    def lend(self, slot: Slot, loan: object) -> InferenceConnection:
        """Note a loan that begins."""
        self.counts["acquired"] += 1
        self.counts["reused"] += slot.used
        connection = self.open[slot].connection
        self.lent[connection] = slot, loan
        return connection

    def end_loan(self, connection: InferenceConnection, broken: CloseReason | None) -> None:
        """A borrower returns its connection; ``broken`` is why it cannot be lent again."""
        slot, _ = self.lent.pop(connection)
        ends = broken or slot.doomed or slot.state is not SlotState.BUSY or connection.ws.closed
        if self._reset is None or ends:
            self.give_back(slot, broken)
        else:
            task = self._work[slot] = self._begin(_reset(connection.ws, self._reset), "reset")
            task.add_done_callback(partial(self._end_reset, slot))

    def give_back(self, slot: Slot, broken: CloseReason | None = None) -> None:
        """Decide what becomes of a connection that nobody has any more."""
        now = self.clock()
        if (idle := self.open.get(slot)) is not None:
            self._look(slot, now)
            dead = CloseReason.DEAD if idle.is_over() else None
            self.state.give_back(slot, now, broken or dead)
        self._note_lent()

    def end_grace(self) -> None:
        """Wait no longer for what is lent."""
        self._none_lent.set()

    async def end(self, grace: float) -> None:
        """Wait ``grace`` seconds for what is lent, cut it, and wait until all is closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._note_lent()
        try:
            async with asyncio.timeout(grace):
                await self._none_lent.wait()
        except TimeoutError:
            pass
        self.state.cut()
        while self.tasks:
            await asyncio.wait(self.tasks)
            # Their callbacks, which may close what was just opened, run in the next turn.
            await asyncio.sleep(0)

    def _carry_out(self, order: Order, slot: Slot) -> None:
        # What becomes of a task is seen to by a callback: one cancelled before it starts cannot.
        if order == "read":
            self.open[slot].read()
        elif order == "dial":
            context = None if slot.borrower is None else slot.borrower.context.copy()
            task = self._work[slot] = self._begin(self._open(slot), "dial", context)
            task.add_done_callback(partial(self._end_dial, slot))
        elif (work := self._work.get(slot)) is not None:
            work.cancel()
        if order == "close":
            task = self._begin(self.open[slot].aclose(), "close")
            task.add_done_callback(partial(self._end_close, slot))

    def _begin(
        self,
        work: Coroutine[Any, Any, None],
        name: str,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(
            work, name=f"agent_conn.pool.{name}", context=context or contextvars.Context()
        )
        self.tasks.add(task)
        task.add_done_callback(self._note_end)
        return task

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            work, kind = task.get_name().rpartition(".")[2], type(error).__name__
            logger.warning("pool_%s_failed: %s", work, kind, extra={"error": kind})

    async def _open(self, slot: Slot) -> None:
        connection: object = self._dial()
        if not isinstance(connection, InferenceConnection):
            kind = type(connection).__name__
            raise ConfigurationError(f"dial() must return an InferenceConnection, got {kind}")
        self._made[slot] = connection
        await connection

    def _end_dial(self, slot: Slot, task: asyncio.Task[None]) -> None:
        del self._work[slot]
        made, now = self._made.pop(slot, None), self.clock()
        error = None if task.cancelled() else task.exception()
        # It may have been cancelled in the very step in which it opened.
        if made is not None and error is None and made.state is ConnectionState.OPEN:
            self._note_open(slot, made, now)
        else:
            if not isinstance(error, Exception):
                error = DialFailed("the dial was cancelled", retryable=False)
            self.counts["dials_failed"] += slot.doomed is None
            self.state.dial_failed(slot, error, now)

    def _note_open(self, slot: Slot, connection: InferenceConnection, now: float) -> None:
        self.counts["dialed"] += 1
        self.open[slot] = IdleConnection(
            connection,
            on_message=lambda: self.counts.update(dropped=1),
            on_end=lambda: self.state.discard(slot, self.clock()),
        )
        slot.level = connection.attribution
        slot.expires_at = now + self._max_age
        if self._max_age < inf:
            slot.renew_at = slot.expires_at - self._max_age * AGE_SPREAD * (1 + self._jitter()) / 2
        if self._keepalive is not None:
            work = keep_alive(connection.ws, self._keepalive)
            self._keepalives[slot] = self._begin(work, "keepalive")
        for each in (slot, *self.state.idle):
            self._look(each, now)
        self.state.dialed(slot, now)

    def _end_reset(self, slot: Slot, task: asyncio.Task[None]) -> None:
        del self._work[slot]
        failed = task.cancelled() or task.exception() is not None
        self.give_back(slot, CloseReason.RESET if failed else None)

    def _end_close(self, slot: Slot, _: asyncio.Task[None]) -> None:
        self.lent.pop(self.open.pop(slot).connection, None)
        if (keepalive := self._keepalives.pop(slot, None)) is not None:
            keepalive.cancel()
        self.state.closed_one(slot, self.clock())

    def _look(self, slot: Slot, now: float, spread: float = 0.0) -> None:
        """See whether a connection's identity holds, as far as no borrower's context tells."""
        if self._rotate is None:
            return
        stale = not contextvars.Context().run(self.is_current, slot)
        if stale and not slot.stale:
            slot.renew_at = min(slot.renew_at, now + spread * self._jitter())
        slot.stale = stale

    def _tick(self) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(TICK, self._tick)
        now = self.clock()
        for slot in tuple(self.state.idle):
            self._look(slot, now, max(0.0, (self._rotate or 0.0) - TICK))
        self.state.tidy(now)

    def _note_lent(self) -> None:
        if self.state.closed and not self.state.states()[SlotState.BUSY]:
            self._none_lent.set()


async def _reset(ws: aiohttp.ClientWebSocketResponse, reset: Reset) -> None:
    async with asyncio.timeout(RESET_TIMEOUT):
        await reset(ws)
