"""The queue of those who wait for a connection of a pool: who came first is served first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass

from agent_conn._identity import AttributionLevel
from agent_conn._pool.slot import Slot


@dataclass(slots=True, eq=False)
class Borrower:
    """Somebody who waits for a connection of at least ``minimum``."""

    minimum: AttributionLevel
    context: Context
    """A dial for it runs in a copy of this."""
    is_current: Callable[[Slot], bool]
    """Whether what was sent as the identity holds, asked in the borrower's own context."""
    answer: Callable[[Slot | Exception], bool]
    """Ends the wait; False where nobody waits any more."""
    dial: Slot | None = None
    """The dial under way for it, whose identity counts as current."""


class Borrowers(deque[Borrower]):
    """Those who wait, in the order in which they came."""

    def serve(self, slot: Slot) -> bool:
        """Lend ``slot`` to the first whom it fits; whether there was one."""
        for borrower in tuple(self):
            current = slot is borrower.dial or borrower.is_current(slot)
            if slot.level >= borrower.minimum and current and self.tell(borrower, slot):
                return True
        return False

    def tell(self, borrower: Borrower | None, answer: Slot | Exception) -> bool:
        """End one wait; False where it had ended."""
        return borrower is not None and self.leave(borrower) and borrower.answer(answer)

    def leave(self, borrower: Borrower) -> bool:
        """Take one out of the queue; False where it was not in it."""
        if waits := borrower in self:
            self.remove(borrower)
        return waits

    def without_dial(self, dials: int) -> list[Borrower]:
        """Those for whom none of ``dials`` under way was begun, and none is left over."""
        lacking = [each for each in self if each.dial is None or not each.dial.is_coming()]
        return lacking[dials - (len(self) - len(lacking)) :]
