"""Does what the ledger decides: opens, reads, replaces and closes a pool's connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from math import inf

from agent_conn._connection import InferenceConnection
from agent_conn._identity import AttributionLevel
from agent_conn._pool.idle import WarmConnection
from agent_conn._pool.state import CloseReason, Ledger, Order, Slot, SlotState
from agent_conn.errors import ConfigurationError, DialFailed

logger: logging.Logger = logging.getLogger("agent_conn")

SWEEP_EVERY = 1.0
"""Seconds between two looks for idle connections that ended without a word from the peer, such
as by a heartbeat that aiohttp missed."""
AGE_SPREAD = 0.1
"""Share of ``max_age`` by which a renewal comes early: from half of it to all of it, so that
what was opened together is not renewed together."""

_Slot = Slot[WarmConnection]


class Keeper:
    """Every task and timer of one pool. ``max_age`` and ``rotate`` are in seconds."""

    def __init__(
        self,
        ledger: Ledger[WarmConnection],
        dial: Callable[[], InferenceConnection],
        *,
        max_age: float | None,
        rotate: float | None,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self.dialed: int = 0
        self.dials_failed: int = 0
        self.slots: dict[InferenceConnection, _Slot] = {}
        """The slot of every open connection."""
        self._ledger = ledger
        self._dial = dial
        self._max_age = max_age
        self._rotate = rotate
        self._clock = clock
        self._jitter = jitter
        self._dials: dict[_Slot, asyncio.Task[InferenceConnection]] = {}
        self._closes: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.tick_at: float = inf
        """When the timer is due."""
        self._look_at = 0.0
        self._grace_over = asyncio.Event()

    def carry_out(self) -> None:
        """Begin what the ledger has ordered."""
        orders = self._ledger.orders
        while orders:
            pending = orders[:]
            orders.clear()
            for order, slot in pending:
                if order is Order.DIAL:
                    self._begin_dial(slot)
                elif order is Order.CANCEL:
                    self._dials[slot].cancel()
                elif slot.member is not None:
                    self._begin_close(slot, slot.member)

    def note_return(self, now: float) -> None:
        """A connection was returned: carry out what follows, and see to it that it is read."""
        if self._ledger.orders:
            self.carry_out()
        if self._ledger.closed:
            if not self._ledger.states()[SlotState.BUSY]:
                self._grace_over.set()
        else:
            self.see_to_idle(now)

    def end_grace(self) -> None:
        """Wait no longer for what is lent."""
        self._grace_over.set()

    async def end(self, grace: float) -> None:
        """Wait ``grace`` seconds for what is lent, cut it, and wait until all is closed."""
        if self._timer is not None:
            self._timer.cancel()
        self.carry_out()
        if self._ledger.states()[SlotState.BUSY]:
            try:
                async with asyncio.timeout(grace):
                    await self._grace_over.wait()
            except TimeoutError:
                pass
        self._ledger.cut()
        self.carry_out()
        while self._dials or self._closes:
            await asyncio.wait({*self._dials.values(), *self._closes})
            # Their callbacks, which may close what was just opened, run in the next turn.
            await asyncio.sleep(0)

    def _begin_dial(self, slot: _Slot) -> None:
        task = asyncio.create_task(_open(self._dial), name="agent_conn.pool.dial")
        self._dials[slot] = task
        # A callback and not the task's own end: a task cancelled before its start has none.
        task.add_done_callback(partial(self._end_dial, slot))

    def _end_dial(self, slot: _Slot, task: asyncio.Task[InferenceConnection]) -> None:
        del self._dials[slot]
        now = self._clock()
        error: BaseException | None = None
        if not task.cancelled():
            error = task.exception()
        elif slot.doomed is None:
            error = DialFailed("the dial was cancelled", retryable=True)
        if not task.cancelled() and error is None:
            self._note_dialed(slot, task.result(), now)
        else:
            told = self._ledger.dial_failed(slot, _as_exception(error), now)
            if error is not None:
                self.dials_failed += 1
                if not told:
                    logger.warning("pool_dial_failed", extra={"error": type(error).__name__})
        self.carry_out()
        self.see_to_idle(now)

    def _note_dialed(self, slot: _Slot, connection: InferenceConnection, now: float) -> None:
        self.dialed += 1
        if self._max_age is not None:
            slot.expires_at = now + self._max_age
            slot.renew_at = slot.expires_at - self._max_age * AGE_SPREAD * (1 + self._jitter()) / 2
        warm = WarmConnection(connection, partial(self._drop_dead, slot))
        self.slots[connection] = slot
        self._ledger.dialed(slot, warm, connection.attribution, now)

    def _drop_dead(self, slot: _Slot) -> None:
        self._ledger.discard(slot, CloseReason.DEAD)
        self.carry_out()

    def _begin_close(self, slot: _Slot, warm: WarmConnection) -> None:
        task = asyncio.create_task(warm.aclose(), name="agent_conn.pool.close")
        self._closes.add(task)
        task.add_done_callback(partial(self._end_close, slot, warm.connection))

    def _end_close(
        self, slot: _Slot, connection: InferenceConnection, task: asyncio.Task[None]
    ) -> None:
        self._closes.discard(task)
        self.slots.pop(connection, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("pool_close_failed", extra={"error": type(error).__name__})
        self._ledger.closed_one(slot)
        self.carry_out()

    def see_to_idle(self, now: float) -> None:
        """Have idle connections read, and the timer armed for what they need next."""
        for slot in tuple(self._ledger.idle):
            if slot.member is not None:
                slot.member.settle()
        if not self._ledger.idle:
            return
        due = min(self._ledger.next_due(), now + SWEEP_EVERY)
        if self._rotate is not None and any(map(is_improvable, self._ledger.idle)):
            due = min(due, max(now, self._look_at))
        if due < self.tick_at and not self._ledger.closed:
            self._arm(due, now)

    def _arm(self, at: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, at - now), self._tick)
        self.tick_at = at

    def _tick(self) -> None:
        self._timer, self.tick_at = None, inf
        now = self._clock()
        ledger = self._ledger
        for slot in tuple(ledger.idle):
            if slot.member is not None and not slot.member.is_quiet():
                slot.member.settle()
        due = inf
        if self._rotate is not None and any(map(is_improvable, ledger.idle)):
            # Twice in each period: one half for the look, one for the spread.
            if now >= self._look_at:
                self._look_at = now + self._rotate / 2
                self._mark_upgradable(now, self._rotate / 2)
            due = self._look_at
        ledger.tidy(now)
        self.carry_out()
        due = min(due, ledger.next_due(), now + SWEEP_EVERY)
        if ledger.idle and not ledger.closed:
            self._arm(due, now)

    def _mark_upgradable(self, now: float, spread: float) -> None:
        for slot in self._ledger.idle:
            if slot.replaced_by is None and is_upgradable(slot, now):
                slot.renew_at = min(slot.renew_at, now + spread * self._jitter())


def is_upgradable(slot: _Slot, now: float) -> bool:
    """Whether a new connection would be better attributed, as far as is known."""
    if not is_improvable(slot) or now < slot.rests_until or slot.member is None:
        return False
    return slot.member.connection.upgradable


def is_improvable(slot: _Slot) -> bool:
    """Whether there are better attributed connections than this one."""
    return slot.level < AttributionLevel.AGENT


async def _open(dial: Callable[[], InferenceConnection]) -> InferenceConnection:
    connection: object = dial()
    if not isinstance(connection, InferenceConnection):
        raise ConfigurationError("dial gave no InferenceConnection")
    await connection
    return connection


def _as_exception(error: BaseException | None) -> Exception | None:
    return error if isinstance(error, Exception) else None
