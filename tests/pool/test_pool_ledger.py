from __future__ import annotations

from agent_conn import AttributionLevel, CloseReason
from agent_conn._pool.state import Ledger, Order, Slot, SlotState, Waiter

ROOM = AttributionLevel.ROOM


def test_a_dial_that_ended_in_the_turn_of_an_invalidation_is_not_lent() -> None:
    answers: list[Slot[str] | Exception] = []

    def answer(given: Slot[str] | Exception) -> bool:
        answers.append(given)
        return True

    ledger: Ledger[str] = Ledger(2, None)
    ledger.wait(Waiter(ROOM, answer))
    (_, old), *_ = ledger.orders
    ledger.invalidate()
    ledger.dialed(old, "old", ROOM, 1.0)
    assert answers == []
    assert old.state is SlotState.CLOSING
    assert ledger.closes == {CloseReason.INVALIDATED: 1}
    new = next(slot for order, slot in ledger.orders if order is Order.DIAL and slot is not old)
    ledger.dialed(new, "new", ROOM, 2.0)
    assert answers == [new]


def test_a_dial_that_ended_in_the_turn_of_the_close_is_closed() -> None:
    ledger: Ledger[str] = Ledger(1, None)
    ledger.warm(1)
    ((_, slot),) = ledger.orders
    assert ledger.shut() == []
    ledger.dialed(slot, "late", ROOM, 1.0)
    assert ledger.orders[-1] == (Order.CLOSE, slot)
    ledger.closed_one(slot)
    assert not ledger.slots
