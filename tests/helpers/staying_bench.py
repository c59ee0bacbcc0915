"""What the tests of loops share: a gateway and a session in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from agent_conn import (
    InferenceConnection,
    Reconnector,
    RetryPolicy,
    Standby,
    UpgradePolicy,
    reconnect,
)
from helpers.support import Line, line_of
from helpers.virtual_time import in_virtual_time, until_idle


class Bench(Line):
    """A line in virtual time."""

    def loop(
        self,
        retry: RetryPolicy | None = None,
        upgrade: UpgradePolicy | None = None,
        draw: Callable[[], float] = lambda: 1.0,
        *,
        standby: Standby | None = None,
        max_age: float | None = None,
        **options: Any,
    ) -> Reconnector:
        """A loop whose every jitter is the longest, unless ``draw`` says otherwise."""
        dial = partial(self.dial, **options)
        return reconnect(
            dial, retry=retry, upgrade=upgrade, standby=standby, max_age=max_age, random=draw
        )


def on_the_bench(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    """Run ``scenario`` in virtual time; nothing may be left of it."""

    async def main() -> None:
        async with line_of(Bench) as bench:
            await scenario(bench)
            await until_idle(bench.gateway)

    in_virtual_time(main)


def now() -> float:
    return asyncio.get_running_loop().time()


async def listen(connection: InferenceConnection) -> None:
    async for _ in connection.ws:
        pass


async def converse(connection: InferenceConnection) -> None:
    """Get one message, which proves the connection."""
    await connection.ws.send_str("?")
    assert await connection.ws.receive_str() == "?"
