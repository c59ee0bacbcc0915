"""Hold a session over connections that drop, until it is closed in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import aiohttp
from duplex import converse

from agent_conn import InferenceConnection, Reconnector, ReplayBuffer

T = TypeVar("T")
Work = Coroutine[Any, Any, None]


async def converse_over(
    loop: Reconnector,
    buffer: ReplayBuffer[T],
    *,
    feed: Callable[[], Work],
    read: Callable[[InferenceConnection, float], Work],
    write: Callable[[aiohttp.ClientWebSocketResponse], Work],
) -> None:
    """Read and write each connection of `loop` until a session is closed in order.

    `feed` fills the buffer from when the first connection is open. `read` is told how many
    seconds at the beginning of its connection were sent on an earlier one too.

    Raises:
        AgentConnError: `loop` gave up.
        Exception: whatever else `feed`, `read` or `write` raised.
    """
    feeding: asyncio.Task[None] | None = None

    async def pump(connection: InferenceConnection) -> bool:
        nonlocal feeding
        if feeding is None:
            feeding = asyncio.create_task(feed(), name="feeder")
        buffer.begin()
        repeated = buffer.statistics.repeated_seconds
        # A drop comes out of here, and has the loop dial again.
        await converse(connection, read(connection, repeated), write(connection.ws))
        return True

    try:
        async with loop:
            await loop.run(pump)
        if feeding is not None:
            await feeding
    finally:
        if feeding is not None:
            feeding.cancel()
            await asyncio.wait((feeding,))
        buffer.close()
