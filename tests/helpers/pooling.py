"""What the pool's tests need: a gateway, a room, and a session to dial with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from agent_conn import ConnectionPool, InferenceConnection
from agent_conn.gateway import Gateway
from helpers.support import Room


class Clock:
    """A clock that also goes on when told to."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@dataclass
class Site:
    """A gateway, a session without a limit to reach it, and a room."""

    gateway: Gateway
    session: aiohttp.ClientSession
    room: Room = field(default_factory=Room)
    dials: int = 0

    def dial(self, **options: Any) -> InferenceConnection:
        self.dials += 1
        options.setdefault("identity", self.room.identity)
        options.setdefault("close_timeout", 0.3)
        return InferenceConnection(self.session, self.gateway.url("/v1/echo"), **options)

    def pool(
        self, dial: Callable[[], InferenceConnection] | None = None, **options: Any
    ) -> ConnectionPool:
        return ConnectionPool(dial or self.dial, **options)


@asynccontextmanager
async def open_site(**options: Any) -> AsyncIterator[Site]:
    """A site; on leaving, no socket may be open."""
    async with Gateway(**options) as gateway:
        connector = aiohttp.TCPConnector(limit=0, ssl=gateway.client_ssl or True)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Site(gateway, session)
            await gateway.wait_idle(2.0)


async def until(condition: Callable[[], bool], turns: int = 2_000_000) -> None:
    """Turn the event loop until ``condition`` holds."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to be")


async def echo(connection: InferenceConnection, text: str = "hello") -> None:
    """Send and receive once, which only a live connection can."""
    await connection.ws.send_str(text)
    assert (await connection.ws.receive_str()) == text
