"""Stay connected: one open connection after another, until told otherwise."""

from __future__ import annotations

import asyncio
import inspect
import random as random_module
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self, TypeVar

from agent_conn._connection import InferenceConnection
from agent_conn._dial.drop import is_drop
from agent_conn._lifecycle import ConnectionState, Ending
from agent_conn._options import check_seconds, check_type, kind
from agent_conn._reconnect.attempts import Attempts, DialFactory
from agent_conn._reconnect.ending import ended
from agent_conn._reconnect.handover import Handovers, Reason, UpgradePolicy
from agent_conn._reconnect.lifetime import Lifetime
from agent_conn._reconnect.pump import Pump, as_loss, call
from agent_conn._reconnect.retry import Pause, RandomSource, RetryPolicy
from agent_conn._reconnect.standby import Spares, Standby
from agent_conn._reconnect.statistics import (
    FOLLOWING,
    ReconnectState,
    ReconnectStatistics,
    StatisticsBuilder,
)
from agent_conn.errors import AgentConnError, ConfigurationError, ConnectionLost, StateError

T = TypeVar("T")


def reconnect(
    dial: DialFactory,
    *,
    retry: RetryPolicy | None = None,
    upgrade: UpgradePolicy | None = None,
    standby: Standby | None = None,
    max_age: float | None = None,
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
        standby: what to keep ready for a loss beside the connection in use; None: nothing.
        max_age: seconds after which a connection is handed over to one that is opened beside
            it, at the pump's boundary; up to a tenth earlier, so that not all are handed over
            together. None: as long as it lives.
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
        _check(dial, retry, upgrade, standby, max_age, random)
    except ConfigurationError as error:
        problem = error.with_traceback(None)
    if problem is not None:
        # A partial's repr, which some loggers show with a traceback, holds the token.
        del dial
        raise problem
    return Reconnector(dial, retry, upgrade, standby, max_age, random)


class Reconnector:
    """What ``reconnect`` gives. It is iterated, or run, once."""

    def __init__(
        self,
        dial: DialFactory,
        retry: RetryPolicy,
        upgrade: UpgradePolicy,
        standby: Standby | None,
        max_age: float | None,
        random: RandomSource,
    ) -> None:
        counted = self._counted = StatisticsBuilder()
        attempts = self._attempts = Attempts(dial, retry, random, counted)
        beside = attempts.make_beside
        self._handovers = Handovers(upgrade, max_age, retry, random, beside, counted)
        self._spares = Spares(standby, max_age, random, beside, lambda: attempts.begun, counted)
        self._state = ReconnectState.IDLE
        self._current: InferenceConnection | None = None
        self._lifetime: Lifetime | None = None
        # How the pump met its end.
        self._drop: ConnectionLost | None = None
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        now = self.statistics
        return f"<Reconnector {self._state}, {now.opened} opened, {now.lost} lost>"

    @property
    def state(self) -> ReconnectState:
        """What the loop is doing."""
        return self._state

    @property
    def statistics(self) -> ReconnectStatistics:
        """What it has done up to now."""
        left = self._attempts.budget.left
        return self._counted.build(left, spare_ready=self._spares.ready)

    @property
    def last_error(self) -> AgentConnError | None:
        """The last failure of a dial or an upgrade, or the last loss."""
        return self._counted.last_error

    @property
    def connections(self) -> tuple[InferenceConnection, ...]:
        """Those that the loop has not closed: opening, open, successor, draining, spare."""
        own = (self._attempts.opening, self._current)
        found = (*own, *self._handovers.connections, *self._spares.connections)
        closed = ConnectionState.CLOSED
        return tuple(one for one in found if one is not None and one.state is not closed)

    @property
    def successor(self) -> InferenceConnection | None:
        """The connection of an upgrade or a rotation that is open and waits for the boundary.

        The body names the boundary by ending its turn, and is given that connection next.
        """
        return self._handovers.ready

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
        self._attempts.wake()

    async def upgrade(self) -> bool:
        """Open a connection under the ids that hold now beside the current one.

        Returns whether there is one, ``on_open`` included, in ``successor``. The old one is
        drained as the ``UpgradePolicy`` says. Where the ids that were sent still hold, or the
        dial fails, the old one stays; a failure is logged, and in ``last_error``. Each identity
        is left once in a loop's life, so that an id that comes and goes cannot make connections
        come and go.
        """
        return await self._begin(Reason.UPGRADE)

    async def rotate(self) -> bool:
        """Open a connection beside the current one, whose end is near, under whatever ids.

        For a pump that is told to go, such as by ``goAway``. Returns and works as ``upgrade``.
        """
        return await self._begin(Reason.ROTATION)

    async def aclose(self) -> None:
        """End the loop and close what is open. Bounded, idempotent, from any task.

        Where the loop is between attempts it ends at once; a body that has a connection
        sees that closed, and the loop ends when the body asks for the next.
        """
        if self._closing is None:
            self._advance(ReconnectState.CLOSING)
            self._attempts.stop()
            self._closing = asyncio.create_task(self._release(), name="agent_conn.reconnect.close")
        # Closing a connection that is cancelled aborts it.
        await ended(self._closing)

    async def _begin(self, reason: Reason) -> bool:
        if self._current is None or self._closing is not None:
            return False
        return await self._handovers.begin(reason)

    async def _next(self) -> InferenceConnection | None:
        """The next open connection, or None once the loop is closing."""
        pause = Pause(0.0)
        if self._current is not None:
            pause = await self._end_turn(self._current)
        while self._current is None and self._closing is None:
            if self._attempts.must_wait(pause):
                self._advance(ReconnectState.BACKOFF)
                await self._attempts.wait(pause)
            if self._closing is None:
                pause = await self._attempt()
        return None if self._closing is not None else self._current

    async def _attempt(self) -> Pause:
        """Dial once. Returns how long to wait before the next, if it failed."""
        self._advance(ReconnectState.DIALING)
        spare = await self._spares.take_held()
        if spare is None and self._closing is not None:
            return Pause(0.0)
        if spare is None:
            found = await self._attempts.attempt()
        else:
            found = await self._attempts.attempt_with(spare)
        if isinstance(found, Pause):
            return found
        await self._use(found, _now())
        return Pause(0.0)

    async def _end_turn(self, old: InferenceConnection) -> Pause:
        """End the body's turn. Returns how long to wait, if nothing takes over."""
        alive = old.state is ConnectionState.OPEN and not old.ws.closed and self._drop is None
        # What is being opened is waited for, but not where a spare makes a loss good sooner.
        ready = (alive or not self._spares.ready) and await self._handovers.decided()
        if ready and alive and not old.is_closing() and await self._take_over():
            return Pause(0.0)
        lived = 0.0 if self._lifetime is None else self._lifetime.end()
        await old.aclose()
        if self._closing is not None:
            return Pause(0.0)
        loss = old.loss or self._drop or ConnectionLost("closed with code 1000", code=1000)
        self._counted.count(lost=1)
        self._counted.last_error = loss
        elsewhere = old.endpoints is not None and old.endpoints.health.works()
        pause = self._attempts.budget.lost(loss, lived, elsewhere=elsewhere)
        if await self._take_over() or await self._take_spare():
            return Pause(0.0)
        self._current = None
        self._handovers.follow(None)
        await self._spares.rest()
        return pause

    async def _take_over(self) -> bool:
        if self._handovers.ready is None:
            return False
        successor = await self._handovers.take_over()
        if successor is not None:
            await self._use(successor.connection, successor.opened_at)
        return successor is not None

    async def _take_spare(self) -> bool:
        await self._handovers.give_up()
        spare = await self._spares.take_open()
        if spare is not None:
            await self._use(spare.connection, spare.opened_at)
        return spare is not None

    async def _use(self, connection: InferenceConnection, opened_at: float) -> None:
        """Make it the one in use, unless the loop is closing."""
        if self._closing is not None:
            await connection.aclose()
            return
        self._advance(ReconnectState.OPEN)
        self._counted.count(opened=1)
        self._current, self._drop = connection, None
        if self._lifetime is not None:
            self._lifetime.end()
        # Waiting for its turn was no proof of it.
        self._lifetime = Lifetime(connection, _now())
        self._handovers.follow(connection, opened_at)
        self._spares.keep()

    def _is_done(self, connection: InferenceConnection) -> bool:
        """Whether a pump that returned nothing wants no other connection."""
        here = connection.record.ended in {Ending.CLOSED_HERE, Ending.ABORTED}
        return (here or not connection.ws.closed) and not self._handovers.pending

    async def _release(self) -> None:
        name = "agent_conn.reconnect.close_one"
        if self._lifetime is not None:
            self._lifetime.end()
        closing = [asyncio.create_task(one.aclose(), name=name) for one in self.connections]
        try:
            await ended(*closing, *self._handovers.closing(), *self._spares.closing())
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


def _check(
    dial: object,
    retry: object,
    upgrade: object,
    standby: object,
    max_age: object,
    random: object,
) -> None:
    """Raises ConfigurationError where an argument of ``reconnect`` is wrong."""
    if not callable(dial) or inspect.iscoroutinefunction(dial):
        got = "an async def" if callable(dial) else kind(dial)
        raise ConfigurationError(
            f"dial must be a def that returns an InferenceConnection, got {got}"
        )
    check_type("retry", retry, RetryPolicy)
    check_type("upgrade", upgrade, UpgradePolicy)
    if standby is not None:
        check_type("standby", standby, Standby)
    if max_age is not None:
        check_seconds("max_age", max_age)
    if not callable(random):
        raise ConfigurationError(f"random must be callable, got {kind(random)}")


def _now() -> float:
    return asyncio.get_running_loop().time()
