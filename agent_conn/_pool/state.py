"""Which connection a pool lends, opens or closes next: decided here, done elsewhere."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Generic, TypeVar

from agent_conn._identity import AttributionLevel
from agent_conn.errors import AttributionUnavailable

M = TypeVar("M")

RENEWAL_PAUSE = 5.0
"""Seconds before a connection whose replacement could not be had is to be replaced again."""


class SlotState(StrEnum):
    """What a slot of the pool is taken up by."""

    DIALING = "dialing"
    IDLE = "idle"
    BUSY = "busy"
    CLOSING = "closing"
    GONE = "gone"


class CloseReason(StrEnum):
    """Why a pool closed one of its connections."""

    DEAD = "dead"
    """The peer was gone, or had sent more than an idle connection takes."""
    FAILED = "failed"
    """Its borrower raised, was cancelled, or said that it cannot be used again."""
    PROBE = "probe"
    """The probe failed on it."""
    AGED = "aged"
    UNUSED = "unused"
    """Idle for longer than ``max_idle``."""
    REPLACED = "replaced"
    """One that is younger or better attributed took its place."""
    EVICTED = "evicted"
    """It did not serve those who waited for its slot."""
    INVALIDATED = "invalidated"
    CLOSED = "closed"
    """The pool was closed."""


# Members looked up once: on 3.11 each look-up costs as much as a call.
_DIALING, _IDLE, _BUSY = SlotState.DIALING, SlotState.IDLE, SlotState.BUSY
_CLOSING, _GONE = SlotState.CLOSING, SlotState.GONE
_NEXT = {
    _DIALING: frozenset({_IDLE, _BUSY, _CLOSING, _GONE}),
    _IDLE: frozenset({_BUSY, _CLOSING}),
    _BUSY: frozenset({_IDLE, _CLOSING}),
    _CLOSING: frozenset({_GONE}),
    _GONE: frozenset[SlotState](),
}


class Order(StrEnum):
    """What the pool is to do with a slot."""

    DIAL = "dial"
    CANCEL = "cancel the dial"
    CLOSE = "close"


@dataclass(slots=True, eq=False)
class Slot(Generic[M]):
    """One connection that is owned, from the start of its dial to the end of its close."""

    state: SlotState = SlotState.DIALING
    member: M | None = None
    loan: object = None
    """What it is lent on, None between loans."""
    level: AttributionLevel = AttributionLevel.NONE
    proven: bool = False
    """Whether it was idle or lent before, so that it has to be looked at."""
    renew_at: float = inf
    expires_at: float = inf
    idle_since: float = 0.0
    lendable_until: float = inf
    """When an idle one has been idle for too long or is too old."""
    look_at: float = 0.0
    """When to look for a better identity again on its return."""
    rests_until: float = 0.0
    """Before that, a better identity is no reason to replace it: the last try was in vain."""
    doomed: CloseReason | None = None
    """Why it is closed once its dial has ended or its borrower has returned it."""
    replaces: Slot[M] | None = None
    replaced_by: Slot[M] | None = None


@dataclass(slots=True, eq=False)
class Waiter(Generic[M]):
    """Somebody who waits for a connection of at least ``minimum``.

    ``answer`` returns False where nobody waits any more.
    """

    minimum: AttributionLevel
    answer: Callable[[Slot[M] | Exception], bool]


class Ledger(Generic[M]):
    """The slots of one pool and those who wait for one. Times are of one clock, in seconds.

    Every method leaves it so that nobody waits whom an idle connection, or a dial into a
    free slot, could serve.
    """

    def __init__(self, max_size: int, max_idle: float | None) -> None:
        self.max_size = max_size
        self.closed: bool = False
        self.owed: int = 0
        """Dials that nobody waits for and that are still to be begun."""
        self.slots: set[Slot[M]] = set()
        self.idle: list[Slot[M]] = []
        """The newest last."""
        self.waiters: deque[Waiter[M]] = deque()
        self.closes: Counter[CloseReason] = Counter()
        self.orders: list[tuple[Order, Slot[M]]] = []
        """What is to be done now, for the pool to take and do."""
        self._max_idle = inf if max_idle is None else max_idle

    def take(self, minimum: AttributionLevel, now: float) -> Slot[M] | None:
        """Lend the newest idle connection that fits, if there is one."""
        for slot in reversed(self.idle):
            if slot.level >= minimum and now < slot.lendable_until:
                if slot is self.idle[-1]:
                    self.idle.pop()
                else:
                    self.idle.remove(slot)
                self._move(slot, _BUSY)
                return slot
        return None

    def put_back(self, slot: Slot[M], now: float) -> bool:
        """Take back a sound connection that nobody waits for; False: ``give_back`` decides."""
        if self.waiters or slot.doomed is not None or now >= slot.expires_at:
            return False
        slot.idle_since = now
        self._shelve(slot)
        return True

    def states(self) -> Counter[SlotState]:
        """How many slots are in each state. Any thread may ask: each slot counts once."""
        # A copy: the set itself may change under a thread that goes through it.
        return Counter(slot.state for slot in tuple(self.slots))

    def give_back(
        self,
        slot: Slot[M],
        now: float,
        *,
        broken: CloseReason | None = None,
        upgradable: bool = False,
    ) -> None:
        """A borrower returns its connection; ``broken`` is why it cannot be lent again."""
        if slot.state is not _BUSY:
            return
        reason = broken or slot.doomed
        if reason is None and now >= slot.expires_at:
            reason = CloseReason.AGED
        elif reason is None and upgradable and self.waiters:
            # Lent to the next at once, again and again, it would never be replaced.
            reason = CloseReason.REPLACED
        if reason is not None:
            self._close(slot, reason)
            self._settle()
            return
        slot.proven = True
        slot.idle_since = now
        self._offer(slot)
        if upgradable:
            self.replace(slot)
        if self.waiters:
            self._settle()

    def wait(self, waiter: Waiter[M], *, first: bool = False) -> None:
        """Queue somebody, at the head where ``first``."""
        (self.waiters.appendleft if first else self.waiters.append)(waiter)
        self._settle()

    def leave(self, waiter: Waiter[M]) -> None:
        """Somebody waits no longer. A dial that was begun goes on."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)

    def warm(self, count: int) -> None:
        """Have at least ``count`` connections, lent ones and dials under way included."""
        owned = len(self.slots) - self._leaving()
        self.owed = max(self.owed, count - owned)
        self._settle()

    def dialed(self, slot: Slot[M], member: M, level: AttributionLevel, now: float) -> None:
        """A dial has ended well. ``slot`` already has its ``renew_at`` and ``expires_at``."""
        slot.member, slot.level = member, level
        old, slot.replaces = slot.replaces, None
        slot.idle_since = now
        if old is not None:
            old.replaced_by = None
            # A connection that nobody used stays so when it is replaced.
            slot.idle_since = old.idle_since
            if level <= old.level:
                slot.rests_until = old.rests_until = now + RENEWAL_PAUSE
        if slot.doomed is not None:
            self._close(slot, slot.doomed)
        elif old is not None and level < old.level:
            old.renew_at = now + RENEWAL_PAUSE
            self._close(slot, CloseReason.REPLACED)
        else:
            self._retire(old)
            self._serve_fresh(slot)
        self._settle()

    def dial_failed(self, slot: Slot[M], error: Exception | None, now: float) -> bool:
        """A dial has ended badly (None: given up). Returns whether somebody was told why."""
        self._move(slot, _GONE)
        old = slot.replaces
        if old is not None:
            old.replaced_by = None
            old.renew_at = old.rests_until = now + RENEWAL_PAUSE
        told = False
        if error is not None and slot.doomed is None:
            # Where as many dials as waiters are left, each of them still has one.
            while not told and len(self.waiters) > self._dials():
                told = self.waiters.popleft().answer(error)
        self._settle()
        return told

    def discard(self, slot: Slot[M], reason: CloseReason) -> None:
        """Close a connection that is idle; does nothing to any other."""
        if slot.state is _IDLE:
            self._close(slot, reason)
            self._settle()

    def closed_one(self, slot: Slot[M]) -> None:
        """A close has ended."""
        self._move(slot, _GONE)
        self._settle()

    def replace(self, slot: Slot[M]) -> None:
        """Open another for an idle connection; make before break where a slot is free."""
        if slot.replaced_by is not None or slot.state is not _IDLE:
            return
        if len(self.slots) < self.max_size:
            slot.replaced_by = self._dial()
            slot.replaced_by.replaces = slot
        else:
            self.owed += 1
            self.discard(slot, CloseReason.REPLACED)

    def tidy(self, now: float) -> None:
        """Close what has been idle for too long or is too old, and replace what is due."""
        for slot in tuple(self.idle):
            if now >= slot.lendable_until:
                aged = now >= slot.expires_at
                self._close(slot, CloseReason.AGED if aged else CloseReason.UNUSED)
            elif now >= slot.renew_at:
                self.replace(slot)
        self._settle()

    def next_due(self) -> float:
        """When ``tidy`` next has something to do."""
        return min(map(self.due, self.idle), default=inf)

    def due(self, slot: Slot[M]) -> float:
        """When ``tidy`` next has something to do for one that is idle."""
        renewal = slot.renew_at if slot.replaced_by is None else inf
        return min(renewal, slot.lendable_until)

    def invalidate(self) -> None:
        """Lend none of what is owned again: idle ones close, lent ones do on their return.

        Dials under way are given up, and begun again.
        """
        again = max(self.owed, self._dials() - len(self.waiters))
        self._doom(CloseReason.INVALIDATED)
        self.owed = again
        self._settle()

    def shut(self) -> list[Waiter[M]]:
        """Lend nothing any more. Returns those who waited."""
        self.closed = True
        self.owed = 0
        self._doom(CloseReason.CLOSED)
        waiters = list(self.waiters)
        self.waiters.clear()
        return waiters

    def cut(self) -> None:
        """Close what is still lent."""
        for slot in tuple(self.slots):
            if slot.state is _BUSY:
                self._close(slot, CloseReason.CLOSED)

    def _doom(self, reason: CloseReason) -> None:
        for slot in tuple(self.slots):
            if slot.state is _IDLE:
                self._close(slot, reason)
            elif slot.state in (_DIALING, _BUSY) and slot.doomed is None:
                slot.doomed = reason
                if slot.state is _DIALING:
                    self.orders.append((Order.CANCEL, slot))

    def _offer(self, slot: Slot[M]) -> None:
        for waiter in tuple(self.waiters):
            if slot.level >= waiter.minimum:
                self.waiters.remove(waiter)
                if waiter.answer(slot):
                    if slot.state is not _BUSY:
                        self._move(slot, _BUSY)
                    return
        self._shelve(slot)

    def _shelve(self, slot: Slot[M]) -> None:
        slot.proven = True
        until = slot.idle_since + self._max_idle
        slot.lendable_until = until if until < slot.expires_at else slot.expires_at  # noqa: FURB136  (a call costs more)
        self._move(slot, _IDLE)
        self.idle.append(slot)

    def _serve_fresh(self, slot: Slot[M]) -> None:
        """Offer a fresh connection; tell the first in line if there cannot be a better one."""
        head = self.waiters[0] if self.waiters else None
        self._offer(slot)
        if head is None or head not in self.waiters or len(self.waiters) <= self._dials():
            return
        self.waiters.remove(head)
        text = f"attribution is {slot.level.name}, {head.minimum.name} was asked for"
        head.answer(AttributionUnavailable(text, retryable=True))

    def _retire(self, old: Slot[M] | None) -> None:
        if old is None:
            return
        if old.state is _IDLE:
            self._close(old, CloseReason.REPLACED)
        elif old.state is _BUSY and old.doomed is None:
            old.doomed = CloseReason.REPLACED

    def _settle(self) -> None:
        if self.closed:
            return
        lacking = len(self.waiters) - self._dials()
        while lacking > 0 and len(self.slots) < self.max_size:
            self._dial()
            lacking -= 1
        leaving = self._leaving()
        while lacking > leaving and self.idle:
            # Nobody who waits could use it, or it would not be idle.
            self._close(self.idle[0], CloseReason.EVICTED)
            leaving += 1
        while self.owed and len(self.slots) < self.max_size:
            self.owed -= 1
            self._dial()

    def _dial(self) -> Slot[M]:
        slot: Slot[M] = Slot()
        self.slots.add(slot)
        self.orders.append((Order.DIAL, slot))
        return slot

    def _dials(self) -> int:
        return sum(slot.state is _DIALING and slot.doomed is None for slot in self.slots)

    def _leaving(self) -> int:
        """Slots that will be free without anything more being done."""
        return sum(
            slot.state is _CLOSING or (slot.state is _DIALING and slot.doomed is not None)
            for slot in self.slots
        )

    def _close(self, slot: Slot[M], reason: CloseReason) -> None:
        if slot.state is _IDLE:
            self.idle.remove(slot)
        self._move(slot, _CLOSING)
        self.closes[reason] += 1
        self.orders.append((Order.CLOSE, slot))

    def _move(self, slot: Slot[M], state: SlotState) -> None:
        """The one place that sets a slot's state."""
        if state not in _NEXT[slot.state]:
            raise AssertionError(f"a slot that is {slot.state} cannot be {state}")
        slot.state = state
        if state is _GONE:
            self.slots.discard(slot)
