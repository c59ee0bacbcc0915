"""Stay connected: one open connection after another, until told otherwise."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType, TracebackType
from typing import Any, Self

from agent_conn._connection import InferenceConnection
from agent_conn._identity import AttributionLevel
from agent_conn._lifecycle import ConnectionState
from agent_conn._reconnect.retry import RandomSource, RetryBudget, RetryPolicy
from agent_conn._reconnect.turn import Turn
from agent_conn._reconnect.upgrade import Successor, UpgradePolicy
from agent_conn._reconnect.witness import Witness
from agent_conn._room import wait_for_room
from agent_conn.errors import AgentConnError, ConfigurationError, ConnectionLost, StateError

logger: logging.Logger = logging.getLogger("agent_conn")

DialFactory = Callable[[], InferenceConnection]
"""Makes a fresh connection, usually a ``functools.partial`` of ``InferenceConnection``."""


class ReconnectState(StrEnum):
    """What a loop is doing."""

    IDLE = "idle"
    DIALING = "dialing"
    OPEN = "open"
    BACKOFF = "backoff"
    CLOSING = "closing"
    CLOSED = "closed"


_S = ReconnectState
_FOLLOWING: Mapping[ReconnectState, frozenset[ReconnectState]] = MappingProxyType(
    {
        _S.IDLE: frozenset({_S.DIALING, _S.CLOSING}),
        _S.DIALING: frozenset({_S.OPEN, _S.BACKOFF, _S.DIALING, _S.CLOSING}),
        _S.OPEN: frozenset({_S.OPEN, _S.BACKOFF, _S.DIALING, _S.CLOSING}),
        _S.BACKOFF: frozenset({_S.DIALING, _S.CLOSING}),
        _S.CLOSING: frozenset({_S.CLOSED}),
        _S.CLOSED: frozenset(),
    }
)


@dataclass(frozen=True, slots=True)
class ReconnectStatistics:
    """What a loop has done up to now."""

    dials: int = 0
    """Attempts begun, those of upgrades left out."""
    failed: int = 0
    """Attempts that did not open."""
    opened: int = 0
    """Connections handed out, those of upgrades included."""
    lost: int = 0
    """Connections that ended, or were left, before a better one took over."""
    waited: float = 0.0
    """Seconds between attempts."""
    attempt: int = 0
    """Attempts in a row without proof; what ``RetryPolicy.attempts`` bounds."""
    upgrades_begun: int = 0
    upgraded: int = 0
    """Connections that took over from one of a lower level."""
    drains_cut: int = 0
    """Drains that failed, or were still at it after ``drain_timeout``."""
    last_error: AgentConnError | None = None


def reconnect(
    dial: DialFactory,
    *,
    retry: RetryPolicy | None = None,
    upgrade: UpgradePolicy | None = None,
    random: RandomSource = random_module.random,
) -> Reconnector:
    """Give open connections one after another, for ``async for``.

    ::

        async for connection in reconnect(dial):
            await pump(connection.ws)

    The next one is given when the body is done with the last, which is closed first. The
    room is waited for at the first attempt only; identity and token are read at each. The
    loop ends when the caller leaves it, on ``aclose()``, or by raising. Leaving it closes what
    is open soon after; ``async with reconnect(dial) as loop`` has closed it on leaving.

    Args:
        dial: makes a fresh connection for each attempt.
        retry: how often and how fast; None: ``RetryPolicy()``.
        upgrade: what to do when the room comes late; None: ``UpgradePolicy()``.
        random: gives numbers from 0 to 1, for the jitter.

    Raises:
        ConfigurationError: an argument is wrong, named in the message.

    The loop itself raises ``RetriesExhausted`` when its budget is spent, with every error
    since the last proof, and an error that ``RetryPolicy`` calls final as it is.
    """
    wrong = None
    if not callable(dial):
        wrong = "dial is not callable"
    elif not (retry is None or isinstance(retry, RetryPolicy)):
        wrong = "retry is no RetryPolicy"
    elif not (upgrade is None or isinstance(upgrade, UpgradePolicy)):
        wrong = "upgrade is no UpgradePolicy"
    elif not callable(random):
        wrong = "random is not callable"
    if wrong is not None:
        # A partial's repr, which some loggers show with a traceback, holds the token.
        del dial
        raise ConfigurationError(wrong)
    return Reconnector(dial, retry or RetryPolicy(), upgrade or UpgradePolicy(), random)


class Reconnector:
    """What ``reconnect`` gives. It is iterated once."""

    def __init__(
        self, dial: DialFactory, retry: RetryPolicy, upgrade: UpgradePolicy, random: RandomSource
    ) -> None:
        self._dial = dial
        self._retry = retry
        self._upgrade = upgrade
        self._random = random
        self._budget = RetryBudget(retry, random)
        self._state = ReconnectState.IDLE
        self._statistics = ReconnectStatistics()
        self._woken = asyncio.Event()
        self._opening: InferenceConnection | None = None
        self._turn: Turn | None = None
        self._successor: Successor | None = None
        self._levels_left: set[AttributionLevel] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._draining: dict[asyncio.Task[None], InferenceConnection] = {}
        self._closing: asyncio.Task[None] | None = None

    @property
    def state(self) -> ReconnectState:
        """What the loop is doing."""
        return self._state

    @property
    def statistics(self) -> ReconnectStatistics:
        """What it has done up to now."""
        return replace(self._statistics, attempt=self._budget.spent)

    @property
    def connections(self) -> tuple[InferenceConnection, ...]:
        """Those that the loop has and has not closed: opening, open, better, draining."""
        turn, successor = self._turn, self._successor
        found = (
            self._opening,
            None if turn is None else turn.connection,
            None if successor is None else successor.connection,
            *self._draining.values(),
        )
        closed = ConnectionState.CLOSED
        return tuple(one for one in found if one is not None and one.state is not closed)

    @property
    def better(self) -> InferenceConnection | None:
        """A better-attributed connection that is open and waits for the body to end its turn."""
        successor = self._successor
        return successor.connection if successor is not None and successor.ready else None

    async def __aiter__(self) -> AsyncGenerator[InferenceConnection, None]:
        if self._state is not ReconnectState.IDLE:
            raise StateError(f"a loop that is {self._state.name} cannot be iterated")
        try:
            while (connection := await self._next()) is not None:
                yield connection
        finally:
            await self.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def wake(self) -> None:
        """Dial now, if the loop is waiting to; otherwise nothing happens."""
        self._woken.set()

    async def upgrade(self) -> bool:
        """Open a better-attributed connection beside the current one, ``on_open`` included.

        Returns whether there is one, in ``better``. The body names the boundary by ending
        its turn, and is given that connection next; the old one is drained as the
        ``UpgradePolicy`` says. Where no better identity is known, or the dial fails, the old
        one stays. Each level is left once in a loop's life, so that an id that comes and
        goes cannot make connections come and go.
        """
        if self._turn is None or self._closing is not None:
            return False
        if self._successor is None or self._successor.over:
            current = self._turn.connection
            if current.attribution in self._levels_left or not current.upgradable:
                return False
            self._count(upgrades_begun=1)
            self._successor = Successor(self._make(), current.attribution)
        successor = self._successor
        if await successor.decided():
            return True
        await successor.aclose()
        if self._successor is successor:
            self._successor = None
        return False

    async def aclose(self) -> None:
        """End the loop and close what is open. Bounded, idempotent, from any task.

        Where the loop is between attempts it ends at once; a body that has a connection
        sees that closed, and the loop ends when the body asks for the next.
        """
        if self._closing is None:
            self._advance(ReconnectState.CLOSING)
            self._woken.set()
            self._closing = asyncio.create_task(self._release(), name="agent_conn.reconnect.close")
        try:
            await asyncio.wait({self._closing})
        except asyncio.CancelledError:
            # Closing a connection that is cancelled aborts it.
            self._closing.cancel()
            await asyncio.wait({self._closing})
            raise

    async def _next(self) -> InferenceConnection | None:
        """The next open connection, or None once the loop is closing."""
        delay = 0.0
        if self._turn is not None:
            delay = await self._end_turn(self._turn)
        while self._turn is None and self._closing is None:
            if delay > 0:
                await self._back_off(delay)
            if self._closing is None:
                delay = await self._attempt()
        return None if self._turn is None or self._closing is not None else self._turn.connection

    async def _attempt(self) -> float:
        """Dial once. Returns the seconds to wait before the next, if it failed."""
        self._advance(ReconnectState.DIALING)
        self._count(dials=1)
        connection = self._opening = self._make()
        try:
            redial = self._statistics.dials - 1
            await connection.open(wait=redial == 0, redial=redial)
            if self._closing is None:
                self._hand_out(connection, Witness(connection.ws))
            else:
                await connection.aclose()
            return 0.0
        except AgentConnError as error:
            failure = error
        finally:
            self._opening = None
        if self._closing is not None:
            return 0.0
        self._count(failed=1, last_error=failure)
        return self._budget.failed(failure)

    async def _end_turn(self, turn: Turn) -> float:
        """End the turn of the body. Returns the seconds to wait, if there is no better one."""
        successor = self._successor
        better = successor is not None and await successor.decided()
        if successor is not None and better and turn.alive and await self._take_over(successor):
            return 0.0
        await turn.close()
        if self._closing is not None:
            return 0.0
        loss = turn.connection.loss or ConnectionLost("closed with code 1000", code=1000)
        self._count(lost=1, last_error=loss)
        delay = self._budget.lost(loss, proven=turn.proven, stable=turn.stable)
        if self._successor is not None and await self._take_over(self._successor):
            return 0.0
        self._turn = None
        return delay

    async def _take_over(self, successor: Successor) -> bool:
        witness = await successor.take()
        if witness is None or self._turn is None or self._closing is not None:
            await successor.aclose()
            self._successor = None
            return False
        old = self._turn
        self._successor = None
        self._levels_left.add(old.connection.attribution)
        self._count(upgraded=1)
        self._hand_out(successor.connection, witness)
        old.release()
        if old.connection.state is ConnectionState.OPEN:
            drain = asyncio.create_task(self._drain(old.connection), name="agent_conn.drain")
            self._draining[drain] = old.connection
            drain.add_done_callback(self._draining.pop)
        return True

    def _hand_out(self, connection: InferenceConnection, witness: Witness) -> None:
        self._advance(ReconnectState.OPEN)
        self._count(opened=1)
        self._turn = Turn(connection, witness, self._retry.stable_after)
        room = self._upgrade.room_connected
        unwatched = self._watcher is None or self._watcher.done()
        if room is not None and unwatched and connection.attribution < AttributionLevel.AGENT:
            self._watcher = asyncio.create_task(self._watch(), name="agent_conn.upgrade_watch")

    def _make(self) -> InferenceConnection:
        connection: object = self._dial()
        if not isinstance(connection, InferenceConnection):
            raise ConfigurationError("dial gave no InferenceConnection")
        return connection

    async def _back_off(self, delay: float) -> None:
        self._advance(ReconnectState.BACKOFF)
        logger.info("redial_scheduled", extra={"delay": delay, "attempt": self._budget.spent})
        self._woken.clear()
        started = _now()
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._woken.wait()
        self._count(waited=_now() - started)

    async def _watch(self) -> None:
        if self._upgrade.room_connected is not None:
            await wait_for_room(self._upgrade.room_connected, None)
            await asyncio.sleep(self._random() * self._upgrade.jitter)
            await self.upgrade()

    async def _drain(self, connection: InferenceConnection) -> None:
        try:
            if self._upgrade.drain is not None:
                async with asyncio.timeout(self._upgrade.drain_timeout):
                    await self._upgrade.drain(connection)
        except Exception as error:
            self._count(drains_cut=1)
            logger.warning("drain_cut", extra={"error": type(error).__name__})
        finally:
            await connection.aclose()

    async def _release(self) -> None:
        name = "agent_conn.reconnect.close_one"
        ends: list[asyncio.Task[None]] = [
            asyncio.create_task(one.aclose(), name=name) for one in self.connections
        ]
        if self._successor is not None:
            ends.append(asyncio.create_task(self._successor.aclose(), name=name))
        if self._turn is not None:
            self._turn.release()
        for helper in (self._watcher, *self._draining):
            if helper is not None:
                helper.cancel()
                ends.append(helper)
        try:
            if ends:
                await asyncio.wait(ends)
        except asyncio.CancelledError:
            for task in ends:
                task.cancel()
            await asyncio.wait(ends)
            raise
        finally:
            self._advance(ReconnectState.CLOSED)

    def _count(self, *, last_error: AgentConnError | None = None, **more: float) -> None:
        now = self._statistics
        counted: dict[str, Any] = {name: getattr(now, name) + more[name] for name in more}
        self._statistics = replace(now, last_error=last_error or now.last_error, **counted)

    def _advance(self, state: ReconnectState) -> None:
        """The one place that sets the state."""
        if state not in _FOLLOWING[self._state]:
            raise StateError(f"a loop that is {self._state.name} cannot become {state.name}")
        self._state = state


def _now() -> float:
    return asyncio.get_running_loop().time()
