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
    """Whether what was sent as the identity holds, asked in ``context``."""
    wake: Callable[[], object]
    """Called once ``answer`` is there."""
    answer: Slot | Exception | None = None


class Borrowers(deque[Borrower]):
    """Those who wait, in the order in which they came."""

    def serve(self, slot: Slot) -> bool:
        """Lend ``slot`` to the first whom it fits; whether there was one.

        What was dialled for somebody counts as current for them.
        """
        for borrower in tuple(self):
            if slot.level >= borrower.minimum and (
                slot.borrower is borrower or borrower.is_current(slot)
            ):
                self.tell(borrower, slot)
                return True
        return False

    def tell(self, borrower: Borrower, answer: Slot | Exception) -> None:
        """End the wait of one who still waits."""
        if self.leave(borrower):
            borrower.answer = answer
            borrower.wake()

    def leave(self, borrower: Borrower) -> bool:
        """Take one out of the queue; False where it was not in it."""
        if waits := borrower in self:
            self.remove(borrower)
        return waits
