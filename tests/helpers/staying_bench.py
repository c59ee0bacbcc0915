"""What the tests of loops share: a gateway and a session in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp

from agent_conn import InferenceConnection, Reconnector, RetryPolicy, UpgradePolicy, reconnect
from agent_conn.gateway import Gateway
from helpers.virtual_time import in_virtual_time, until_idle


@dataclass
class Bench:
    """A gateway and a session in virtual time."""

    gateway: Gateway
    session: aiohttp.ClientSession
    made: list[InferenceConnection] = field(default_factory=list)

    def dial(self, **options: Any) -> InferenceConnection:
        connection = InferenceConnection(self.session, self.gateway.url("/v1/echo"), **options)
        self.made.append(connection)
        return connection

    def loop(
        self,
        retry: RetryPolicy | None = None,
        upgrade: UpgradePolicy | None = None,
        draw: Callable[[], float] = lambda: 1.0,
        **options: Any,
    ) -> Reconnector:
        """A loop whose every jitter is the longest, unless ``draw`` says otherwise."""
        dial = partial(self.dial, **options)
        return reconnect(dial, retry=retry, upgrade=upgrade, random=draw)


def on_the_bench(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    """Run ``scenario`` in virtual time; nothing may be left of it."""

    async def main() -> None:
        async with open_bench() as bench:
            await scenario(bench)
            await until_idle(bench.gateway)

    in_virtual_time(main)


@asynccontextmanager
async def open_bench() -> AsyncIterator[Bench]:
    async with Gateway() as gateway, aiohttp.ClientSession() as session:
        yield Bench(gateway, session)


def now() -> float:
    return asyncio.get_running_loop().time()


async def listen(connection: InferenceConnection) -> None:
    async for _ in connection.ws:
        pass


async def converse(connection: InferenceConnection) -> None:
    """Get one message, which proves the connection."""
    await connection.ws.send_str("?")
    assert await connection.ws.receive_str() == "?"
