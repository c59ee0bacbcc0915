"""Send again on the next connection what the last one was not heard to have taken."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Generic, NamedTuple, Self, TypeVar

from agent_conn._options import check_seconds
from agent_conn.errors import ConfigurationError, StateError

logger: logging.Logger = logging.getLogger("agent_conn")

T = TypeVar("T")

_TOLERANCE = 1e-3
"""Seconds by which an acknowledgement may fall short: peers round to milliseconds."""


class GiveUpReason(StrEnum):
    """Why an item will not be sent (again)."""

    SECONDS = "more seconds than the buffer holds"
    BYTES = "more bytes than the buffer holds"
    CLOSED = "sent, and not acknowledged when the buffer was closed"


@dataclass(frozen=True, slots=True)
class ReplayStatistics:
    """What became of the items of a buffer. All but ``held_*`` count items.

    ``put`` is always the sum of ``acknowledged``, ``replayed``, ``given_up`` of every
    reason, ``unsent`` and ``pending``.
    """

    put: int
    acknowledged: int
    """Acknowledged on the connection that they were first sent on."""
    replayed: int
    """Acknowledged after they had been sent again."""
    given_up: Mapping[GiveUpReason, int]
    unsent: int
    """Never sent when the buffer was closed."""
    pending: int
    """Not yet in any of these states."""
    held_seconds: float
    held_bytes: int


@dataclass(slots=True, eq=False)
class _Item(Generic[T]):
    payload: T
    seconds: float
    size: int
    sent: bool = False
    again: bool = False
    until: float = 0.0
    """Where it ends on this connection, in seconds sent."""


class _LetGo(NamedTuple):
    """A sent item that can no longer be replayed, and so holds no payload."""

    until: float
    seconds: float
    again: bool
    reason: GiveUpReason


class ReplayBuffer(Generic[T]):
    """A queue to a writer that keeps what was sent until it is acknowledged.

    One task puts, one iterates and sends; ``begin`` is called with each new connection,
    before it is iterated for that one. What acknowledges is the pump's to say. Items come
    out in the order in which they were put.

    At its bound the buffer lets go of the oldest. One that was sent is then no longer there
    to be replayed: it is given up only if its connection ends before it is acknowledged. One
    that was not sent is given up there and then.

    Args:
        max_seconds: the most audio to keep, in seconds.
        max_bytes: the most to keep, in bytes.
        on_give_up: called with each item's seconds and the reason; what it raises is logged.

    Raises:
        ConfigurationError: an argument is wrong, named in the message.
    """

    def __init__(
        self,
        *,
        max_seconds: float = 10.0,
        max_bytes: int = 4 * 1024 * 1024,
        on_give_up: Callable[[float, GiveUpReason], object] | None = None,
    ) -> None:
        if max_bytes < 1:
            raise ConfigurationError("max_bytes is not a number of bytes above 0")
        if not (on_give_up is None or callable(on_give_up)):
            raise ConfigurationError("on_give_up is not callable")
        self._max_seconds = check_seconds("max_seconds", max_seconds)
        self._max_bytes = max_bytes
        self._on_give_up = on_give_up
        self._let_go: deque[_LetGo] = deque()
        self._sent: deque[_Item[T]] = deque()
        self._queue: deque[_Item[T]] = deque()
        self._sent_seconds = 0.0
        self._held_seconds = 0.0
        self._held_bytes = 0
        self._put = self._acknowledged = self._replayed = self._unsent = 0
        self._given_up: Counter[GiveUpReason] = Counter()
        self._readable = asyncio.Event()
        self._freed = asyncio.Event()
        self._ended = False

    @property
    def statistics(self) -> ReplayStatistics:
        """What became of everything that was put."""
        return ReplayStatistics(
            put=self._put,
            acknowledged=self._acknowledged,
            replayed=self._replayed,
            given_up=MappingProxyType({reason: self._given_up[reason] for reason in GiveUpReason}),
            unsent=self._unsent,
            pending=len(self._let_go) + len(self._sent) + len(self._queue),
            held_seconds=self._held_seconds,
            held_bytes=self._held_bytes,
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
        self._held_seconds += seconds
        self._held_bytes += size
        self._queue.append(_Item(item, seconds, size))
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

        Returns its seconds, which are the first that this connection is sent.
        """
        while self._let_go:
            gone = self._let_go.popleft()
            self._give_up(gone.seconds, gone.reason)
        for item in self._sent:
            item.again = True
        self._queue.extendleft(reversed(self._sent))
        self._sent.clear()
        self._sent_seconds = 0.0
        if self._queue:
            self._readable.set()
        return sum(item.seconds for item in self._queue if item.sent)

    def acknowledge(self, until: float) -> int:
        """The peer has taken the first ``until`` seconds sent on this connection.

        Returns how many items that covers which were not acknowledged before.
        """
        count = 0
        while (first := self._first_sent()) and first.until <= until + _TOLERANCE:
            self._acknowledge_first(again=first.again)
            count += 1
        return count

    def acknowledge_items(self, count: int) -> None:
        """The peer has taken the ``count`` oldest items that were sent on this connection.

        Raises:
            ConfigurationError: so many are not waiting for it.
        """
        if not 0 <= count <= len(self._let_go) + len(self._sent):
            raise ConfigurationError("count is not a number of items sent and not acknowledged")
        for _ in range(count):
            if first := self._first_sent():
                self._acknowledge_first(again=first.again)

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
        # Taken is as good as sent: a send that is cancelled may have been written.
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            self._readable.clear()
            await self._readable.wait()
        item = self._queue.popleft()
        item.sent = True
        self._sent_seconds += item.seconds
        item.until = self._sent_seconds
        self._sent.append(item)
        return item.payload

    def _check(self, seconds: float, size: int) -> None:
        if self._ended:
            raise StateError("a buffer that has ended takes nothing more")
        if not 0 <= size <= self._max_bytes:
            raise ConfigurationError("size is not a number of bytes from 0 to max_bytes")
        if not 0 <= seconds <= self._max_seconds:
            raise ConfigurationError("seconds is not a number from 0 to max_seconds")

    def _excess(self, seconds: float, size: int) -> GiveUpReason | None:
        # The tolerance is for the sum of many fractions.
        if self._held_seconds + seconds > self._max_seconds + _TOLERANCE:
            return GiveUpReason.SECONDS
        return GiveUpReason.BYTES if self._held_bytes + size > self._max_bytes else None

    def _let_go_of_oldest(self, reason: GiveUpReason) -> None:
        if self._sent:
            item = self._sent.popleft()
            self._free(item)
            self._let_go.append(_LetGo(item.until, item.seconds, item.again, reason))
        else:
            item = self._queue.popleft()
            self._free(item)
            self._give_up(item.seconds, reason)

    def _first_sent(self) -> _LetGo | _Item[T] | None:
        if self._let_go:
            return self._let_go[0]
        return self._sent[0] if self._sent else None

    def _acknowledge_first(self, *, again: bool) -> None:
        if self._let_go:
            self._let_go.popleft()
        else:
            self._free(self._sent.popleft())
        if again:
            self._replayed += 1
        else:
            self._acknowledged += 1

    def _free(self, item: _Item[T]) -> None:
        self._held_bytes -= item.size
        self._held_seconds -= item.seconds
        self._freed.set()

    def _give_up(self, seconds: float, reason: GiveUpReason) -> None:
        if not self._given_up[reason]:
            logger.warning("replay_gives_up", extra={"reason": reason.value})
        self._given_up[reason] += 1
        if self._on_give_up is None:
            return
        try:
            self._on_give_up(seconds, reason)
        except Exception as error:
            logger.warning("give_up_hook_failed", extra={"error": type(error).__name__})
