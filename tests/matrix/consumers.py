"""The four ways to use the line, each as its caller would write it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator

from helpers.canary import TOKEN
from helpers.pooling import until
from helpers.support import Stopwatch
from matrix.scene import HEADERS, Scene, attributed, echo
from matrix.vocabulary import CLOSE, LONG, Consumer, Empty, Fault, Place, Way

from agent_conn import (
    AgentConnError,
    ConnectionPool,
    ConnectionState,
    ReconnectState,
    RetriesExhausted,
    RetryPolicy,
    reconnect,
)

MARGIN = 0.1
OPENING = (
    Place.WAITING,
    Place.DIAL,
    Place.TLS,
    Place.TOKEN,
    Place.HANDSHAKE,
    Place.ON_OPEN,
)


class Caller(ABC):
    """Somebody who uses the scene's line once."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    @abstractmethod
    async def run(self) -> None:
        """Open, use what is open, and close."""

    @abstractmethod
    async def aclose(self) -> None:
        """End it from another task."""

    @property
    def owns_its_sockets(self) -> bool:
        """Whether every socket is this package's to close."""
        return True

    @abstractmethod
    async def finish(self) -> None:
        """Look at what must hold afterwards, and give up what the caller keeps for longer."""

    def noted(self) -> AgentConnError | None:
        """The error that was met and recovered from."""
        return None

    def told(self) -> Iterator[str]:
        """What a caller could log of it."""
        for connection in self.scene.made:
            yield from map(repr, (connection, connection.record, connection.loss))


class CoreCaller(Caller):
    async def run(self) -> None:
        connection = self.scene.dial()
        async with connection as ws:
            await self.scene.use(ws)
        if connection.loss is not None and self.scene.cell.place is Place.READING:
            raise connection.loss

    async def aclose(self) -> None:
        await self.scene.made[0].aclose()

    async def finish(self) -> None:
        assert self.scene.made[0].state is ConnectionState.CLOSED


class StayingCaller(Caller):
    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        # Few attempts, far fewer than LONG; enough to outlast the healing of the line.
        retry = RetryPolicy(attempts=20, initial=0.01, cap=0.05)
        self.loop = reconnect(scene.dial, retry=retry)

    async def run(self) -> None:
        async with self.loop:
            async for connection in self.loop:
                await self.scene.use(connection.ws)
                if not connection.ws.closed:
                    break

    async def aclose(self) -> None:
        await self.loop.aclose()

    async def finish(self) -> None:
        await self.loop.aclose()
        assert self.loop.state is ReconnectState.CLOSED
        assert self.loop.connections == ()
        if self.scene.cell.way is Way.ACLOSE and self.scene.cell.place in OPENING:
            assert self.loop.statistics.opened == 0

    def noted(self) -> AgentConnError | None:
        return self.loop.last_error

    def told(self) -> Iterator[str]:
        yield from super().told()
        yield from map(repr, (self.loop, self.loop.statistics))


class PoolCaller(Caller):
    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.pool = ConnectionPool(scene.dial, max_size=1, jitter=lambda: 0.0)

    async def run(self) -> None:
        cell, pool, scene = self.scene.cell, self.pool, self.scene
        if cell.place is Place.IDLE:
            await self._find_the_idle_one_struck()
            return
        async with pool.acquire(timeout=scene.budget) as connection:
            await scene.use(connection.ws)
        if connection.loss is not None and cell.place is Place.READING:
            raise connection.loss
        if cell.place is Place.CLOSING:
            await pool.aclose()

    async def aclose(self) -> None:
        await self.pool.aclose(grace=0)

    async def finish(self) -> None:
        pool, cell = self.pool, self.scene.cell
        if cell.way is Way.CANCEL and cell.place in {Place.READING, Place.WRITING}:
            assert pool.statistics().idle == 0
        if cell.way is Way.NOTHING and cell.place is not Place.CLOSING:
            await self.scene.proxy.heal()
            async with pool.acquire(timeout=LONG) as connection:
                await echo(connection.ws)
        async with Stopwatch() as watch:
            await pool.aclose(grace=0)
        assert watch.elapsed <= CLOSE + MARGIN
        figures = pool.statistics()
        assert (figures.size, figures.waiting) == (0, 0)

    def told(self) -> Iterator[str]:
        yield from super().told()
        yield from map(repr, (self.pool, self.pool.statistics()))

    async def _find_the_idle_one_struck(self) -> None:
        cell, pool, scene = self.scene.cell, self.pool, self.scene
        async with pool.acquire() as connection:
            await echo(connection.ws)
        await until(lambda: pool.statistics().idle == 1)
        (passage,) = scene.proxy.passages
        (served,) = scene.gateway.connections
        scene.reach(Place.IDLE)
        if cell.way is Way.DEADLINE:
            await until_gone(pool)
        elif cell.fault is Fault.RESET:
            await scene.proxy.wait_until(lambda: passage.closed)
        elif cell.fault in {Fault.CLOSE_1011, Fault.CLOSE_1008}:
            await scene.gateway.wait_until(lambda: served.closed)
        probe = None if cell.way is Way.NOTHING else echo
        async with pool.acquire(probe=probe) as connection:
            await scene.use(connection.ws)


async def until_gone(pool: ConnectionPool) -> None:
    """Wait until ``pool`` has nothing idle."""
    async with asyncio.timeout(LONG):
        while pool.statistics().idle:  # noqa: ASYNC110  (statistics have no event)
            await asyncio.sleep(0)


class Client(Caller):
    """A client of aiohttp's own, whose requests the middleware attributes."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.session, self.middleware = attributed(scene)

    async def run(self) -> None:
        headers = {**HEADERS, "Authorization": f"Bearer {TOKEN}"}
        async with self.session:
            async with asyncio.timeout(self.scene.budget):
                ws = await self.session.ws_connect(self.scene.url, headers=headers)
            await self.scene.use(ws)
            await ws.close()

    async def aclose(self) -> None:
        raise NotImplementedError(Empty.NO_ACLOSE)

    async def finish(self) -> None:
        assert self.session.closed

    @property
    def owns_its_sockets(self) -> bool:
        """Not once a request was sent: from then on it is the client's.

        asyncio then waits 30 s for the close_notify of a TLS peer that is silent.
        """
        sent = self.scene.cell.place not in {Place.DIAL, Place.TLS} and self.middleware.records
        return not sent

    def told(self) -> Iterator[str]:
        yield from map(repr, (self.middleware, self.middleware.records))


CALLERS: dict[Consumer, type[Caller]] = {
    Consumer.CORE: CoreCaller,
    Consumer.RECONNECT: StayingCaller,
    Consumer.POOL: PoolCaller,
    Consumer.MIDDLEWARE: Client,
}


def every_error(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and those that it collects."""
    if error is not None:
        yield error
    if isinstance(error, RetriesExhausted):
        yield from error.attempts
