"""Random pools, each closed at a random moment of its life: nothing may be left of any.

    PYTHONPATH=tests python -m helpers.pool_closing [pools] [uvloop]

By hand with 10,000 pools on asyncio and on uvloop; the suite runs a hundred.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from agent_conn import (
    AgentConnError,
    ConnectionPool,
    ConnectionState,
    InferenceConnection,
    Keepalive,
)
from agent_conn.testing import InferenceGateway
from helpers.pooling import Site

TOGETHER = 20
FAR = "ws://127.0.0.1:9/"
"""Where nobody listens."""


class RandomPool:
    """One pool, the tasks that use it, and what it dialled; all by chance."""

    def __init__(self, session: aiohttp.ClientSession, url: str, chance: random.Random) -> None:
        self.made: list[InferenceConnection] = []
        self._session = session
        self._url = url
        self._chance = chance
        size = chance.randint(1, 4)
        self.pool = ConnectionPool(
            self._dial,
            max_size=size,
            min_idle=chance.randint(0, size),
            max_age=chance.choice((None, 0.2)),
            max_idle=chance.choice((None, 0.1)),
            rotate=chance.choice((None, 0.2)),
            keepalive=chance.choice((None, Keepalive(every=0.01, message="still here"))),
            reset=chance.choice((None, self._turn)),
        )

    def _dial(self) -> InferenceConnection:
        chance = self._chance
        url = self._url if chance.random() < 0.9 else FAR
        hook = chance.choice((None, self._turn, self._interfere))
        self.made.append(InferenceConnection(self._session, url, on_open=hook, close_timeout=0.3))
        return self.made[-1]

    async def _turn(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        await ws.send_str("hello")
        if self._chance.random() < 0.9:
            await ws.receive()

    async def _interfere(self, _: aiohttp.ClientWebSocketResponse) -> None:
        if self._chance.random() < 0.3:
            self.pool.invalidate()

    async def _borrow(self) -> None:
        while True:
            try:
                async with self.pool.acquire(timeout=0.5) as connection:
                    await self._turn(connection.ws)
                    if self._chance.random() < 0.2:
                        self.pool.release(connection, reuse=False)
            except AgentConnError:
                if self.pool.closed:
                    return
            except (OSError, TypeError, aiohttp.ClientError):
                continue
            await asyncio.sleep(0)

    async def _pause(self) -> None:
        if self._chance.random() < 0.7:
            for _ in range(self._chance.randint(0, 60)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(self._chance.random() * 0.15)

    async def live_and_close(self) -> list[str]:
        """Use the pool, close it, and return what is left of it."""
        chance, pool = self._chance, self.pool
        borrowers = [asyncio.create_task(self._borrow()) for _ in range(chance.randint(0, 5))]
        if chance.random() < 0.5:
            pool.prewarm()
        await self._pause()
        if borrowers and chance.random() < 0.3:
            borrowers[0].cancel()
        closing = asyncio.create_task(pool.aclose(grace=chance.choice((0.0, 0.02))))
        if chance.random() < 0.3:
            await self._pause()
            closing.cancel()
        await asyncio.wait({closing})
        if not pool.closed:
            # It was cancelled before it began.
            await pool.aclose(grace=0.0)
        size = pool.statistics().size
        left = [each.state.name for each in self.made if each.state is not ConnectionState.CLOSED]
        for borrower in borrowers:
            borrower.cancel()
        if borrowers:
            await asyncio.wait(borrowers)
        idle = {ConnectionState.IDLE.name}
        return [f"size {size}"] * (size > 0) + [name for name in left if name not in idle]


async def close_random_pools(
    site: Site, seed: int, *, pools: int, together: int = TOGETHER
) -> list[str]:
    """What was left of ``pools`` pools, and what the event loop reported; empty where right."""
    return await _close_all(site.session, site.gateway.url("/v1/echo"), seed, pools, together)


async def _close_all(
    session: aiohttp.ClientSession, url: str, seed: int, pools: int, together: int
) -> list[str]:
    chance = random.Random(seed)
    left: list[str] = []

    def report(_: object, context: dict[str, Any]) -> None:
        left.append(f"reported: {context.get('message')} {context.get('exception')!r}")

    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(report)
    for start in range(0, pools, together):
        batch = [
            RandomPool(session, url, random.Random(chance.random()))
            for _ in range(min(together, pools - start))
        ]
        for found in await asyncio.gather(*(each.live_and_close() for each in batch)):
            left += found
    left += [f"task {task.get_name()}" for task in asyncio.all_tasks() - before]
    loop.set_exception_handler(handler)
    return left


async def left_of(pools: int) -> list[str]:
    """As ``close_random_pools``, with a gateway in a thread of its own."""
    with InferenceGateway() as gateway:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            return await _close_all(session, gateway.url("/v1/echo"), 1, pools, TOGETHER)


def main() -> None:
    pools = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    run: Callable[[Coroutine[Any, Any, list[str]]], list[str]] = asyncio.run
    if "uvloop" in sys.argv:
        run = importlib.import_module("uvloop").run
    left = run(left_of(pools))
    sys.stdout.write(f"{pools} pools: left {left}\n")
    sys.exit(bool(left))


if __name__ == "__main__":
    main()
