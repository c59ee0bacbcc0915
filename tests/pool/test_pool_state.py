"""The pool's decisions, told the time and what happened, without a loop or a socket."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from math import inf

import pytest

from agent_conn import (
    AttributionLevel,
    AttributionUnavailable,
    CloseReason,
    DialFailed,
    HandshakeRejected,
    StateError,
)
from agent_conn._pool.borrowers import Borrower
from agent_conn._pool.slot import NEXT_STATES, Slot, SlotState
from agent_conn._pool.state import RENEWAL_PAUSE, SHORT_LIFE, WAITED_FOR, Order, PoolState

pytestmark = pytest.mark.quick

NONE, ROOM, AGENT = AttributionLevel.NONE, AttributionLevel.ROOM, AttributionLevel.AGENT
PASSING = DialFailed("refused", retryable=True)
FINAL = HandshakeRejected("401", status=401, retryable=False)


class Table:
    """A pool's state, the orders that it gave, and hands to do what they ask for."""

    def __init__(
        self, max_size: int = 4, *, min_idle: int = 0, max_idle: float = inf, chance: float = 1.0
    ) -> None:
        self.now = 100.0
        self.orders: list[tuple[Order, Slot]] = []
        self.state = PoolState(
            lambda order, slot: self.orders.append((order, slot)),
            lambda: chance,
            max_size=max_size,
            min_idle=min_idle,
            max_idle=max_idle,
        )

    def ordered(self, order: Order) -> list[Slot]:
        return [slot for given, slot in self.orders if given == order]

    def dials(self) -> list[Slot]:
        return [slot for slot in self.ordered("dial") if slot.state is SlotState.DIALING]

    def borrow(
        self, minimum: AttributionLevel = NONE, fits: Callable[[Slot], bool] = lambda _: True
    ) -> list[Slot | Exception]:
        """Ask for a connection; the answer comes into the list that is returned."""
        if slot := self.state.take(minimum, fits, self.now):
            return [slot]
        return self.wait(minimum, fits)[1]

    def wait(
        self,
        minimum: AttributionLevel = NONE,
        fits: Callable[[Slot], bool] = lambda _: True,
        *,
        first: bool = False,
    ) -> tuple[Borrower, list[Slot | Exception]]:
        """Somebody who waits, and the list that the answer comes into."""
        answers: list[Slot | Exception] = []

        def wake() -> None:
            assert borrower.answer is not None
            answers.append(borrower.answer)

        borrower = Borrower(minimum, copy_context(), fits, wake)
        self.state.wait(borrower, self.now, first=first)
        return borrower, answers

    def land(self, slot: Slot, level: AttributionLevel = AGENT) -> Slot:
        slot.level = level
        self.state.dialed(slot, self.now)
        return slot

    def open_idle(self, count: int = 1, level: AttributionLevel = AGENT) -> list[Slot]:
        self.state.prewarm(len(self.state.slots) + count, self.now)
        return [self.land(slot, level) for slot in self.dials()]

    def end_closes(self) -> None:
        for slot in self.ordered("close"):
            if slot.state is SlotState.CLOSING:
                self.state.closed_one(slot, self.now)


@pytest.mark.parametrize("state", SlotState)
@pytest.mark.parametrize("to", SlotState)
def test_a_slot_moves_by_the_table_alone(state: SlotState, to: SlotState) -> None:
    slot = Slot(state=state)
    if to in NEXT_STATES[state].split():
        slot.move(to)
        assert slot.state is to
    else:
        with pytest.raises(AssertionError, match=f"{state} cannot be {to}"):
            slot.move(to)


@pytest.mark.parametrize(
    ("broken", "doomed", "expires_at", "reason"),
    [
        (None, None, inf, None),
        (CloseReason.DEAD, None, inf, CloseReason.DEAD),
        (CloseReason.FAILED, CloseReason.INVALIDATED, inf, CloseReason.FAILED),
        (None, CloseReason.INVALIDATED, inf, CloseReason.INVALIDATED),
        (None, None, 100.0, CloseReason.AGED),
        (None, None, 100.1, None),
    ],
)
def test_what_becomes_of_one_that_is_returned(
    broken: CloseReason | None,
    doomed: CloseReason | None,
    expires_at: float,
    reason: CloseReason | None,
) -> None:
    table = Table()
    (slot,) = table.open_idle()
    assert table.borrow() == [slot]
    slot.doomed, slot.expires_at = doomed, expires_at
    table.state.give_back(slot, table.now, broken)
    if reason is None:
        assert table.state.idle == [slot]
        assert table.ordered("read") == [slot, slot]
    else:
        assert table.ordered("close") == [slot]
        assert table.state.closes == {reason: 1}
    # What is returned a second time is nobody's any more.
    table.state.give_back(slot, table.now, CloseReason.PROBE)
    assert CloseReason.PROBE not in table.state.closes


@pytest.mark.parametrize(
    ("level", "minimum", "expires_at", "idle_since", "current", "lent"),
    [
        (AGENT, AGENT, inf, 100.0, True, True),
        (ROOM, AGENT, inf, 100.0, True, False),
        (AGENT, ROOM, inf, 100.0, False, False),
        (AGENT, NONE, 100.0, 100.0, True, False),
        (AGENT, NONE, inf, 40.0, True, False),
        (AGENT, NONE, inf, 40.1, True, True),
    ],
)
def test_which_idle_one_is_lent(
    level: AttributionLevel,
    minimum: AttributionLevel,
    expires_at: float,
    idle_since: float,
    current: bool,
    lent: bool,
) -> None:
    table = Table(max_idle=60.0)
    (slot,) = table.open_idle(level=level)
    slot.expires_at, slot.idle_since = expires_at, idle_since
    assert (table.state.take(minimum, lambda _: current, table.now) is slot) is lent


def test_the_newest_that_fits_is_lent() -> None:
    table = Table()
    old, middle, new = table.open_idle(3)
    assert table.borrow(fits=lambda slot: slot is not new) == [middle]
    assert table.borrow() == [new]
    assert table.borrow() == [old]


def test_each_who_waits_has_a_dial_and_who_came_first_is_served_first() -> None:
    table = Table(max_size=2)
    answers = [table.borrow() for _ in range(3)]
    first, second = table.dials()
    table.land(second)
    assert answers == [[second], [], []]
    table.land(first)
    assert answers == [[second], [first], []]
    table.state.give_back(second, table.now)
    assert answers == [[second], [first], [second]]
    assert table.dials() == []


def test_who_was_given_a_dead_one_is_served_first() -> None:
    table = Table(max_size=1)
    (held,) = table.open_idle()
    table.borrow()
    later = table.borrow()
    _, again = table.wait(first=True)
    table.state.give_back(held, table.now)
    assert (again, later) == ([held], [])


def test_one_who_waits_no_more_is_passed_over() -> None:
    table = Table(max_size=1)
    (held,) = table.open_idle()
    table.borrow()
    gone, answers = table.wait()
    later = table.borrow()
    table.state.borrowers.leave(gone)
    table.state.give_back(held, table.now)
    assert (answers, later) == ([], [held])


def test_a_connection_is_lent_to_the_first_for_whom_it_is_current() -> None:
    table = Table(max_size=1)
    (held,) = table.open_idle()
    table.borrow()
    other, own = table.borrow(fits=lambda _: False), table.borrow()
    table.state.give_back(held, table.now)
    assert (other, own) == ([], [held])


def test_what_was_dialled_for_somebody_counts_as_current_for_them() -> None:
    table = Table()
    answers = table.borrow(fits=lambda _: False)
    (dial,) = table.dials()
    assert answers == []
    table.land(dial)
    assert answers == [dial]


def test_in_a_full_pool_the_oldest_idle_one_makes_place_for_whom_it_does_not_fit() -> None:
    table = Table(max_size=2)
    old, _new = table.open_idle(2)
    answers = table.borrow(fits=lambda _: False)
    assert table.ordered("close") == [old]
    assert table.state.closes == {CloseReason.EVICTED: 1}
    table.end_closes()
    (dial,) = table.dials()
    table.land(dial)
    assert answers == [dial]


def test_no_more_are_evicted_than_there_are_who_wait() -> None:
    table = Table(max_size=3)
    table.open_idle(3)
    table.borrow(fits=lambda _: False)
    table.state.tidy(table.now)
    assert table.state.closes == {CloseReason.EVICTED: 1}
    table.borrow(fits=lambda _: False)
    assert table.state.closes == {CloseReason.EVICTED: 2}


def test_too_low_a_level_is_told_to_whom_it_was_dialled_for_and_serves_another() -> None:
    table = Table()
    wants_agent, wants_any = table.borrow(AGENT), table.borrow()
    first, _ = table.dials()
    table.land(first, ROOM)
    (error,) = wants_agent
    assert isinstance(error, AttributionUnavailable)
    assert "ROOM" in str(error)
    assert "AGENT" in str(error)
    assert wants_any == [first]


def test_a_final_failure_is_told_to_whom_it_was_dialled_for_alone() -> None:
    table = Table()
    answers = [table.borrow() for _ in range(3)]
    _, second, _ = table.dials()
    table.state.dial_failed(second, FINAL, table.now)
    assert answers == [[], [FINAL], []]
    assert len(table.dials()) == 2


def test_several_who_wait_are_not_told_of_what_may_pass_and_are_dialled_for_one_by_one() -> None:
    table = Table(chance=1.0)
    answers = [table.borrow() for _ in range(3)]
    for slot in table.dials():
        table.state.dial_failed(slot, PASSING, table.now)
    assert (answers, table.dials()) == ([[], [], []], [])
    assert table.state.last_failure is PASSING
    # By the policy's delays, all random parts being whole: 1, 2, 4 seconds.
    for waited in (1.0, 2.0, WAITED_FOR, WAITED_FOR, WAITED_FOR):
        table.now += waited - 0.01
        table.state.tidy(table.now)
        assert table.dials() == []
        table.now += 0.01
        table.state.tidy(table.now)
        (probing,) = table.dials()
        table.state.dial_failed(probing, PASSING, table.now)
    table.now += WAITED_FOR
    table.state.tidy(table.now)
    (probing,) = table.dials()
    table.land(probing)
    assert answers == [[probing], [], []]
    # The outage is over for all.
    assert len(table.dials()) == 2
    assert table.state.last_failure is None


def test_a_dial_that_hangs_in_an_outage_holds_no_other_up() -> None:
    table = Table()
    table.borrow()
    table.borrow()
    hanging, failing = table.dials()
    table.state.dial_failed(failing, PASSING, table.now)
    table.now += 1.0
    table.state.tidy(table.now)
    assert hanging in table.dials()
    assert len(table.dials()) == 2


@pytest.mark.parametrize(("asked", "waits"), [(30.0, 33.0), (600.0, 66.0)])
def test_retry_after_is_a_lower_bound_with_a_cap(asked: float, waits: float) -> None:
    table = Table(chance=1.0)
    table.borrow()
    (slot,) = table.dials()
    error = HandshakeRejected("503", status=503, retryable=True, retry_after=asked)
    table.state.dial_failed(slot, error, table.now)
    table.now += waits - 0.01
    table.state.tidy(table.now)
    assert table.dials() == []
    table.now += 0.02
    table.state.tidy(table.now)
    assert len(table.dials()) == 1


def test_prewarm_counts_what_is_owned_and_is_done_once_as_many_are_open() -> None:
    table = Table()
    table.state.prewarm(2, table.now)
    table.state.prewarm(2, table.now)
    first, second = (table.land(slot) for slot in table.dials())
    assert table.state.idle == [first, second]
    table.now += SHORT_LIFE
    table.state.discard(first, table.now)
    assert table.dials() == []


def test_a_prewarm_goes_on_after_what_may_pass_and_not_after_what_is_final() -> None:
    table = Table(chance=0.0)
    table.state.prewarm(1, table.now)
    for error, dials in ((PASSING, 1), (PASSING, 1), (FINAL, 0)):
        table.state.tidy(table.now)
        (slot,) = table.dials()
        table.state.dial_failed(slot, error, table.now)
        assert len(table.dials()) == dials


def test_who_asks_while_it_is_prewarmed_has_that_dial() -> None:
    table = Table()
    table.state.prewarm(1, table.now)
    answers = table.borrow()
    (dial,) = table.dials()
    table.land(dial)
    assert answers == [dial]


def test_as_many_as_min_idle_are_idle_or_on_their_way() -> None:
    table = Table(max_size=4, min_idle=2)
    table.state.tidy(table.now)
    first, second = (table.land(slot) for slot in table.dials())
    assert table.borrow() == [second]
    (third,) = table.dials()
    table.now += SHORT_LIFE
    table.state.discard(first, table.now)
    assert len(table.dials()) == 2
    table.land(third)
    table.state.give_back(second, table.now)
    # More than wanted are idle once the dial under way has ended, and stay.
    assert len(table.state.idle) + len(table.dials()) == 3


def test_min_idle_leaves_room_for_no_more_than_max_size() -> None:
    table = Table(max_size=2, min_idle=2)
    table.state.tidy(table.now)
    for slot in table.dials():
        table.land(slot)
    table.borrow()
    assert table.dials() == []


def test_those_that_end_at_once_are_refilled_ever_more_slowly() -> None:
    table = Table(min_idle=1)
    table.state.tidy(table.now)
    waits: list[float] = []
    for _ in range(7):
        (slot,) = table.dials()
        table.land(slot)
        began = table.now
        table.state.discard(slot, table.now)
        table.end_closes()
        while not table.dials():
            table.now += 0.5
            table.state.tidy(table.now)
        waits.append(table.now - began)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]
    # One that lasted is replaced at once.
    (slot,) = table.dials()
    table.land(slot)
    table.now += SHORT_LIFE
    table.state.tidy(table.now)
    table.state.discard(slot, table.now)
    assert len(table.dials()) == 1


def test_those_that_end_at_once_hold_up_nobody_who_waits() -> None:
    table = Table(min_idle=1)
    table.state.tidy(table.now)
    (slot,) = table.dials()
    table.land(slot)
    table.state.discard(slot, table.now)
    assert table.dials() == []
    table.borrow()
    assert len(table.dials()) == 1


def test_what_is_unused_is_closed_down_to_min_idle() -> None:
    table = Table(min_idle=1, max_idle=60.0)
    table.state.tidy(table.now)
    table.open_idle(3)
    table.now += 60.0
    table.state.tidy(table.now)
    assert len(table.state.idle) == 1
    assert set(table.state.closes) == {CloseReason.UNUSED}
    # It is not too old to be lent.
    assert len(table.borrow()) == 1


@pytest.mark.parametrize("expires", [False, True])
def test_what_is_due_is_replaced_with_a_slot_free_and_what_is_too_old_is_closed(
    expires: bool,
) -> None:
    table = Table(max_size=2)
    (old,) = table.open_idle()
    old.renew_at = table.now + 10.0
    old.expires_at = table.now + (10.0 if expires else 20.0)
    table.now += 10.0
    table.state.tidy(table.now)
    if expires:
        assert table.state.closes == {CloseReason.AGED: 1}
        return
    (new,) = table.dials()
    assert table.state.idle == [old]
    table.now += 1.0
    table.land(new)
    assert table.state.idle == [new]
    assert table.state.closes == {CloseReason.REPLACED: 1}
    # One that nobody used stays so.
    assert new.idle_since == 100.0


def test_in_a_full_pool_what_is_due_is_closed_first() -> None:
    table = Table(max_size=1)
    (old,) = table.open_idle()
    old.renew_at = table.now
    table.state.tidy(table.now)
    assert table.ordered("close") == [old]
    assert table.dials() == []
    table.end_closes()
    assert len(table.dials()) == 1


def test_a_dial_that_somebody_waits_for_takes_the_place_of_what_is_due() -> None:
    table = Table()
    (old,) = table.open_idle()
    answers = table.borrow(fits=lambda slot: slot is not old)
    (dial,) = table.dials()
    assert not dial.replaces
    old.stale, old.renew_at = True, table.now
    others = table.borrow(fits=lambda slot: slot is not old)
    _, dial = table.dials()
    table.land(dial)
    assert table.ordered("close") == [old]
    assert answers + others == [dial]


@pytest.mark.parametrize("fails", [True, False])
def test_what_could_not_be_replaced_is_tried_again_after_a_pause(fails: bool) -> None:
    table = Table(chance=0.0)
    (old,) = table.open_idle(level=AGENT)
    old.renew_at = table.now
    table.state.tidy(table.now)
    (new,) = table.dials()
    if fails:
        table.state.dial_failed(new, PASSING, table.now)
    else:
        # In no request's context less was known than in the one of the old.
        table.land(new, ROOM)
        assert table.ordered("close") == [new]
    assert table.state.idle == [old]
    table.now += RENEWAL_PAUSE - 0.01
    table.state.tidy(table.now)
    assert table.dials() == []
    table.now += 0.02
    table.state.tidy(table.now)
    assert len(table.dials()) == 1


def test_a_successor_of_a_lower_level_is_kept_where_the_old_one_is_out_of_date() -> None:
    table = Table()
    (old,) = table.open_idle(level=AGENT)
    old.stale, old.renew_at = True, table.now
    table.state.tidy(table.now)
    (new,) = table.dials()
    table.land(new, ROOM)
    assert table.state.idle == [new]
    assert table.ordered("close") == [old]


def test_one_that_is_out_of_date_as_it_opens_is_replaced_after_a_pause() -> None:
    table = Table()
    table.state.prewarm(1, table.now)
    (slot,) = table.dials()
    slot.stale = True
    table.land(slot)
    assert slot.renew_at == table.now + RENEWAL_PAUSE
    assert table.dials() == []


def test_invalidated_the_idle_close_the_lent_do_on_their_return_and_dials_begin_anew() -> None:
    table = Table()
    lent, idle = table.open_idle(2)
    assert table.borrow(fits=lambda slot: slot is lent) == [lent]
    table.state.prewarm(3, table.now)
    (dial,) = table.dials()
    table.state.invalidate(table.now)
    assert set(table.ordered("close")) == {idle, dial}
    (again,) = table.dials()
    assert again is not dial
    table.state.give_back(lent, table.now)
    # A dial that is given up has opened nothing to be closed.
    assert table.state.closes == {CloseReason.INVALIDATED: 2}


def test_closed_it_tells_those_who_wait_and_gives_up_and_closes_all_but_the_lent() -> None:
    table = Table(min_idle=1)
    lent, idle = table.open_idle(2)
    table.borrow(fits=lambda slot: slot is lent)
    answers = table.borrow(fits=lambda _: False)
    (dial,) = table.dials()
    closed = StateError("closed")
    table.state.shut(closed)
    assert answers == [closed]
    assert set(table.ordered("close")) == {idle, dial}
    table.state.cut()
    assert table.ordered("close")[2:] == [lent]
    table.end_closes()
    assert not table.state.slots
    table.state.tidy(table.now)
    assert table.dials() == []


def test_one_that_was_idle_or_lent_before_has_to_be_looked_at() -> None:
    table = Table()
    (idle,) = table.open_idle()
    assert idle.used
    table.borrow()
    answers = table.borrow()
    (dial,) = table.dials()
    table.land(dial)
    assert answers == [dial]
    assert not dial.used
    later = table.borrow()
    table.state.give_back(dial, table.now)
    assert later == [dial]
    assert dial.used


def test_the_time_that_one_is_idle_begins_at_its_return() -> None:
    table = Table(max_idle=60.0)
    (slot,) = table.open_idle()
    table.borrow()
    table.now += 59.0
    table.state.give_back(slot, table.now)
    table.now += 59.0
    table.state.tidy(table.now)
    assert table.state.idle == [slot]


def test_one_that_is_due_as_it_is_returned_is_replaced_at_once() -> None:
    table = Table()
    (slot,) = table.open_idle()
    table.borrow()
    slot.renew_at = table.now
    assert table.dials() == []
    table.state.give_back(slot, table.now)
    assert [dial.replaces for dial in table.dials()] == [True]


def test_what_was_dialled_for_somebody_counts_as_current_only_as_it_opens() -> None:
    table = Table(max_size=2)
    first, second = table.borrow(), table.borrow(fits=lambda _: False)
    own, seconds = table.dials()
    table.land(seconds, NONE)
    assert (first, second) == ([seconds], [])
    # The identity may have become another since.
    table.state.give_back(seconds, table.now)
    assert second == []
    assert own in table.dials()


def test_a_dial_that_nobody_waits_for_any_more_begins_anew_when_invalidated() -> None:
    table = Table()
    (held,) = table.open_idle()
    table.borrow()
    table.state.borrowers.leave(table.wait()[0])
    (dial,) = table.dials()
    table.state.invalidate(table.now)
    (again,) = (slot for slot in table.dials() if slot is not dial)
    table.land(again)
    assert table.state.idle == [again]
    assert held.doomed is CloseReason.INVALIDATED


def test_what_replaces_another_is_not_counted_beside_it() -> None:
    table = Table(min_idle=2)
    table.state.tidy(table.now)
    first, second = (table.land(slot) for slot in table.dials())
    table.now += SHORT_LIFE
    first.renew_at = table.now
    table.state.tidy(table.now)
    assert [dial.replaces for dial in table.dials()] == [True]
    table.state.discard(second, table.now)
    assert sorted(dial.replaces for dial in table.dials()) == [False, True]


def test_what_somebody_waits_for_is_not_counted_as_idle_to_come() -> None:
    table = Table(min_idle=1)
    table.state.tidy(table.now)
    (idle,) = (table.land(slot) for slot in table.dials())
    table.borrow(fits=lambda _: False)
    assert len(table.dials()) == 1
    assert table.borrow() == [idle]
    assert len(table.dials()) == 2


def test_who_waits_while_their_dial_is_invalidated_has_the_next_one() -> None:
    table = Table()
    answers = table.borrow(AGENT, fits=lambda _: False)
    (old,) = table.dials()
    table.state.invalidate(table.now)
    (new,) = table.dials()
    assert new is not old
    table.land(new)
    assert answers == [new]
    table.end_closes()
    assert table.state.slots == {new}


def test_after_a_final_failure_what_nobody_waits_for_is_dialled_with_pauses() -> None:
    table = Table(min_idle=1, chance=1.0)
    table.state.tidy(table.now)
    (slot,) = table.dials()
    table.state.dial_failed(slot, FINAL, table.now)
    assert table.dials() == []
    # Whoever asks is told at once.
    answers = table.borrow()
    (slot,) = table.dials()
    table.state.dial_failed(slot, FINAL, table.now)
    assert answers == [FINAL]
    table.now += 1.0
    table.state.tidy(table.now)
    assert len(table.dials()) == 1


def test_the_first_reason_to_close_one_is_the_one_that_is_told() -> None:
    table = Table()
    (lent,) = table.open_idle()
    table.borrow()
    table.state.invalidate(table.now)
    table.state.shut(StateError("closed"))
    table.state.give_back(lent, table.now)
    assert table.state.closes == {CloseReason.INVALIDATED: 1}


def test_once_the_last_that_was_dialled_has_lasted_the_rest_is_refilled() -> None:
    table = Table(min_idle=2)
    table.state.tidy(table.now)
    for seconds in (0.0, 1.0, 2.0):
        table.now += seconds
        table.state.tidy(table.now)
        for slot in table.dials():
            table.state.discard(table.land(slot), table.now)
        table.end_closes()
    table.now += 4.0
    table.state.tidy(table.now)
    (slot,) = table.dials()
    table.land(slot)
    # The next would be dialled eight seconds after this one, had this one ended too.
    table.now += SHORT_LIFE - 0.01
    table.state.tidy(table.now)
    assert table.dials() == []
    table.now += 0.02
    table.state.tidy(table.now)
    assert len(table.dials()) == 1
