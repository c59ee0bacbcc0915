"""Lends a pool's connections and takes them back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from math import inf

from agent_conn._connection import InferenceConnection
from agent_conn._identity import AttributionLevel
from agent_conn._pool.idle import WarmConnection
from agent_conn._pool.lease import Lease, Probe
from agent_conn._pool.maintenance import Keeper, is_improvable, is_upgradable
from agent_conn._pool.state import CloseReason, Ledger, Slot, SlotState, Waiter
from agent_conn.errors import PoolTimeout, StateError

logger: logging.Logger = logging.getLogger("agent_conn")

LOOK_PAUSE = 0.05
"""Seconds between two looks for a better identity at the return of one connection."""

_Slot = Slot[WarmConnection]
_Answer = _Slot | Exception


class Desk:
    """The way from the ledger to the borrowers and back; ``rotates`` as for the pool."""

    def __init__(
        self,
        ledger: Ledger[WarmConnection],
        keeper: Keeper,
        *,
        rotates: bool,
        clock: Callable[[], float],
    ) -> None:
        self.acquired: int = 0
        self.fresh: int = 0
        """Those of them that were lent for the first time."""
        self.timeouts: int = 0
        self.early_dropped: int = 0
        self._ledger = ledger
        self._keeper = keeper
        self._look_pause = LOOK_PAUSE if rotates else inf
        self._clock = clock

    def hit(self, lease: Lease) -> InferenceConnection | None:
        """Lend at once what needs no second look."""
        slot = lease.slot = self._ledger.take(lease.minimum, self._clock())
        if slot is None or lease.probe is not None:
            return None
        warm = slot.member
        if warm is None:
            return None
        warm.lent = True
        if not warm.is_quiet() and not warm.look():
            return None
        self.acquired += 1
        slot.loan = lease
        return warm.connection

    async def borrow(self, lease: Lease) -> InferenceConnection:
        """Lend, whatever it takes; the errors are those of ``ConnectionPool.acquire``."""
        deadline = asyncio.timeout(lease.timeout)
        try:
            async with deadline:
                return await self._find(lease)
        except TimeoutError:
            if not deadline.expired():
                raise
        self.timeouts += 1
        ledger = self._ledger
        raise PoolTimeout(
            f"no connection within {lease.timeout:g} s: {ledger.states()[SlotState.BUSY]} in use, "
            f"{ledger.states()[SlotState.DIALING]} being opened, at most {ledger.max_size} in all"
        )

    async def _find(self, lease: Lease) -> InferenceConnection:
        slot, waited = lease.slot, False
        while True:
            if slot is None:
                slot = await self._next(lease.minimum, first=waited)
            warm = slot.member
            if warm is not None and await self._accept(slot, warm, lease.probe):
                break
            # Whoever was given a dead one has waited already, and is next in line.
            slot, waited = None, True
        self.acquired += 1
        self.fresh += not slot.proven
        lease.slot, slot.loan = slot, lease
        return warm.connection

    async def _accept(self, slot: _Slot, warm: WarmConnection, probe: Probe | None) -> bool:
        """Whether it can be lent; one that cannot is given back."""
        accepted, warm.lent = False, True
        broken = None if probe is None else CloseReason.FAILED
        try:
            broken = await _examine(slot, warm, probe)
            accepted = broken is None and slot.doomed is None
        finally:
            if not accepted:
                self._return_slot(slot, warm, broken)
        return accepted

    async def _next(self, minimum: AttributionLevel, *, first: bool) -> _Slot:
        self._check_open()
        slot = self._ledger.take(minimum, self._clock())
        return slot or await self._wait(minimum, first=first)

    async def _wait(self, minimum: AttributionLevel, *, first: bool) -> _Slot:
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        waiter: Waiter[WarmConnection] = Waiter(minimum, partial(_answer, future))
        self._ledger.wait(waiter, first=first)
        self._keeper.carry_out()
        try:
            answer = await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._ledger.leave(waiter)
            elif isinstance(slot := future.result(), Slot) and slot.member is not None:
                # It was served in the very turn in which it was cancelled.
                self._return_slot(slot, slot.member, None)
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer

    def give_back(self, lease: object, slot: _Slot, broken: CloseReason | None) -> None:
        """Take a connection back from ``lease``, once."""
        warm = slot.member
        if slot.loan is not lease or warm is None:
            return
        slot.loan, warm.lent = None, False
        now = self._clock()
        if early := warm.reader.early:
            self.early_dropped += len(early)
            early.clear()
        usual = broken is None and now < slot.look_at and not warm.ws.closed
        if usual and self._ledger.put_back(slot, now):
            warm.settle()
            at = self._keeper.tick_at
            if at > slot.look_at or at > slot.renew_at or at > slot.lendable_until:
                self._keeper.see_to_idle(now)
        else:
            self._return_slot(slot, warm, broken)

    def _return_slot(self, slot: _Slot, warm: WarmConnection, broken: CloseReason | None) -> None:
        now, warm.lent = self._clock(), False
        if broken is None and warm.ws.closed:
            broken = CloseReason.DEAD
        upgradable = False
        if now >= slot.look_at:
            slot.look_at = now + self._look_pause if is_improvable(slot) else inf
            upgradable = self._look_pause < inf and is_upgradable(slot, now)
        self._ledger.give_back(slot, now, broken=broken, upgradable=upgradable)
        self._keeper.note_return(now)

    def _check_open(self) -> None:
        if self._ledger.closed:
            raise StateError("the pool is closed")


async def _examine(slot: _Slot, warm: WarmConnection, probe: Probe | None) -> CloseReason | None:
    """Why a connection cannot be lent, or None."""
    if slot.proven and not await warm.is_alive():
        return CloseReason.DEAD
    if probe is None or slot.doomed is not None:
        return None
    try:
        await probe(warm.ws)
    except Exception as error:
        if not slot.proven:
            raise
        logger.info("pool_probe_failed", extra={"error": type(error).__name__})
        return CloseReason.PROBE
    return None


def _answer(future: asyncio.Future[_Answer], answer: _Answer) -> bool:
    if future.done():
        return False
    # An error too is a result here: as an exception, one never retrieved would be reported.
    future.set_result(answer)
    return True
