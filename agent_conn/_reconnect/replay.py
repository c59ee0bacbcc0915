"""Resend on the next connection the items that the last one did not acknowledge."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Self, TypeVar

from agent_conn._checks import check_count
from agent_conn._log import log
from agent_conn._options import check_hooks, check_seconds
from agent_conn._reconnect.checks import check_number
from agent_conn.errors import StateError

T = TypeVar("T")

SHORT = 5.0
"""A loss is short where less than this passed between the first and the last item sent."""
SHORT_LOSSES = 3
"""Short losses in a row that an item may be in flight at."""
_TOLERANCE = 1e-3
"""Seconds by which an acknowledgement may fall short: peers round to milliseconds."""
_BURST = 0.1
"""Seconds that a paced sender may make up for, since timers come late."""
_MAX_RUNS = 1000
"""Stretches of items without payload that are told apart; older ones are put together."""


class GiveUpReason(StrEnum):
    """Why an item will not be sent (again)."""

    SECONDS = "more seconds than the buffer holds"
    BYTES = "more bytes than the buffer holds"
    ITEMS = "more items than the buffer holds"
    POISON = "in flight at three short losses in a row"
    CLOSED = "sent, and not acknowledged when the buffer was closed"


GiveUpHook = Callable[[float, GiveUpReason, int], object]
"""Told the seconds that are given up, why, and of how many items."""


@dataclass(frozen=True, slots=True)
class ReplayStatistics:
    """What became of the items of a buffer. All but ``*_seconds`` and ``held_bytes`` count items.

    ``put`` is always the sum of ``acknowledged``, ``replayed``, ``given_up`` of every
    reason, ``unsent`` and ``pending``.
    """

    put: int
    acknowledged: int
    """Acknowledged on the connection that they were first sent on."""
    replayed: int
    """Acknowledged after they had been sent again."""
    given_up: dict[GiveUpReason, int]
    unsent: int
    """Never sent when the buffer was closed."""
    pending: int
    """Not yet in any of these states."""
    held_seconds: float
    held_bytes: int
    repeated_seconds: float
    """At the start of the present connection: what an earlier one was sent too."""


@dataclass(slots=True, eq=False)
class _Item(Generic[T]):
    payload: T
    seconds: float
    size: int
    start: float
    """Where it starts in the whole call, in seconds put."""
    sent: bool = False
    again: bool = False
    until: float = 0.0
    """Where it ends on this connection, in seconds sent."""
    short_losses: int = 0


@dataclass(slots=True, eq=False)
class _Run:
    """Sent items that can no longer be replayed, and so hold no payload."""

    until: float
    seconds: float
    again: int
    """How many of them had been sent before; they come first."""
    first: int
    reason: GiveUpReason

    @property
    def items(self) -> int:
        return self.again + self.first

    def join(self, later: _Run) -> None:
        self.until, self.reason = later.until, later.reason
        self.seconds += later.seconds
        self.again += later.again
        self.first += later.first


class ReplayBuffer(Generic[T]):
    """A queue to a writer that keeps what was sent until it is acknowledged.

    One task puts items, another iterates and sends them, in the order in which they were put.
    Call ``begin`` with each new connection, before you iterate for it, and ``acknowledge`` for
    what the peer has taken.

    At its bound the buffer drops the oldest item. A sent one can then not be replayed: it is
    given up if its connection ends before it is acknowledged. One that was not sent is given up
    at once. What was in flight at three short losses in a row is given up too, since it may be
    what ends the peer.

    Args:
        max_seconds: the most audio to keep, in seconds. The default outlasts a peer that
            freezes, as a heartbeat of 20 s finds it, and the redial.
        max_bytes: the most to keep, in bytes.
        max_items: the most items to keep, whatever their size.
        pace: send at most so many times real time, by the items' seconds; None: no limit.
        on_give_up: called with the seconds, the reason and the number of items that are given
            up; what it raises is logged.

    Raises:
        ConfigurationError: an argument is wrong, named in the message.
    """

    def __init__(
        self,
        *,
        max_seconds: float = 45.0,
        max_bytes: int = 4 * 1024 * 1024,
        max_items: int = 10_000,
        pace: float | None = None,
        on_give_up: GiveUpHook | None = None,
    ) -> None:
        self._max_seconds = check_seconds("max_seconds", max_seconds)
        self._max_bytes = check_count("max_bytes", max_bytes)
        self._max_items = check_count("max_items", max_items)
        # Slower than real time, the buffer would never be empty.
        self._pace = None if pace is None else check_number("pace", pace, least=1.0)
        check_hooks(on_give_up=on_give_up)
        self._on_give_up = on_give_up
        self._let_go: deque[_Run] = deque()
        self._sent: deque[_Item[T]] = deque()
        self._queue: deque[_Item[T]] = deque()
        self._put_seconds = 0.0
        self._sent_seconds = 0.0
        self._repeated_seconds = 0.0
        self._first_taken_at: float | None = None
        self._last_taken_at = self._next_at = -math.inf
        self._held_bytes = self._let_go_items = 0
        self._put = self._acknowledged = self._replayed = self._unsent = 0
        self._given_up: Counter[GiveUpReason] = Counter()
        self._readable = asyncio.Event()
        self._freed = asyncio.Event()
        self._ended = False

    def __repr__(self) -> str:
        return f"<ReplayBuffer {self.statistics.pending} items pending>"

    @property
    def statistics(self) -> ReplayStatistics:
        """What became of everything that was put."""
        return ReplayStatistics(
            put=self._put,
            acknowledged=self._acknowledged,
            replayed=self._replayed,
            given_up={reason: self._given_up[reason] for reason in GiveUpReason},
            unsent=self._unsent,
            pending=self._let_go_items + len(self._sent) + len(self._queue),
            held_seconds=self._put_seconds - self._start(),
            held_bytes=self._held_bytes,
            repeated_seconds=self._repeated_seconds,
        )

    def put_nowait(self, item: T, *, size: int, seconds: float = 0.0) -> None:
        """Add ``item``, of ``size`` bytes and ``seconds`` of audio, letting go of the oldest.

        Raises:
            ConfigurationError: it alone is more than the buffer may hold.
            StateError: the buffer has ended.
        """
        self._check(seconds, size)
        while (reason := self._excess(seconds, size)) is not None:
            self._let_go_of_oldest(reason)
        self._put += 1
        self._queue.append(_Item(item, seconds, size, self._put_seconds))
        self._put_seconds += seconds
        self._held_bytes += size
        self._readable.set()

    async def put(self, item: T, *, size: int, seconds: float = 0.0) -> None:
        """Add ``item`` once there is room without letting go of any.

        For what need not be sent in real time, to a peer that acknowledges as it goes: one
        that waits for the end before it acknowledges would wait for ever.

        Raises:
            ConfigurationError: it alone is more than the buffer may hold.
            StateError: the buffer has ended.
        """
        self._check(seconds, size)
        while not self._ended and self._excess(seconds, size) is not None:
            self._freed.clear()
            await self._freed.wait()
        self.put_nowait(item, size=size, seconds=seconds)

    def end(self) -> None:
        """Take nothing more. Iterating ends once everything is sent."""
        self._ended = True
        self._readable.set()
        self._freed.set()

    def begin(self) -> float:
        """Start on a new connection: what was sent and not acknowledged comes out again.

        Returns where in the whole call this connection's audio starts, in seconds: add it to a
        time that the peer tells. ``statistics.repeated_seconds`` of it were sent before.
        """
        while self._let_go:
            run = self._let_go.popleft()
            self._let_go_items -= run.items
            self._give_up(run.seconds, run.reason, run.items)
        self._give_up_poison()
        for item in self._sent:
            item.again = True
        self._queue.extendleft(reversed(self._sent))
        self._sent.clear()
        self._repeated_seconds = sum(item.seconds for item in self._queue if item.sent)
        self._sent_seconds = 0.0
        self._first_taken_at = None
        self._next_at = -math.inf
        if self._queue:
            self._readable.set()
        return self._start()

    def acknowledge(self, until: float) -> int:
        """The peer has taken the first ``until`` seconds sent on this connection.

        Returns how many items that covers which were not acknowledged before.

        Raises:
            ConfigurationError: ``until`` is not a finite number.
        """
        reached = check_number("until", until, least=-math.inf) + _TOLERANCE
        count = 0
        while self._let_go and self._let_go[0].until <= reached:
            run = self._let_go.popleft()
            self._let_go_items -= run.items
            self._replayed += run.again
            self._acknowledged += run.first
            count += run.items
        while not self._let_go and self._sent and self._sent[0].until <= reached:
            self._acknowledge_first()
            count += 1
        return count

    def acknowledge_items(self, count: int) -> None:
        """The peer has taken the ``count`` oldest items that were sent on this connection.

        Raises:
            ConfigurationError: so many are not waiting for it.
        """
        check_count("count", count, least=0, most=self._let_go_items + len(self._sent))
        for _ in range(count):
            if self._let_go:
                self._acknowledge_one_of(self._let_go[0])
            else:
                self._acknowledge_first()

    def close(self) -> None:
        """End, and count what is left: unsent, or given up. Idempotent."""
        self.end()
        self.begin()
        while self._queue:
            item = self._queue.popleft()
            self._free(item)
            if item.sent:
                self._give_up(item.seconds, GiveUpReason.CLOSED)
            else:
                self._unsent += 1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        now = asyncio.get_running_loop().time
        while not self._queue or self._next_at - now() > _TOLERANCE:
            if self._queue:
                await asyncio.sleep(self._next_at - now())
            elif self._ended:
                raise StopAsyncIteration
            else:
                self._readable.clear()
                await self._readable.wait()
        return self._take(now())

    def _take(self, now: float) -> T:
        # Taken is as good as sent: a send that is cancelled may have been written.
        item = self._queue.popleft()
        item.sent = True
        self._sent_seconds += item.seconds
        item.until = self._sent_seconds
        self._sent.append(item)
        if self._first_taken_at is None:
            self._first_taken_at = now
        self._last_taken_at = now
        if self._pace is not None:
            self._next_at = max(self._next_at, now - _BURST) + item.seconds / self._pace
        return item.payload

    def _start(self) -> float:
        """Where the oldest item that is held starts in the whole call."""
        oldest = self._sent or self._queue
        return oldest[0].start if oldest else self._put_seconds

    def _check(self, seconds: float, size: int) -> None:
        if self._ended:
            raise StateError("a buffer that has ended takes nothing more")
        check_count("size", size, least=0, most=self._max_bytes)
        check_number("seconds", seconds, most=self._max_seconds)

    def _excess(self, seconds: float, size: int) -> GiveUpReason | None:
        held = self._put_seconds - self._start()
        # The tolerance is for the sum of many fractions.
        if held + seconds > self._max_seconds + _TOLERANCE:
            return GiveUpReason.SECONDS
        if self._held_bytes + size > self._max_bytes:
            return GiveUpReason.BYTES
        full = len(self._sent) + len(self._queue) >= self._max_items
        return GiveUpReason.ITEMS if full else None

    def _let_go_of_oldest(self, reason: GiveUpReason) -> None:
        if not self._sent:
            item = self._queue.popleft()
            self._free(item)
            self._give_up(item.seconds, reason)
            return
        item = self._sent.popleft()
        self._free(item)
        run = _Run(item.until, item.seconds, int(item.again), int(not item.again), reason)
        self._let_go.append(run)
        self._let_go_items += 1
        if len(self._let_go) > _MAX_RUNS:
            oldest = self._let_go.popleft()
            oldest.join(self._let_go.popleft())
            self._let_go.appendleft(oldest)

    def _give_up_poison(self) -> None:
        first = self._first_taken_at
        if first is not None and self._last_taken_at - first >= SHORT:
            for item in (*self._sent, *self._queue):
                item.short_losses = 0
            return
        for item in self._sent:
            item.short_losses += 1
        # Those that were sent first were in flight at every loss that later ones were.
        while self._sent and self._sent[0].short_losses >= SHORT_LOSSES:
            item = self._sent.popleft()
            self._free(item)
            self._give_up(item.seconds, GiveUpReason.POISON)

    def _acknowledge_one_of(self, run: _Run) -> None:
        run.seconds -= run.seconds / run.items
        if run.again:
            run.again -= 1
            self._replayed += 1
        else:
            run.first -= 1
            self._acknowledged += 1
        self._let_go_items -= 1
        if not run.items:
            self._let_go.popleft()

    def _acknowledge_first(self) -> None:
        item = self._sent.popleft()
        self._free(item)
        if item.again:
            self._replayed += 1
        else:
            self._acknowledged += 1

    def _free(self, item: _Item[T]) -> None:
        self._held_bytes -= item.size
        self._freed.set()

    def _give_up(self, seconds: float, reason: GiveUpReason, items: int = 1) -> None:
        if not self._given_up[reason]:
            log(logging.WARNING, "replay_gives_up", reason=reason.value, items=items)
        self._given_up[reason] += items
        if self._on_give_up is None:
            return
        try:
            self._on_give_up(seconds, reason, items)
        except Exception as error:
            log(logging.WARNING, "give_up_hook_failed", error=type(error).__name__)
