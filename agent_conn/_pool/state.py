"""Which connection a pool lends, opens, replaces or closes next. Pure: told the time, no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Literal

from agent_conn._identity import AttributionLevel
from agent_conn._pool.backoff import Backoff
from agent_conn._pool.borrowers import Borrower, Borrowers
from agent_conn._pool.slot import CloseReason, Slot, SlotState
from agent_conn._reconnect.retry import classify_failure
from agent_conn.errors import AgentConnError, AttributionUnavailable

RENEWAL_PAUSE = 5.0
"""Seconds before a connection whose replacement could not be had is to be replaced again."""
SHORT_LIFE = 2.0
"""Seconds within which the end of an idle connection counts as a failure to open one."""
WAITED_FOR = 4.0
"""Seconds from one dial to the next at most, while they fail and somebody waits."""

Order = Literal["dial", "read", "close"]
"""What is to be done with a slot, at once. To close one being dialled is to give it up."""


class PoolState:
    """The slots of one pool and those who wait for one. Times are of one clock, in seconds.

    Invariant: no borrower remains whom an idle connection, or a dial that is possible now,
    could serve. ``carry_out`` is called where something is decided.
    """

    def __init__(
        self,
        carry_out: Callable[[Order, Slot], None],
        random: Callable[[], float],
        *,
        max_size: int,
        min_idle: int = 0,
        max_idle: float = inf,
    ) -> None:
        self.max_size = max_size
        self.closed: bool = False
        self.slots: set[Slot] = set()
        self.idle: list[Slot] = []
        """The newest last."""
        self.borrowers: Borrowers = Borrowers()
        self.closes: Counter[CloseReason] = Counter()
        self.last_failure: Exception | None = None
        """Why dials are held back now."""
        self._carry_out = carry_out
        self._min_idle = min_idle
        self._max_idle = max_idle
        self._wanted = 0
        """How many connections to own, until as many are open at once."""
        self._outage = Backoff(random)
        """After dials that failed: holds every dial back."""
        self._refill = Backoff(random)
        """After what makes dials in advance pointless: holds back those nobody waits for."""

    def states(self) -> Counter[SlotState]:
        """How many slots are in each state. Any thread may ask: each slot counts once."""
        # A copy: the set itself may change under a thread that goes through it.
        return Counter(slot.state for slot in tuple(self.slots))

    def take(
        self, minimum: AttributionLevel, is_current: Callable[[Slot], bool], now: float
    ) -> Slot | None:
        """Lend the newest idle connection that fits, if there is one."""
        for slot in self.idle[::-1]:
            if slot.level >= minimum and not self._overdue(slot, now) and is_current(slot):
                self._move(slot, SlotState.BUSY)
                if self._min_idle:
                    self.tidy(now)
                return slot
        return None

    def wait(self, borrower: Borrower, now: float, *, first: bool = False) -> None:
        """Queue somebody whom no idle connection serves, at the head where ``first``."""
        (self.borrowers.appendleft if first else self.borrowers.append)(borrower)
        self.tidy(now)

    def give_back(self, slot: Slot, now: float, broken: CloseReason | None = None) -> None:
        """A borrower returns its connection; ``broken`` is why it cannot be lent again."""
        if slot.state is SlotState.BUSY:
            slot.used, slot.idle_since = True, now
            if reason := broken or slot.doomed or self._overdue(slot, now):
                self._close(slot, reason)
            else:
                self._offer(slot)
            self.tidy(now)

    def prewarm(self, count: int, now: float) -> None:
        """Have at least ``count`` connections, lent ones and dials under way included."""
        self._wanted = max(self._wanted, count)
        self.tidy(now)

    def dialed(self, slot: Slot, now: float) -> None:
        """A dial has ended well. ``slot`` tells what it opened."""
        self._outage.reset()
        self.last_failure = None
        slot.opened_at = slot.idle_since = now
        if slot.stale:
            slot.renew_at = now + RENEWAL_PAUSE
        if not (slot.replaces and self._is_vain(slot, now)):
            self._offer(slot)
        borrower, slot.borrower = slot.borrower, None
        if borrower is not None and slot.level < borrower.minimum:
            text = f"attribution is {slot.level.name}, {borrower.minimum.name} was asked for"
            self.borrowers.tell(borrower, AttributionUnavailable(text, retryable=True))
        self.tidy(now)

    def dial_failed(self, slot: Slot, error: Exception, now: float) -> None:
        """A dial that was not given up has ended badly."""
        self._move(slot, SlotState.CLOSING)
        self.slots.discard(slot)
        if slot.replaces and (due := self._due(now)):
            due[0].renew_at = now + RENEWAL_PAUSE
        if isinstance(error, AgentConnError) and classify_failure(error):
            self._outage.failed(now, error)
            self.last_failure = error.with_traceback(None)
        elif slot.borrower is None:
            self._wanted = 0
            self._refill.failed(now)
        else:
            self.borrowers.tell(slot.borrower, error)
        self.tidy(now)

    def discard(self, slot: Slot, now: float) -> None:
        """An idle connection has ended; does nothing to any other."""
        if slot.state is SlotState.IDLE:
            if now - slot.opened_at < SHORT_LIFE:
                self._refill.failed(now)
            self._close(slot, CloseReason.DEAD)
            self.tidy(now)

    def closed_one(self, slot: Slot, now: float) -> None:
        """A close has ended, or a dial that was given up."""
        self.slots.discard(slot)
        self.tidy(now)

    def invalidate(self, now: float) -> None:
        """Lend none of what is owned again, and begin anew what is being dialled."""
        states = self.states()
        if spare := max(0, states[SlotState.DIALING] - len(self.borrowers)):
            self._wanted = max(self._wanted, spare + states[SlotState.BUSY])
        self._doom(CloseReason.INVALIDATED)
        self.tidy(now)

    def shut(self, error: Exception) -> None:
        """Lend nothing any more; who waits is told ``error``."""
        self.closed = True
        for borrower in tuple(self.borrowers):
            self.borrowers.tell(borrower, error)
        self._doom(CloseReason.CLOSED)

    def cut(self) -> None:
        """Close what is still lent."""
        for slot in tuple(self.slots):
            if slot.state is SlotState.BUSY:
                self._close(slot, CloseReason.CLOSED)

    def tidy(self, now: float) -> None:
        """Close what is too old, and begin the dials that are wanted and possible now."""
        if self.closed:
            return
        for slot in tuple(self.idle):
            if reason := self._overdue(slot, now):
                self._close(slot, reason)
        states = self.states()
        if states[SlotState.IDLE] + states[SlotState.BUSY] >= self._wanted:
            self._wanted = 0
        self._dial_for_borrowers(now)
        while self._may_refill(now):
            if len(self.slots) < self.max_size and self._lacks_some():
                self._dial(now)
            elif len(due := self._due(now)) <= self._replacing():
                return
            elif len(self.slots) < self.max_size:
                self._dial(now, replaces=True)
            else:
                # There is no slot for another beside it.
                self._wanted = self.max_size
                self._close(due[0], CloseReason.REPLACED)

    def _dial_for_borrowers(self, now: float) -> None:
        leaving = self.states()[SlotState.CLOSING]
        for borrower in self._without_dial():
            if not self._outage.allows(now, WAITED_FOR):
                return
            if len(self.slots) < self.max_size:
                self._dial(now, borrower, replaces=len(self._due(now)) > self._replacing())
            elif leaving:
                leaving -= 1
            elif self.idle:
                # Nobody who waits could use it, or it would not be idle.
                self._close(self.idle[0], CloseReason.EVICTED)

    def _without_dial(self) -> list[Borrower]:
        """Those for whom no dial under way was begun, and none is left over."""
        dials = [slot.borrower for slot in self.slots if slot.state is SlotState.DIALING]
        lacking = [borrower for borrower in self.borrowers if borrower not in dials]
        left_over = len(dials) - (len(self.borrowers) - len(lacking))
        return lacking[left_over:]

    def _lacks_some(self) -> bool:
        """Whether a dial that nobody waits for is wanted."""
        states = self.states()
        coming = states[SlotState.DIALING]
        warm = len(self.idle) + max(0, coming - self._replacing() - len(self.borrowers))
        owned = len(self.slots) - states[SlotState.CLOSING]
        return warm < self._min_idle or owned < self._wanted

    def _may_refill(self, now: float) -> bool:
        open_ones = (slot for slot in self.slots if slot.state is not SlotState.CLOSING)
        if any(self._refill.since <= s.opened_at <= now - SHORT_LIFE for s in open_ones):
            # What was dialled last has lasted.
            self._refill.reset()
        return self._outage.allows(now) and self._refill.allows(now)

    def _is_vain(self, slot: Slot, now: float) -> bool:
        """Let a fresh connection take the place of one that is due, or close it as no better."""
        due = self._due(now)
        if not due:
            return False
        old, vain = due[0], False
        if not slot.borrower:
            # A connection that nobody used stays so when it is replaced.
            slot.idle_since = old.idle_since
            # A dial in no borrower's context may know less of it than the old one told.
            vain = slot.level < old.level and not old.stale
        old.renew_at = now + RENEWAL_PAUSE
        self._close(slot if vain else old, CloseReason.REPLACED)
        return vain

    def _due(self, now: float) -> list[Slot]:
        return [slot for slot in self.idle if now >= slot.renew_at]

    def _replacing(self) -> int:
        return sum(slot.replaces and slot.state is SlotState.DIALING for slot in self.slots)

    def _dial(
        self, now: float, borrower: Borrower | None = None, *, replaces: bool = False
    ) -> None:
        slot = Slot(borrower, replaces)
        self.slots.add(slot)
        self._outage.begin(now)
        if borrower is None:
            self._refill.begin(now)
        self._carry_out("dial", slot)

    def _offer(self, slot: Slot) -> None:
        """Lend it to somebody who waits, or let it be idle."""
        if self.borrowers.serve(slot):
            self._move(slot, SlotState.BUSY)
            return
        self._move(slot, SlotState.IDLE)
        slot.used = True
        self.idle.append(slot)
        self._carry_out("read", slot)

    def _overdue(self, slot: Slot, now: float) -> CloseReason | None:
        """Why a connection is too old to be lent, or was idle for too long."""
        if now >= slot.expires_at:
            return CloseReason.AGED
        unused = now >= slot.idle_since + self._max_idle and len(self.idle) > self._min_idle
        return CloseReason.UNUSED if unused else None

    def _doom(self, reason: CloseReason) -> None:
        for slot in tuple(self.slots):
            if slot.state is SlotState.BUSY:
                slot.doomed = slot.doomed or reason
            elif slot.state is not SlotState.CLOSING:
                self._close(slot, reason)

    def _close(self, slot: Slot, reason: CloseReason) -> None:
        if slot.opened_at < inf:
            self.closes[reason] += 1
        self._move(slot, SlotState.CLOSING)
        self._carry_out("close", slot)

    def _move(self, slot: Slot, state: SlotState) -> None:
        if slot.state is SlotState.IDLE:
            self.idle.remove(slot)
        slot.move(state)
