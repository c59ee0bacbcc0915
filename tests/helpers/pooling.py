"""What the pool's tests need: a gateway, a room, and a session to dial with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from agent_conn import ConnectionPool, InferenceConnection
from helpers.support import Line, line_of


class Clock:
    """A clock that also goes on when told to."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Site(Line):
    """A line for pools, whose connections know the room and close soon."""

    @property
    def dials(self) -> int:
        return len(self.made)

    def dial(self, path: str = "/v1/echo", **options: Any) -> InferenceConnection:
        options.setdefault("identity", self.room.identity)
        options.setdefault("close_timeout", 0.3)
        return super().dial(path, **options)

    def pool(
        self, dial: Callable[[], InferenceConnection] | None = None, **options: Any
    ) -> ConnectionPool:
        return ConnectionPool(dial or self.dial, **options)


@asynccontextmanager
async def open_site(**options: Any) -> AsyncIterator[Site]:
    """A site; on leaving, no socket may be open."""
    async with line_of(Site, **options) as site:
        yield site
        await site.gateway.wait_idle(2.0)


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
