"""Whatever way the peer goes while a connection is idle, it is not lent again."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any

import pytest
from helpers.pooling import Clock, Site, echo, open_site, until

from agent_conn import CloseReason, ConnectionPool, InferenceConnection
from agent_conn.gateway import CloseWith, Connection, DropAfter, Fault, GoSilent, Reset

TRIES = 1_000
BATCH = 50


class IdleFor(Enum):
    """How a connection came to be idle before its peer went away."""

    FIRST_TIME = 1
    """Returned from its first loan."""
    A_MOMENT = 2
    """Lent and returned again at once."""
    A_WHILE = 3
    """Likewise, after the pool's clock had gone on."""


async def lend(pool: ConnectionPool, count: int) -> list[InferenceConnection]:
    return list(await asyncio.gather(*(_take(pool) for _ in range(count))))


async def _take(pool: ConnectionPool) -> InferenceConnection:
    return await pool.acquire()


async def lay_idle(pool: ConnectionPool, clock: Clock, how: IdleFor) -> list[InferenceConnection]:
    lent = await lend(pool, BATCH)
    for _ in range(0 if how is IdleFor.FIRST_TIME else 2):
        for connection in lent:
            pool.release(connection)
        clock.ahead += how is IdleFor.A_WHILE
        assert set(await lend(pool, BATCH)) == set(lent)
    for connection in lent:
        pool.release(connection)
    return lent


@pytest.mark.parametrize(
    "tls", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "tls"]
)
@pytest.mark.parametrize(
    "fault",
    [DropAfter(), DropAfter(reset=True), CloseWith(1000), CloseWith(4000)],
    ids=["FIN", "RST", "Close", "age limit"],
)
async def test_in_a_thousand_tries_none_that_ended_is_lent(
    loop_reports: list[dict[str, Any]], fault: Fault, tls: bool
) -> None:
    clock = Clock()
    async with open_site(tls=tls) as site, site.pool(max_size=2 * BATCH, clock=clock) as pool:
        for attempt in range(TRIES // 2 // BATCH):
            # Each way of being idle, and the end seen after ever more turns of the event loop.
            turns, how = divmod(attempt, len(IdleFor))
            lent = await lay_idle(pool, clock, list(IdleFor)[how])
            ended = list(site.gateway.connections)
            for peer in ended:
                peer.inject(fault)
            await site.gateway.wait_until(
                lambda ended=ended: all(end.closed or end.close_code for end in ended)  # type: ignore[misc]
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            again = await lend(pool, BATCH)
            assert not set(again) & set(lent)
            await asyncio.gather(*(echo(connection) for connection in again))
            for connection in again:
                pool.release(connection, reuse=False)
            await until(lambda: pool.statistics().size == 0)


@pytest.mark.slow
async def test_in_a_thousand_tries_none_that_froze_is_lent_once_a_pong_is_due(
    loop_reports: list[dict[str, Any]],
) -> None:
    async with (
        open_site() as site,
        site.pool(lambda: site.dial(heartbeat=0.1), max_size=2 * BATCH) as pool,
    ):
        for _ in range(TRIES // BATCH):
            frozen = await lend(pool, BATCH)
            for silent in site.gateway.connections:
                silent.inject(GoSilent())
            for connection in frozen:
                pool.release(connection)
            # aiohttp hangs up on a peer whose pong is overdue.
            await site.gateway.wait_idle()
            again = await lend(pool, BATCH)
            assert not set(again) & set(frozen)
            for connection in again:
                pool.release(connection, reuse=False)
            await until(lambda: pool.statistics().size == 0)


async def test_one_that_froze_while_it_is_idle_is_closed_within_moments(site: Site) -> None:
    async with site.pool(lambda: site.dial(heartbeat=0.1), rotate=None) as pool:
        async with pool.acquire():
            site.gateway.connections[0].inject(GoSilent())
        await until(lambda: pool.statistics().size == 0, turns=10_000_000)
        assert pool.statistics().closed == {CloseReason.DEAD: 1}


async def test_lent_hit_after_hit_in_one_turn_it_is_still_looked_at(site: Site) -> None:
    async with site.pool() as pool:
        for _ in range(3):
            async with pool.acquire() as first:
                pass
        peer = site.gateway.connections[0]
        peer.inject(Reset())
        await until(lambda: peer.closed)
        async with pool.acquire() as second:
            assert second is not first
            await echo(second)


async def test_one_that_ends_while_it_is_idle_is_closed_at_once(site: Site) -> None:
    async with site.pool() as pool:
        pool.prewarm(3)
        await until(lambda: pool.statistics().idle == 3)
        for connection in site.gateway.connections:
            connection.inject(CloseWith(1001))
        await site.gateway.wait_idle()
        await until(lambda: pool.statistics().size == 0)


async def test_a_waiter_that_is_given_a_dead_one_keeps_its_place(site: Site) -> None:
    served: list[int] = []

    async def borrow(number: int) -> None:
        async with pool.acquire() as connection:
            served.append(number)
            await echo(connection)

    async with site.pool(max_size=1) as pool:
        held = await pool.acquire()
        borrowers = [asyncio.create_task(borrow(number)) for number in range(3)]
        await until(lambda: pool.statistics().waiting == 3)
        peer = site.gateway.connections[0]
        peer.inject(CloseWith(1000))
        await until(lambda: peer.closed or peer.close_code is not None)
        pool.release(held)
        await asyncio.gather(*borrowers)
    assert served == [0, 1, 2]


async def test_a_peer_that_goes_on_sending_is_taken_to_be_alive(site: Site) -> None:
    async with site.pool() as pool:
        async with pool.acquire() as first:
            pass
        peer = site.gateway.connections[0]
        sending = asyncio.create_task(_talk(peer))
        async with pool.acquire() as second:
            assert second is first
        sending.cancel()
        await asyncio.wait({sending})


async def _talk(peer: Connection) -> None:
    while not peer.closed:
        try:
            await peer.send("noise")
        except ConnectionError:
            return
        await asyncio.sleep(0)


async def test_what_comes_between_two_loans_in_one_turn_is_seen(site: Site) -> None:
    async with site.pool() as pool:
        for _ in range(4):
            async with pool.acquire():
                pass
        # It is in the kernel at once, and the event loop had no turn to read it.
        await site.gateway.connections[0].send("late")
        async with pool.acquire() as connection:
            assert pool.statistics().dropped == 1
            await echo(connection)
