"""The planned end of a connection: its successor is opened beside it, and it is drained."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent_conn._connection import InferenceConnection
from agent_conn._identity import AgentIdentity, AttributionLevel
from agent_conn._lifecycle import ConnectionState
from agent_conn._log import log
from agent_conn._options import check_room, check_seconds, kind
from agent_conn._reconnect.retry import RandomSource, RetryPolicy
from agent_conn._reconnect.statistics import StatisticsBuilder
from agent_conn._reconnect.successor import Successor
from agent_conn._room import RoomConnected, wait_for_room
from agent_conn.errors import AgentConnError, ConfigurationError

Drain = Callable[[InferenceConnection], Awaitable[object]]
"""Finishes what is under way on a connection that another one has taken over from."""

AGE_SPREAD = 0.1
"""Share of ``max_age`` by which a rotation begins early: from half of it to all of it, so that
what was opened together is not rotated together."""
_LEAST_LOOK = 0.1
"""Seconds between two looks, also with a policy whose ceilings are 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradePolicy:
    """What a loop does when the room comes late, and with one that another replaces.

    Times are in seconds.

    Raises:
        ConfigurationError: a value is wrong; the message names it.
    """

    room_connected: RoomConnected | None = None
    """Upgrade by itself once this is set, and try again, with the delays of the ``RetryPolicy``,
    until a connection with the agent's id has taken over; None: only on ``upgrade()``."""
    jitter: float = 1.0
    """An upgrade by itself waits a random part of this, as one room moves many sockets."""
    drain: Drain | None = None
    """Awaited with the old connection once the new one is handed out; then it is closed.
    None: it is closed at once, so that the pump has to have read all it wants."""
    drain_timeout: float = 5.0
    """The longest that ``drain`` may take."""

    def __post_init__(self) -> None:
        if self.room_connected is not None:
            check_room(self.room_connected)
        check_seconds("jitter", self.jitter, zero=True)
        check_seconds("drain_timeout", self.drain_timeout)
        if not (self.drain is None or callable(self.drain)):
            raise ConfigurationError(f"drain must be an async function, got {kind(self.drain)}")


class Reason(StrEnum):
    """Why a successor is opened."""

    UPGRADE = "upgrade"
    ROTATION = "rotation"


class Handovers:
    """The successors of one loop's connections: opened, taken over, and the old ones drained.

    Args:
        policy: the loop's.
        max_age: seconds after which a connection is to have a successor, or None.
        retry: its ceilings pace the dials that failed.
        random: gives numbers from 0 to 1.
        make: gives a fresh connection, and raises nothing but an ``AgentConnError``.
        statistics: where the loop counts.
    """

    def __init__(
        self,
        policy: UpgradePolicy,
        max_age: float | None,
        retry: RetryPolicy,
        random: RandomSource,
        make: Callable[[], InferenceConnection],
        statistics: StatisticsBuilder,
    ) -> None:
        self._policy = policy
        self._max_age = max_age
        self._retry = retry
        self._random = random
        self._make = make
        self._counted = statistics
        self._successor: Successor | None = None
        self._current: InferenceConnection | None = None
        self._left: set[AgentIdentity] = set()
        self._upgrading: asyncio.Task[None] | None = None
        self._rotating: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining: dict[asyncio.Task[None], InferenceConnection] = {}

    @property
    def connections(self) -> tuple[InferenceConnection, ...]:
        """The successor's and those that drain."""
        successor = () if self._successor is None else (self._successor.connection,)
        return (*successor, *self._draining.values())

    @property
    def pending(self) -> bool:
        """Whether a successor is being opened, or waits to be taken over."""
        return self._successor is not None

    @property
    def ready(self) -> InferenceConnection | None:
        """The connection that can be taken over now."""
        successor = self._successor
        return successor.connection if successor is not None and successor.ready else None

    async def decided(self) -> bool:
        """Wait until what is being opened is open or given up; whether it can be taken over."""
        return self._successor is not None and await self._successor.decided()

    def follow(self, current: InferenceConnection | None, opened_at: float = 0.0) -> None:
        """``current`` is the connection in use from now on; None: there is none."""
        self._current = current
        if self._rotating is not None:
            self._rotating.cancel()
            self._rotating = None
        if current is None:
            return
        if self._max_age is not None:
            early = self._max_age * AGE_SPREAD * (1 + self._random()) / 2
            due = opened_at + self._max_age - early
            self._rotating = self._start(self._rotate_at(due), "agent_conn.rotation")
        room = self._policy.room_connected
        if room is None or current.attribution is AttributionLevel.AGENT:
            return
        if self._upgrading is None or self._upgrading.done():
            self._upgrading = self._start(self._upgrade_after(room), "agent_conn.upgrade_watch")

    async def begin(self, reason: Reason) -> bool:
        """Open a successor, where there is none yet and ``reason`` holds; whether one is ready."""
        old = self._successor
        if old is None or old.over or self._is_outdated(old):
            made = self._make_successor(reason)
            if made is None:
                return False
            self._successor = made
            if old is not None:
                await old.aclose()
        successor = self._successor
        if successor is None:
            return False
        if await successor.decided():
            return True
        await successor.aclose()
        if self._successor is successor:
            self._successor = None
            self._failed(reason, successor.failure)
        return False

    async def take_over(self) -> Successor | None:
        """The successor, where it is ready, in the place of the current connection."""
        successor, old = self._successor, self._current
        if successor is None or old is None:
            return None
        taken = await successor.take()
        if self._successor is successor:
            self._successor = None
        if not taken:
            return None
        sent, sends = old.record.identity, successor.connection.record.identity
        if sent is None or sends is None or sent.is_current(sends):
            self._counted.count(rotated=1)
        else:
            self._left.add(sent)
            self._counted.count(upgraded=1)
        if old.state is ConnectionState.OPEN:
            drain = asyncio.create_task(self._drain(old), name="agent_conn.drain")
            self._draining[drain] = old
            drain.add_done_callback(self._draining.pop)
        return successor

    async def give_up(self) -> None:
        """Close what is pending: its place is taken."""
        if self._successor is not None:
            await self._successor.aclose()
            self._successor = None

    def closing(self) -> Iterator[asyncio.Task[None]]:
        """End everything that is under way, in these tasks."""
        if self._successor is not None:
            closing = self._successor.aclose()
            yield asyncio.create_task(closing, name="agent_conn.reconnect.close_one")
        for task in (*self._tasks, *self._draining):
            task.cancel()
            yield task

    def _is_outdated(self, successor: Successor) -> bool:
        """Whether it waited for its boundary until another one would be better."""
        if not successor.ready:
            return False
        age = asyncio.get_running_loop().time() - successor.opened_at
        too_old = self._max_age is not None and age >= self._max_age
        return too_old or not successor.connection.is_current()

    def _make_successor(self, reason: Reason) -> Successor | None:
        """A new successor to the current connection, where ``reason`` holds."""
        current = self._current
        if current is None:
            return None
        identity = current.record.identity
        upgrades = reason is Reason.UPGRADE
        if upgrades and (identity is None or identity in self._left or not current.upgradable):
            return None
        self._counted.count(**{f"{reason}s_begun": 1})
        try:
            connection = self._make()
        except AgentConnError as error:
            self._failed(reason, error)
            return None

        def is_better() -> bool:
            sends = connection.record.identity
            return identity is not None and sends is not None and not identity.is_current(sends)

        return Successor(connection, is_better) if upgrades else Successor(connection)

    def _failed(self, reason: Reason, failure: AgentConnError | None) -> None:
        self._counted.count(**{f"{reason}s_failed": 1})
        self._counted.last_error = failure or self._counted.last_error
        unfit = "no better ids" if reason is Reason.UPGRADE else "it ended before its turn"
        why = unfit if failure is None else str(failure)
        log(logging.WARNING, f"{reason}_failed", error=why)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _upgrade_after(self, room: RoomConnected) -> None:
        await wait_for_room(room, None)
        await asyncio.sleep(self._random() * self._policy.jitter)
        for ceiling in self._retry.ceilings():
            # A successor may be lost before the pump is ready for it: look again.
            await self.begin(Reason.UPGRADE)
            current = self._current
            if current is None or (
                current.attribution is AttributionLevel.AGENT and self._successor is None
            ):
                return
            await asyncio.sleep(max(self._random() * ceiling, _LEAST_LOOK))

    async def _rotate_at(self, due: float) -> None:
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        for ceiling in self._retry.ceilings():
            await self.begin(Reason.ROTATION)
            await asyncio.sleep(max(self._random() * ceiling, _LEAST_LOOK))

    async def _drain(self, connection: InferenceConnection) -> None:
        try:
            if self._policy.drain is not None:
                async with asyncio.timeout(self._policy.drain_timeout):
                    await self._policy.drain(connection)
        except Exception as error:
            self._counted.count(drains_cut=1)
            log(logging.WARNING, "drain_cut", error=type(error).__name__)
        finally:
            await connection.aclose()
