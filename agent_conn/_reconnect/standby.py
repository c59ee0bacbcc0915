"""A spare: a second connection that is kept ready for when the one in use is lost."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator
from enum import StrEnum

import aiohttp

from agent_conn._connection import InferenceConnection
from agent_conn._dial.predial import PreDial
from agent_conn._log import log
from agent_conn._reconnect.ending import ended
from agent_conn._reconnect.retry import RandomSource
from agent_conn._reconnect.statistics import StatisticsBuilder
from agent_conn._reconnect.successor import Successor
from agent_conn.errors import AgentConnError, DialFailed

LEAST_BETWEEN_DIALS = 15.0
"""Seconds from the begin of one spare's dial to that of the next, and the longest for one."""
SPREAD = 5.0
"""A spare waits a random part of this, as one gateway that restarts ends many."""
LOOK = 1.0
"""Seconds between two looks at whether a spare is still fit."""


class Standby(StrEnum):
    """How much of a connection a loop keeps ready beside the one in use."""

    TRANSPORT = "transport"
    """TCP and TLS. The redial takes one round trip, and reads token and identity then."""
    WEBSOCKET = "websocket"
    """All of it, ``on_open`` included. It takes over at once, unless its ids are out of date."""


class HeldDial:
    """A connection whose TCP and TLS are up, and whose request waits until it is wanted.

    Args:
        connection: not opened yet.
        redial: how many attempts of the loop went before.
    """

    def __init__(self, connection: InferenceConnection, redial: int) -> None:
        self.connection = connection
        self.failure: AgentConnError | None = None
        """Why it could not be had."""
        self._pre_dial: PreDial | None = None
        self._wanted = asyncio.Event()
        self._decided = asyncio.Event()
        opening = connection.open(wait=False, redial=redial, hold=self._hold)
        self._task = asyncio.create_task(opening, name="agent_conn.spare")
        self._task.add_done_callback(self._note_end)

    @property
    def ready(self) -> bool:
        """Whether its connection is up, for all that is known here."""
        pre_dial = None if self._task.done() else self._pre_dial
        return pre_dial is not None and pre_dial.is_ready()

    async def decided(self) -> bool:
        """Wait until it is up or has failed; whether it is up."""
        await self._decided.wait()
        return self.ready

    async def open(self) -> aiohttp.ClientWebSocketResponse:
        """Send the request now, on this connection, or on a fresh one where this has ended.

        Raises:
            AgentConnError: it did not open.
        """
        self._wanted.set()
        try:
            return await self._task
        except asyncio.CancelledError:
            # It may have opened in the same turn.
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Give it up, and close it."""
        self._task.cancel()
        try:
            await ended(self._task)
        finally:
            await self.connection.aclose()

    async def _hold(self, pre_dial: PreDial | None) -> None:
        if pre_dial is None:
            raise DialFailed(
                "Standby.TRANSPORT needs a single URL and a connector without force_close: use "
                "Standby.WEBSOCKET"
            )
        await pre_dial.finish()
        if not pre_dial.is_ready():
            raise DialFailed("the spare's TCP or TLS failed")
        self._pre_dial = pre_dial
        self._decided.set()
        await self._wanted.wait()

    def _note_end(self, task: asyncio.Task[aiohttp.ClientWebSocketResponse]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, AgentConnError):
            self.failure = error
        self._decided.set()


class Spares:
    """The spare of one loop: dialled beside the connection in use, looked at, and replaced.

    What fails here is no attempt, and reaches neither the budget nor the origin's health.

    Args:
        standby: what to keep, or None.
        max_age: seconds after which a websocket is too old to take over.
        random: gives numbers from 0 to 1.
        make: gives a fresh connection, and raises nothing but an ``AgentConnError``.
        begun: tells how many attempts of the loop went before.
        statistics: where the loop counts.
    """

    def __init__(
        self,
        standby: Standby | None,
        max_age: float | None,
        random: RandomSource,
        make: Callable[[], InferenceConnection],
        begun: Callable[[], int],
        statistics: StatisticsBuilder,
    ) -> None:
        self._standby = standby
        self._max_age = math.inf if max_age is None else max_age
        self._random = random
        self._make = make
        self._begun = begun
        self._counted = statistics
        self._spare: HeldDial | Successor | None = None
        self._next_dial = -math.inf
        self._keeping: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether there is a spare that may serve."""
        return self._spare is not None and self._is_fit(self._spare)

    @property
    def connections(self) -> tuple[InferenceConnection, ...]:
        """That of the spare."""
        return () if self._spare is None else (self._spare.connection,)

    def keep(self) -> None:
        """See to it from now on that there is a spare."""
        if self._standby is not None and (self._keeping is None or self._keeping.done()):
            self._keeping = asyncio.create_task(self._keep(), name="agent_conn.standby")

    async def rest(self) -> None:
        """Dial no more spares; the one that there is stays."""
        if self._keeping is not None:
            self._keeping.cancel()
            await ended(self._keeping)

    async def take_held(self) -> HeldDial | None:
        """A transport to redial on. It is the caller's to open or close."""
        if self._standby is not Standby.TRANSPORT:
            return None
        await self.rest()
        spare = self._spare
        if isinstance(spare, HeldDial) and spare.ready:
            self._spare = None
            return spare
        await self._drop()
        return None

    async def take_open(self) -> Successor | None:
        """A websocket that takes over at once. It is the caller's to close."""
        if self._standby is not Standby.WEBSOCKET:
            return None
        await self.rest()
        spare = self._spare
        if isinstance(spare, Successor) and self._is_fit(spare) and await spare.take():
            self._spare = None
            self._counted.count(spares_used=1)
            return spare
        await self._drop()
        return None

    def closing(self) -> Iterator[asyncio.Task[None]]:
        """End everything that is under way, in these tasks."""
        if self._keeping is not None:
            self._keeping.cancel()
            yield self._keeping
        if self._spare is not None:
            closing = self._spare.aclose()
            yield asyncio.create_task(closing, name="agent_conn.reconnect.close_one")

    async def _keep(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            if self._spare is None:
                pause = max(self._next_dial - now(), 0.0)
                await asyncio.sleep(pause + self._random() * SPREAD)
                self._next_dial = now() + LEAST_BETWEEN_DIALS
                await self._dial()
            while self._spare is not None and self._is_fit(self._spare):  # noqa: ASYNC110
                # The end of an idle transport is known when its kernel is asked, not before.
                await asyncio.sleep(LOOK)
            await self._drop()

    async def _dial(self) -> None:
        self._counted.count(spares_dialed=1)
        try:
            connection = self._make()
        except AgentConnError as error:
            self._failed(error)
            return
        spare: HeldDial | Successor
        if self._standby is Standby.TRANSPORT:
            spare = HeldDial(connection, self._begun())
        else:
            spare = Successor(connection, redial=self._begun(), hold=_go_on)
        self._spare = spare
        try:
            async with asyncio.timeout(LEAST_BETWEEN_DIALS):
                if not await spare.decided():
                    self._failed(spare.failure)
        except TimeoutError:
            self._failed(None)

    async def _drop(self) -> None:
        if self._spare is not None:
            await self._spare.aclose()
            self._spare = None

    def _is_fit(self, spare: HeldDial | Successor) -> bool:
        if isinstance(spare, HeldDial) or not spare.ready:
            return spare.ready
        age = asyncio.get_running_loop().time() - spare.opened_at
        return age < self._max_age and spare.connection.is_current()

    def _failed(self, failure: AgentConnError | None) -> None:
        self._counted.count(spares_failed=1)
        why = f"not up in {LEAST_BETWEEN_DIALS:g} s" if failure is None else str(failure)
        log(logging.WARNING, "spare_failed", error=why)


async def _go_on(_: PreDial | None) -> None:
    """A spare of a whole websocket holds nothing back."""
