"""What a console shows of the objects that own connections."""

from __future__ import annotations

from functools import partial

import aiohttp

from agent_conn import ConnectionPool, InferenceConnection, reconnect
from agent_conn.gateway import Gateway


async def test_a_pool_and_a_loop_show_what_they_own_and_no_secret(
    gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    url = gateway.url("/v1/echo?key=canary")
    dial = partial(InferenceConnection, session, url, token="canary")
    async with ConnectionPool(dial) as pool, reconnect(dial) as loop:
        assert repr(loop) == "<Reconnector idle, 0 opened, 0 lost>"
        async with pool.acquire():
            assert repr(pool) == "<ConnectionPool 1 in use, 0 idle, 0 dialing, 0 waiting>"
        async for _ in loop:
            assert repr(loop) == "<Reconnector open, 1 opened, 0 lost>"
            break
