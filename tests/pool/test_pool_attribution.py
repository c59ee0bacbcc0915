from __future__ import annotations

import asyncio

import pytest
from helpers.pooling import Clock, Site, echo, until

from agent_conn import (
    AttributionLevel,
    AttributionUnavailable,
    CloseReason,
    ConnectionState,
    PoolTimeout,
)
from agent_conn.gateway import Reject

AGENT, ROOM = AttributionLevel.AGENT, AttributionLevel.ROOM


def levels(site: Site) -> list[AttributionLevel]:
    return [connection.level for connection in site.gateway.connections]


async def test_once_the_room_connects_the_next_that_asks_for_agent_gets_agent(site: Site) -> None:
    async with site.pool(rotate=None) as pool:
        async with pool.acquire() as early:
            assert early.attribution is ROOM
        site.room.connected.set()
        async with pool.acquire(min_attribution=AGENT) as connection:
            assert connection.attribution is AGENT
            assert levels(site)[-1] is AGENT


async def test_an_idle_room_makes_place_in_a_full_pool_for_who_asks_for_agent(site: Site) -> None:
    async with site.pool(rotate=None, max_size=2) as pool:
        async with pool.acquire(), pool.acquire():
            pass
        site.room.connected.set()
        async with pool.acquire(min_attribution=AGENT) as connection:
            assert connection.attribution is AGENT
            assert pool.statistics().size == 2
        assert pool.statistics().closed == {CloseReason.EVICTED: 1}


async def test_while_the_room_is_not_connected_asking_for_agent_fails(site: Site) -> None:
    async with site.pool() as pool:
        with pytest.raises(AttributionUnavailable, match="ROOM, AGENT"):
            await pool.acquire(min_attribution=AGENT)
        # What was dialled for it serves whoever asks for less.
        async with pool.acquire():
            assert site.gateway.accepted == 1


async def test_idle_ones_are_agent_within_a_second_and_none_in_use_is_cut(site: Site) -> None:
    loop = asyncio.get_running_loop()
    async with site.pool() as pool:
        pool.prewarm(5)
        await until(lambda: pool.statistics().idle == 5)
        async with pool.acquire() as lent:
            site.room.connected.set()
            connected = loop.time()
            await site.gateway.wait_until(lambda: sorted(levels(site)) == [ROOM] + [AGENT] * 4)
            assert loop.time() - connected < 1.0
            await echo(lent)
            assert lent.attribution is ROOM
        async with asyncio.timeout(1.0):
            await site.gateway.wait_until(lambda: levels(site) == [AGENT] * 5)


async def test_the_new_one_is_open_before_the_old_one_is_closed(site: Site) -> None:
    least: list[int] = []
    async with site.pool(rotate=0.02) as pool:
        async with pool.acquire() as old:
            pass
        site.room.connected.set()

        def look() -> bool:
            least.append(len(site.gateway.connections))
            return levels(site) == [AGENT]

        await site.gateway.wait_until(look)
        assert min(least) == 1
        await until(lambda: old.state is ConnectionState.CLOSED)
        assert pool.statistics().closed == {CloseReason.REPLACED: 1}


async def test_in_a_full_pool_the_old_one_is_closed_first(site: Site) -> None:
    most: list[int] = []
    async with site.pool(rotate=0.02, max_size=1) as pool:
        async with pool.acquire():
            pass
        site.room.connected.set()

        def look() -> bool:
            most.append(site.gateway.open_sockets)
            return levels(site) == [AGENT]

        await site.gateway.wait_until(look)
        assert max(most) == 1


async def test_one_in_use_is_replaced_when_it_is_returned(site: Site) -> None:
    async with site.pool(rotate=3600.0) as pool:
        async with pool.acquire() as old:
            site.room.connected.set()
        await site.gateway.wait_until(lambda: levels(site) == [AGENT])
        await until(lambda: old.state is ConnectionState.CLOSED)


async def test_one_that_is_never_left_idle_is_replaced_too(site: Site) -> None:
    async def keep_busy() -> None:
        while True:
            async with pool.acquire() as connection:
                await echo(connection)

    async with site.pool(max_size=1, rotate=3600.0) as pool:
        busy = [asyncio.create_task(keep_busy()) for _ in range(2)]
        await until(lambda: pool.statistics().acquired > 10)
        site.room.connected.set()
        await site.gateway.wait_until(lambda: levels(site) == [AGENT])
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)


async def test_one_that_is_out_of_date_is_not_lent_while_no_better_one_can_be_had(
    site: Site,
) -> None:
    async with site.pool(rotate=0.02) as pool:
        async with pool.acquire():
            pass
        rejection = site.gateway.inject(Reject(503), times=None)
        site.room.connected.set()
        with pytest.raises(PoolTimeout, match="503"):
            await pool.acquire(timeout=0.3)
        assert pool.statistics().idle == 1
        rejection.withdraw()
        async with pool.acquire() as connection:
            assert connection.attribution is AGENT


async def test_one_whose_successor_cannot_be_had_is_left_alone_for_a_while(site: Site) -> None:
    clock = Clock()
    async with site.pool(rotate=0.02, clock=clock, jitter=lambda: 0.0) as pool:
        async with pool.acquire() as old:
            pass
        rejection = site.gateway.inject(Reject(503))
        site.room.connected.set()
        await site.gateway.wait_until(lambda: bool(rejection.struck))
        await site.gateway.wait_until(lambda: levels(site) == [ROOM])
        clock.ahead = 4.0
        with pytest.raises(TimeoutError):
            await site.gateway.wait_until(lambda: site.gateway.accepted > 2, timeout=0.3)
        clock.ahead = 6.0
        await until(lambda: old.state is ConnectionState.CLOSED)
        await site.gateway.wait_until(lambda: levels(site) == [AGENT])


async def test_without_rotation_one_that_is_out_of_date_stays_and_is_not_lent(site: Site) -> None:
    async with site.pool(rotate=None) as pool:
        async with pool.acquire() as old:
            pass
        site.room.connected.set()
        async with pool.acquire() as connection:
            assert connection is not old
            assert old.state is ConnectionState.OPEN
            assert pool.statistics().idle == 1
