"""A better-attributed connection, opened beside the one in use and kept ready for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from agent_conn._connection import InferenceConnection
from agent_conn._dial.websocket import InferenceWebSocket
from agent_conn._identity import AgentIdentity, AttributionLevel
from agent_conn._lifecycle import ConnectionState
from agent_conn._options import check_room, check_seconds, kind
from agent_conn._reconnect.ending import ended
from agent_conn._reconnect.retry import RandomSource, RetryPolicy
from agent_conn._reconnect.statistics import StatisticsBuilder
from agent_conn._room import RoomConnected, wait_for_room
from agent_conn.errors import AgentConnError, ConfigurationError

logger: logging.Logger = logging.getLogger("agent_conn")

Drain = Callable[[InferenceConnection], Awaitable[object]]
"""Finishes what is under way on a connection that another one has taken over from."""

_LEAST_LOOK = 0.1
"""Seconds between two looks, also with a policy whose ceilings are 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradePolicy:
    """What a loop does when the room comes late. Times are in seconds.

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


class Successor:
    """One attempt at a connection under other ids, from its dial until it is taken over."""

    def __init__(self, connection: InferenceConnection, replaces: AgentIdentity) -> None:
        self.connection = connection
        self.opened_at: float = 0.0
        self.failure: AgentConnError | None = None
        """Why it did not open."""
        self._replaces = replaces
        self._taken = False
        self._parked = False
        self._decided = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="agent_conn.upgrade")
        # Cancelled before its first step, a task cannot say so itself.
        self._task.add_done_callback(lambda _: self._decided.set())

    @property
    def ready(self) -> bool:
        """Whether the connection can be taken over now."""
        connection = self.connection
        alive = connection.state is ConnectionState.OPEN and not connection.is_closing()
        return self._parked and alive and not connection.ws.closed

    @property
    def over(self) -> bool:
        """Whether it was given up or lost, and is closed."""
        return self._task.done() and not self._taken and not self.ready

    async def decided(self) -> bool:
        """Wait until it is open or given up; whether it can be taken over."""
        await self._decided.wait()
        return self.ready

    async def take(self) -> bool:
        """Take the connection over; False where it has been lost, and is closed."""
        ws = self.connection.ws if self.ready else None
        if ws is None:
            await self.aclose()
            return False
        self._taken = True
        if isinstance(ws, InferenceWebSocket):
            await ws.unpark()
        await ended(self._task)
        if self.ready:
            return True
        await self.connection.aclose()
        return False

    async def aclose(self) -> None:
        """Give up, and close the connection."""
        self._task.cancel()
        await ended(self._task)
        await self.connection.aclose()

    async def _run(self) -> None:
        try:
            if await self._open():
                await self._wait_for_pump()
        finally:
            if not self._taken and not self.ready:
                await self.connection.aclose()

    async def _wait_for_pump(self) -> None:
        ws = self.connection.ws
        self.opened_at = asyncio.get_running_loop().time()
        self._parked = True
        if not isinstance(ws, InferenceWebSocket):
            self._decided.set()
            return
        reading = ws.park()
        self._decided.set()
        try:
            await asyncio.wait({reading})
        finally:
            reading.cancel()
            self._parked = self._taken

    async def _open(self) -> bool:
        try:
            await self.connection.open(wait=False)
        except AgentConnError as error:
            self.failure = error.with_traceback(None)
            return False
        identity = self.connection.record.identity
        return identity is not None and not self._replaces.is_current(identity)


class Upgrades:
    """The successors of one loop's connections: opened, taken over, and the old ones drained.

    Args:
        policy: the loop's.
        retry: its ceilings pace the dials that failed.
        random: gives numbers from 0 to 1.
        make: gives a fresh connection.
        statistics: where the loop counts.
    """

    def __init__(
        self,
        policy: UpgradePolicy,
        retry: RetryPolicy,
        random: RandomSource,
        make: Callable[[], InferenceConnection],
        statistics: StatisticsBuilder,
    ) -> None:
        self.successor: Successor | None = None
        self._policy = policy
        self._retry = retry
        self._random = random
        self._make = make
        self._counted = statistics
        self._current: InferenceConnection | None = None
        self._left: set[AgentIdentity] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._draining: dict[asyncio.Task[None], InferenceConnection] = {}

    @property
    def connections(self) -> tuple[InferenceConnection, ...]:
        """The successor's and those that drain."""
        successor = () if self.successor is None else (self.successor.connection,)
        return (*successor, *self._draining.values())

    @property
    def better(self) -> InferenceConnection | None:
        """The successor that can be taken over now."""
        successor = self.successor
        return successor.connection if successor is not None and successor.ready else None

    def follow(self, current: InferenceConnection | None) -> None:
        """``current`` is the connection in use from now on; None: there is none."""
        self._current = current
        room = self._policy.room_connected
        if current is None or room is None or current.attribution is AttributionLevel.AGENT:
            return
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch(room), name="agent_conn.upgrade_watch")

    async def begin(self) -> bool:
        """Open a successor where other ids are known; whether one is ready."""
        successor = self.successor
        if successor is None or successor.over:
            successor = self._successor()
        if successor is None:
            return False
        self.successor = successor
        if await successor.decided():
            return True
        await successor.aclose()
        if self.successor is successor:
            self.successor = None
            self._failed(successor.failure)
        return False

    async def take_over(self) -> Successor | None:
        """The successor, where it is ready, in the place of the current connection."""
        successor, old = self.successor, self._current
        if successor is None or old is None:
            return None
        taken = await successor.take()
        if self.successor is successor:
            self.successor = None
        if not taken:
            return None
        if (identity := old.record.identity) is not None:
            self._left.add(identity)
        self._counted.count(upgraded=1)
        if old.state is ConnectionState.OPEN:
            drain = asyncio.create_task(self._drain(old), name="agent_conn.drain")
            self._draining[drain] = old
            drain.add_done_callback(self._draining.pop)
        return successor

    def closing(self) -> Iterator[asyncio.Task[None]]:
        """End everything that is under way, in these tasks."""
        if self.successor is not None:
            closing = self.successor.aclose()
            yield asyncio.create_task(closing, name="agent_conn.reconnect.close_one")
        for task in (self._watcher, *self._draining):
            if task is not None:
                task.cancel()
                yield task

    def _successor(self) -> Successor | None:
        """A new successor, where the current connection's ids do not hold any more."""
        current = self._current
        identity = None if current is None else current.record.identity
        if current is None or identity is None or identity in self._left or not current.upgradable:
            return None
        self._counted.count(upgrades_begun=1)
        failure: AgentConnError
        try:
            return Successor(self._make(), identity)
        except AgentConnError as error:
            failure = error.with_traceback(None)
        except Exception as error:
            # Its text may hold a secret.
            failure = ConfigurationError(f"dial raised {type(error).__name__}")
        self._failed(failure)
        return None

    def _failed(self, failure: AgentConnError | None) -> None:
        self._counted.count(upgrades_failed=1)
        self._counted.last_error = failure or self._counted.last_error
        why = "no better ids" if failure is None else str(failure)
        logger.warning("upgrade_failed", extra={"error": why})

    async def _watch(self, room: RoomConnected) -> None:
        await wait_for_room(room, None)
        await asyncio.sleep(self._random() * self._policy.jitter)
        for ceiling in self._retry.ceilings():
            # A successor may be lost before the pump is ready for it: look again.
            await self.begin()
            current = self._current
            if current is None or (
                current.attribution is AttributionLevel.AGENT and self.successor is None
            ):
                return
            await asyncio.sleep(max(self._random() * ceiling, _LEAST_LOOK))

    async def _drain(self, connection: InferenceConnection) -> None:
        try:
            if self._policy.drain is not None:
                async with asyncio.timeout(self._policy.drain_timeout):
                    await self._policy.drain(connection)
        except Exception as error:
            self._counted.count(drains_cut=1)
            logger.warning("drain_cut", extra={"error": type(error).__name__})
        finally:
            await connection.aclose()
