"""What loops and many dials make of several endpoints, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import aiohttp
import pytest
from helpers.pair import Pair, echoed
from helpers.staying_bench import converse, listen, now
from helpers.virtual_time import elapse, in_virtual_time, settle, until_idle

from agent_conn import InferenceConnection, Reconnector, reconnect
from agent_conn.gateway import CloseWith, Gateway, Reject

LONGEST_REST = 36.5


def with_a_pair(scenario: Callable[[Pair], Awaitable[None]]) -> None:
    """Run ``scenario`` in virtual time; nothing may be left of it."""

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            Gateway() as near,
            Gateway() as far,
            aiohttp.ClientSession(connector=connector) as session,
        ):
            await scenario(Pair(near, far, session))
            for gateway in (near, far):
                await until_idle(gateway)

    in_virtual_time(main)


def loop_of(pair: Pair) -> Reconnector:
    """A loop whose every jitter is the longest, and which dials where ``pair`` does now."""
    dial = partial(InferenceConnection, pair.session, pair.endpoints)
    return reconnect(dial, random=lambda: 1.0)


async def served(pair: Pair, dials: int) -> list[str]:
    """Which gateway served each of ``dials`` that began together, sorted."""
    names = {pair.near.url("/v1/echo"): "near", pair.far.url("/v1/echo"): "far"}
    endpoints = await asyncio.gather(*(echoed(pair.dial()) for _ in range(dials)))
    return sorted(names[endpoint] for endpoint in endpoints)


def test_an_ejected_endpoint_is_tried_by_one_dial_after_half_a_minute() -> None:
    async def scenario(pair: Pair) -> None:
        near = pair.near
        near.inject(Reject(503), times=None)
        assert await served(pair, 5) == ["far"] * 5
        assert len(near.handshakes) == 5
        await elapse(23.0)
        assert await served(pair, 3) == ["far"] * 3
        assert len(near.handshakes) == 5
        await elapse(LONGEST_REST - 23.0)
        assert await served(pair, 4) == ["far"] * 4
        assert len(near.handshakes) == 6
        near.withdraw_faults()
        assert await served(pair, 2) == ["far"] * 2
        await elapse(LONGEST_REST)
        assert await served(pair, 3) == ["far", "far", "near"]
        assert await served(pair, 2) == ["near"] * 2

    with_a_pair(scenario)


@pytest.mark.parametrize("code", [1012, 1013])
def test_a_loop_does_not_wait_for_a_restart_while_another_endpoint_works(code: int) -> None:
    async def scenario(pair: Pair) -> None:
        gaps: list[float] = []
        lost_at = 0.0

        async def pump(connection: InferenceConnection) -> bool | None:
            nonlocal lost_at
            if lost_at:
                gaps.append(now() - lost_at)
            await converse(connection)
            await elapse(10.0)
            here = pair.near if connection.url.port == pair.near.port else pair.far
            if len(gaps) == 2:
                return True
            # From now on this one is down.
            here.inject(Reject(503))
            here.connections[0].inject(CloseWith(code))
            await listen(connection)
            lost_at = now()
            return None

        await loop_of(pair).run(pump)
        assert gaps[0] < 0.2
        # Both have failed now: as with one gateway.
        assert gaps[1] >= 5.0

    with_a_pair(scenario)


def test_loops_with_the_same_endpoints_probe_an_outage_one_after_another() -> None:
    async def dials_in_an_outage(pair: Pair, *, shared: bool) -> int:
        pair.near.inject(Reject(503), times=None)
        pair.far.inject(Reject(503), times=None)
        before = len(pair.near.handshakes)
        loops: list[Reconnector] = []
        for _ in range(10):
            if not shared:
                pair.endpoints = pair.make_endpoints()
            loops.append(loop_of(pair))
        opened: list[InferenceConnection] = []

        async def pump(connection: InferenceConnection) -> bool:
            opened.append(connection)
            return True

        running = [asyncio.create_task(loop.run(pump), name="loop") for loop in loops]
        await settle()
        await elapse(30.0)
        dials = len(pair.near.handshakes) - before
        for gateway in (pair.near, pair.far):
            gateway.withdraw_faults()
        await asyncio.gather(*running)
        assert len(opened) == 10
        return dials

    async def scenario(pair: Pair) -> None:
        together = await dials_in_an_outage(pair, shared=True)
        apart = await dials_in_an_outage(pair, shared=False)
        assert 10 <= together <= 25
        assert apart >= 50

    with_a_pair(scenario)
