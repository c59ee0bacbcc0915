"""A minute without a gateway: afterwards all are back, and not all at once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from functools import partial

import aiohttp
import pytest
from virtual_time import elapse, in_virtual_time, settle, until_idle

from agent_conn import InferenceConnection, Reconnector, reconnect
from agent_conn.gateway import Gateway

pytestmark = pytest.mark.timeout(240)

LOOPS = 1_000
OUTAGE = 60.0
BATCH = 50


async def follow(loop: Reconnector) -> None:
    async for connection in loop:
        async for _ in connection.ws:
            pass


async def live_through_an_outage() -> tuple[int, list[float]]:
    """How many are connected a while after it, and when each was dialled, counted from it."""
    time = asyncio.get_running_loop().time
    dice = random.Random(5)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        before = Gateway()
        await before.start()
        dial = partial(InferenceConnection, session, before.url("/v1/echo"))
        loops = [reconnect(dial, random=dice.random) for _ in range(LOOPS)]
        following = []
        # In batches, for the sake of the listener's backlog.
        for start in range(0, LOOPS, BATCH):
            following += [asyncio.create_task(follow(one)) for one in loops[start : start + BATCH]]
            await settle()
        assert before.open_sockets == LOOPS
        await elapse(30.0)
        lost_at = time()
        await before.aclose()
        await elapse(OUTAGE - (time() - lost_at))
        async with Gateway(port=before.port) as after:
            back_at = time()
            await elapse(60.0)
            connected = after.open_sockets
            dials = [shake.request_at - back_at for shake in after.handshakes]
            await asyncio.gather(*(one.aclose() for one in loops), *following)
            await until_idle(after)
    return connected, dials


def test_after_an_outage_all_are_back_and_their_dials_are_spread() -> None:
    connected, dials = in_virtual_time(live_through_an_outage, grace=0.0)
    assert connected == LOOPS
    assert len(dials) == LOOPS
    by_second = Counter(int(at) for at in dials)
    mean = len(dials) / (max(by_second) + 1)
    assert max(by_second.values()) <= 3 * mean
