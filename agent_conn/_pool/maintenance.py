"""Every task and timer of one pool: what dials, looks at identities, resets and closes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import aiohttp

from agent_conn._checks import told
from agent_conn._connection import InferenceConnection
from agent_conn._log import log
from agent_conn._pool.borrowers import Borrower
from agent_conn._pool.liveness import Keepalive, PooledConnection
from agent_conn._pool.slot import CloseReason, Slot, SlotState
from agent_conn._pool.state import Order, PoolState
from agent_conn.errors import ConfigurationError, DialFailed, StateError

TICK = 0.1
"""Seconds between two looks at the clock and at the identities of idle connections."""
RESET_TIMEOUT = 5.0
"""Seconds that a reset may take."""
AGE_SPREAD = 0.1
"""Share of ``max_age`` by which a renewal comes early: from half of it to all of it, so that
what was opened together is not renewed together."""

Reset = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[object]]
"""Awaited with the websocket when it is returned; raises where it cannot be lent again."""
End = Callable[[Slot, BaseException | None], None]
"""Called with what ended a slot's task, None where it ended well."""


@dataclass(kw_only=True, eq=False, repr=False)
class Maintenance:
    """Carries out what the state orders, and tells it what came of it.

    What the pool does by itself runs in an empty context, not in that of the request that
    happened to be there; a dial that somebody waits for runs in a copy of that one's.
    The arguments are those of ``ConnectionPool``.
    """

    dial: Callable[[], InferenceConnection]
    max_size: int
    min_idle: int
    max_age: float
    max_idle: float
    rotate: float | None
    keepalive: Keepalive | None
    reset: Reset | None
    clock: Callable[[], float]
    jitter: Callable[[], float]

    def __post_init__(self) -> None:
        self.state: PoolState = PoolState(
            self._carry_out,
            self.jitter,
            max_size=self.max_size,
            min_idle=self.min_idle,
            max_idle=self.max_idle,
        )
        self.open: dict[Slot, PooledConnection] = {}
        self.lent: dict[InferenceConnection, tuple[Slot, object]] = {}
        """What is lent, with its loan."""
        self.counts: Counter[str] = Counter()
        """How often what was done, by its name in the statistics."""
        self.work: dict[Slot, asyncio.Task[None]] = {}
        """The dial, the reset or the close under way."""
        self.none_lent: asyncio.Event = asyncio.Event()
        """Set once nothing is lent in a closed pool, or nobody waits for that."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def enter(self) -> float:
        """Bind the pool to the event loop that runs here; the time by the pool's clock.

        Raises:
            StateError: none runs, or it is not the one that the pool was first used in.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            text = "a pool must be used where an event loop runs, got none"
            raise StateError(text) from None
        if self._loop is None:
            self._loop = loop
            contextvars.Context().run(self._tick, loop)
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
        self._look(now, *self.state.idle)
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
        if self.reset is None or ends:
            self.give_back(slot, broken)
        else:
            self._begin(slot, "reset", _reset(connection.ws, self.reset), self._end_reset)

    def give_back(self, slot: Slot, broken: CloseReason | None = None) -> None:
        """Decide what becomes of a connection that nobody has any more."""
        if (opened := self.open.get(slot)) is not None:
            now = self.clock()
            self._look(now, slot)
            dead = CloseReason.DEAD if opened.is_over() else None
            self.state.give_back(slot, now, broken or dead)
        self._note_lent()

    async def end(self, grace: float) -> None:
        """Wait ``grace`` seconds for what is lent, cut it, and wait until all is closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._note_lent()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self.none_lent.wait()
        self.state.cut()
        while self.work:
            await asyncio.wait(self.work.values())

    def _carry_out(self, order: Order, slot: Slot) -> None:
        if order == "read":
            self.open[slot].read()
        elif order == "dial":
            context = None if slot.borrower is None else slot.borrower.context.copy()
            self._begin(slot, "dial", self._open(slot), self._end_dial, context)
        elif slot in self.work:
            # Its end closes what it was done to.
            self.work[slot].cancel()
        else:
            self._close(slot)

    def _begin(
        self,
        slot: Slot,
        name: str,
        work: Coroutine[Any, Any, None],
        end: End,
        context: contextvars.Context | None = None,
    ) -> None:
        # What becomes of it is seen to by a callback: one cancelled before it starts cannot.
        task = self.work[slot] = asyncio.create_task(
            work, name=f"agent_conn.pool.{name}", context=context or contextvars.Context()
        )
        task.add_done_callback(partial(self._note_end, slot, name, end))

    def _note_end(self, slot: Slot, name: str, end: End, task: asyncio.Task[None]) -> None:
        del self.work[slot]
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None and not task.cancelled():
            log(logging.WARNING, f"pool_{name}_failed", error=type(error).__name__)
        end(slot, error)

    async def _open(self, slot: Slot) -> None:
        connection: object = self.dial()
        if not isinstance(connection, InferenceConnection):
            raise ConfigurationError(
                f"dial() must return an InferenceConnection, got {told(connection)}"
            )
        await connection
        self.open[slot] = PooledConnection(
            connection,
            self.keepalive,
            on_message=lambda: self.counts.update(dropped=1),
            on_end=lambda: self.state.discard(slot, self.clock()),
        )

    def _end_dial(self, slot: Slot, error: BaseException | None) -> None:
        if slot.state is SlotState.CLOSING:
            self._close(slot)
        elif slot in self.open:
            self._note_open(slot, self.clock())
        else:
            self.counts["dials_failed"] += 1
            if not isinstance(error, Exception):
                error = DialFailed("the dial was cancelled", retryable=False)
            self.state.dial_failed(slot, error, self.clock())

    def _note_open(self, slot: Slot, now: float) -> None:
        self.counts["dialed"] += 1
        slot.level = self.open[slot].connection.attribution
        slot.expires_at = now + self.max_age
        if self.max_age < inf:
            slot.renew_at = slot.expires_at - self.max_age * AGE_SPREAD * (1 + self.jitter()) / 2
        self._look(now, slot, *self.state.idle)
        self.state.dialed(slot, now)

    def _end_reset(self, slot: Slot, error: BaseException | None) -> None:
        if slot.state is SlotState.CLOSING:
            self._close(slot)
        else:
            self.give_back(slot, None if error is None else CloseReason.RESET)

    def _close(self, slot: Slot) -> None:
        if (opened := self.open.get(slot)) is not None:
            self._begin(slot, "close", opened.aclose(), self._end_close)
        else:
            self.state.closed_one(slot, self.clock())

    def _end_close(self, slot: Slot, _: BaseException | None) -> None:
        self.lent.pop(self.open.pop(slot).connection, None)
        self.state.closed_one(slot, self.clock())

    def _look(self, now: float, *slots: Slot, spread: float = 0.0) -> None:
        """See whose identity has changed, as far as no borrower's context tells."""
        for slot in slots if self.rotate is not None else ():
            stale = not contextvars.Context().run(self.is_current, slot)
            if stale and not slot.stale:
                slot.renew_at = min(slot.renew_at, now + spread * self.jitter())
            slot.stale = stale

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(TICK, self._tick, loop)
        now = self.clock()
        self._look(now, *self.state.idle, spread=max(0.0, (self.rotate or 0.0) - TICK))
        self.state.tidy(now)

    def _note_lent(self) -> None:
        if self.state.closed and not self.state.states()[SlotState.BUSY]:
            self.none_lent.set()


async def _reset(ws: aiohttp.ClientWebSocketResponse, reset: Reset) -> None:
    # An eager task begins before it is noted, by which a reset that closes the pool is known.
    await asyncio.sleep(0)
    async with asyncio.timeout(RESET_TIMEOUT):
        await reset(ws)
