"""Stay connected: one open connection after another, until told otherwise."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random as random_module
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Self, TypeVar

from agent_conn._connection import InferenceConnection
from agent_conn._dial.drop import is_drop
from agent_conn._lifecycle import ConnectionState, Ending
from agent_conn._options import check_type, kind
from agent_conn._reconnect.ending import ended
from agent_conn._reconnect.health import OriginHealth, Redial, health_of
from agent_conn._reconnect.pump import Pump, as_loss, call
from agent_conn._reconnect.retry import (
    LONG_LIFE,
    Pause,
    RandomSource,
    RetryBudget,
    RetryPolicy,
    is_outage,
)
from agent_conn._reconnect.statistics import (
    FOLLOWING,
    ReconnectState,
    ReconnectStatistics,
    StatisticsBuilder,
)
from agent_conn._reconnect.upgrade import UpgradePolicy, Upgrades
from agent_conn.errors import (
    AgentConnError,
    ConfigurationError,
    ConnectionLost,
    OpenHookFailed,
    StateError,
)

logger: logging.Logger = logging.getLogger("agent_conn")

T = TypeVar("T")
DialFactory = Callable[[], InferenceConnection]
"""Makes a fresh connection, usually a ``functools.partial`` of ``InferenceConnection``."""


def reconnect(
    dial: DialFactory,
    *,
    retry: RetryPolicy | None = None,
    upgrade: UpgradePolicy | None = None,
    random: RandomSource = random_module.random,
) -> Reconnector:
    """Give open connections one after another, to a pump or to ``async for``.

    ::

        async with reconnect(dial) as loop:
            await loop.run(pump)

    ``run`` takes a drop that the pump meets for the loss that it is. ``async for connection in
    loop`` gives the next connection when its body is done with the last, which is closed first;
    what its body raises, a drop met by a sender included, ends it.

    The room is waited for at the first attempt only; identity and token are read at each. The
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
    since it was last whole, and an error that ``RetryPolicy`` calls final as it is.
    """
    retry = RetryPolicy() if retry is None else retry
    upgrade = UpgradePolicy() if upgrade is None else upgrade
    problem: ConfigurationError | None = None
    try:
        _check(dial, retry, upgrade, random)
    except ConfigurationError as error:
        problem = error.with_traceback(None)
    if problem is not None:
        # A partial's repr, which some loggers show with a traceback, holds the token.
        del dial
        raise problem
    return Reconnector(dial, retry, upgrade, random)


class Reconnector:
    """What ``reconnect`` gives. It is iterated, or run, once."""

    def __init__(
        self, dial: DialFactory, retry: RetryPolicy, upgrade: UpgradePolicy, random: RandomSource
    ) -> None:
        self._dial = dial
        self._retry = retry
        self._random = random
        self._budget = RetryBudget(retry, random)
        self._health = OriginHealth()
        self._counted = StatisticsBuilder()
        self._upgrades = Upgrades(upgrade, retry, random, self._make, self._counted)
        self._state = ReconnectState.IDLE
        self._opening: InferenceConnection | None = None
        self._current: InferenceConnection | None = None
        self._opened_at = 0.0
        # Whether it was still open after LONG_LIFE; None before that.
        self._outlived: bool | None = None
        self._look: asyncio.TimerHandle | None = None
        # How the pump met its end.
        self._drop: ConnectionLost | None = None
        self._redial: Redial | None = None
        self._dials = 0
        self._closing: asyncio.Task[None] | None = None

    @property
    def state(self) -> ReconnectState:
        """What the loop is doing."""
        return self._state

    @property
    def statistics(self) -> ReconnectStatistics:
        """What it has done up to now."""
        return self._counted.build(self._budget.left)

    @property
    def last_error(self) -> AgentConnError | None:
        """The last failure of a dial or an upgrade, or the last loss."""
        return self._counted.last_error

    @property
    def connections(self) -> tuple[InferenceConnection, ...]:
        """Those that the loop has and has not closed: opening, open, better, draining."""
        found = (self._opening, self._current, *self._upgrades.connections)
        closed = ConnectionState.CLOSED
        return tuple(one for one in found if one is not None and one.state is not closed)

    @property
    def better(self) -> InferenceConnection | None:
        """A better-attributed connection that is open and waits for the body to end its turn."""
        return self._upgrades.better

    async def run(self, pump: Pump[T]) -> T | None:
        """Await ``pump(connection)`` with one connection after another, until it is done.

        The pump may raise ``ConnectionError``, an aiohttp error, ``ConnectionLost``, or a group
        of them: then its connection was lost, and it is given the next. Anything else that it
        raises comes out as it is.

        It is done when it returns something, or returns while its websocket is open and no
        better connection is on its way: where a loop upgrades, have it return something. Where
        the websocket was closed, by ``ws.close()`` too, returning None asks for the next
        connection. Returns what the pump returned; None once the loop is closed.

        Raises:
            ConfigurationError: ``pump`` is not an async function.
            AgentConnError: the loop gave up, as ``reconnect`` says.
        """
        if not callable(pump):
            raise ConfigurationError(f"pump must be an async function, got {kind(pump)}")
        self._check_unused()
        try:
            while (connection := await self._next()) is not None:
                try:
                    result = await call(pump, connection)
                except Exception as error:
                    if not is_drop(error, closed=connection.ws.closed):
                        raise
                    self._drop = as_loss(error)
                else:
                    if result is not None or self._is_done(connection):
                        return result
        finally:
            await self.aclose()
        return None

    async def __aiter__(self) -> AsyncGenerator[InferenceConnection, None]:
        self._check_unused()
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
        if self._redial is not None:
            self._redial.dial_now()

    async def upgrade(self) -> bool:
        """Open a connection under the ids that hold now beside the current one.

        Returns whether there is one, ``on_open`` included, in ``better``. The body names the
        boundary by ending its turn, and is given that connection next; the old one is drained as
        the ``UpgradePolicy`` says. Where the ids that were sent still hold, or the dial fails,
        the old one stays; a failure is logged, and in ``last_error``. Each identity is left once
        in a loop's life, so that an id that comes and goes cannot make connections come and go.
        """
        if self._current is None or self._closing is not None:
            return False
        return await self._upgrades.begin()

    async def aclose(self) -> None:
        """End the loop and close what is open. Bounded, idempotent, from any task.

        Where the loop is between attempts it ends at once; a body that has a connection
        sees that closed, and the loop ends when the body asks for the next.
        """
        if self._closing is None:
            self._advance(ReconnectState.CLOSING)
            self.wake()
            self._closing = asyncio.create_task(self._release(), name="agent_conn.reconnect.close")
        # Closing a connection that is cancelled aborts it.
        await ended(self._closing)

    async def _next(self) -> InferenceConnection | None:
        """The next open connection, or None once the loop is closing."""
        pause = Pause(0.0)
        if self._current is not None:
            pause = await self._end_turn(self._current)
        while self._current is None and self._closing is None:
            if pause.seconds > 0 or self._health.down:
                await self._back_off(pause)
            if self._closing is None:
                pause = await self._attempt()
        return None if self._closing is not None else self._current

    async def _attempt(self) -> Pause:
        """Dial once. Returns how long to wait before the next, if it failed."""
        self._advance(ReconnectState.DIALING)
        redial, self._dials = self._dials, self._dials + 1
        self._counted.count(dials=1)
        connection = self._opening = self._make()
        try:
            await connection.open(wait=redial == 0, redial=redial)
        except AgentConnError as error:
            failure = _complete(error, connection)
        else:
            self._share_health(connection).opened()
            if self._closing is None:
                self._hand_out(connection, _now())
            else:
                await connection.aclose()
            return Pause(0.0)
        finally:
            self._opening = None
        if self._closing is not None:
            return Pause(0.0)
        self._counted.count(failed=1)
        self._counted.last_error = failure
        if is_outage(failure):
            self._share_health(connection).failed(self._random)
        return self._budget.failed(failure)

    async def _end_turn(self, old: InferenceConnection) -> Pause:
        """End the body's turn. Returns how long to wait, if there is no better connection."""
        alive = old.state is ConnectionState.OPEN and not old.ws.closed and self._drop is None
        successor = self._upgrades.successor
        ready = successor is not None and await successor.decided()
        if ready and alive and not old.is_closing() and await self._take_over():
            return Pause(0.0)
        self._stop_looking()
        lived = 0.0 if self._outlived is False else _now() - self._opened_at
        await old.aclose()
        if self._closing is not None:
            return Pause(0.0)
        loss = old.loss or self._drop or ConnectionLost("closed with code 1000", code=1000)
        self._counted.count(lost=1)
        self._counted.last_error = loss
        elsewhere = old.endpoints is not None and old.endpoints.health.works()
        pause = self._budget.lost(loss, lived, elsewhere=elsewhere)
        if await self._take_over():
            return Pause(0.0)
        self._current = None
        self._upgrades.follow(None)
        return pause

    async def _take_over(self) -> bool:
        successor = await self._upgrades.take_over()
        if successor is None:
            return False
        if self._closing is not None:
            await successor.connection.aclose()
            return False
        self._hand_out(successor.connection, successor.opened_at)
        return True

    def _hand_out(self, connection: InferenceConnection, opened_at: float) -> None:
        self._advance(ReconnectState.OPEN)
        self._counted.count(opened=1)
        self._current, self._opened_at, self._drop = connection, opened_at, None
        self._outlived = None
        self._stop_looking()
        # A body may look at its connection long after that has ended.
        loop = asyncio.get_running_loop()
        self._look = loop.call_at(opened_at + LONG_LIFE, self._look_at, connection)
        self._upgrades.follow(connection)

    def _look_at(self, connection: InferenceConnection) -> None:
        self._outlived = not connection.is_closing()

    def _stop_looking(self) -> None:
        if self._look is not None:
            self._look.cancel()

    def _is_done(self, connection: InferenceConnection) -> bool:
        """Whether a pump that returned nothing wants no other connection."""
        here = connection.record.ended in {Ending.CLOSED_HERE, Ending.ABORTED}
        return (here or not connection.ws.closed) and self._upgrades.successor is None

    def _make(self) -> InferenceConnection:
        connection: object = self._dial()
        if isinstance(connection, InferenceConnection):
            return connection
        raise ConfigurationError(f"dial must return an InferenceConnection, got {kind(connection)}")

    def _share_health(self, connection: InferenceConnection) -> OriginHealth:
        """The health of where ``connection`` leads."""
        if self._retry.share_health and connection.url.host:
            self._health = health_of(connection.endpoints or connection.url.origin())
        return self._health

    async def _back_off(self, pause: Pause) -> None:
        self._advance(ReconnectState.BACKOFF)
        extra = {"delay": pause.seconds, "redials_left": self._budget.left}
        logger.info("redial_scheduled", extra=extra)
        started = _now()
        redial = self._redial = Redial(started + pause.seconds, started + pause.least, self._random)
        try:
            await self._health.wait(redial)
        finally:
            self._redial = None
            self._counted.count(waited=_now() - started)

    async def _release(self) -> None:
        name = "agent_conn.reconnect.close_one"
        self._stop_looking()
        closing = [asyncio.create_task(one.aclose(), name=name) for one in self.connections]
        try:
            await ended(*closing, *self._upgrades.closing())
        finally:
            self._advance(ReconnectState.CLOSED)

    def _check_unused(self) -> None:
        if self._state is not ReconnectState.IDLE:
            raise StateError(
                f"a loop is iterated or run once, and this one is {self._state.name}: make a new "
                "one with reconnect()"
            )

    def _advance(self, state: ReconnectState) -> None:
        """The one place that sets the state."""
        if state not in FOLLOWING[self._state]:
            raise StateError(f"a loop that is {self._state.name} cannot become {state.name}")
        self._state = state


def _check(dial: object, retry: object, upgrade: object, random: object) -> None:
    """Raises ConfigurationError where an argument of ``reconnect`` is wrong."""
    if not callable(dial) or inspect.iscoroutinefunction(dial):
        got = "an async def" if callable(dial) else kind(dial)
        raise ConfigurationError(
            f"dial must be a def that returns an InferenceConnection, got {got}"
        )
    check_type("retry", retry, RetryPolicy)
    check_type("upgrade", upgrade, UpgradePolicy)
    if not callable(random):
        raise ConfigurationError(f"random must be callable, got {kind(random)}")


def _complete(error: AgentConnError, connection: InferenceConnection) -> AgentConnError:
    """``error`` of a dial, with how the connection ended where its hook met the end."""
    if isinstance(error, OpenHookFailed) and error.retryable:
        # A Close that the hook had not read yet was read since.
        error.loss = error.loss or connection.loss
    return error


def _now() -> float:
    return asyncio.get_running_loop().time()
