"""Cancelled after any number of turns of the event loop: nothing of the pool's is left over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from helpers.pooling import Site, echo, until

from agent_conn import ConnectionPool, InferenceConnection
from agent_conn.gateway import GoSilent

ENOUGH_TURNS = 200
Work = Callable[[ConnectionPool], Coroutine[Any, Any, None]]


async def borrow(pool: ConnectionPool) -> None:
    async with pool.acquire() as connection:
        await echo(connection)


async def probe_and_borrow(pool: ConnectionPool) -> None:
    async def probe(ws: aiohttp.ClientWebSocketResponse) -> None:
        await ws.send_str("probe")
        await ws.receive()

    async with pool.acquire(probe=probe) as connection:
        await echo(connection)


async def cancelled_after(turns: int, work: Coroutine[Any, Any, None]) -> bool:
    """Whether ``work`` had ended by itself before."""
    task = asyncio.create_task(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    finished = task.done()
    task.cancel()
    await asyncio.wait({task})
    return finished


async def sweep(site: Site, pool: ConnectionPool, work: Work, prepare: Work | None = None) -> int:
    """Cancel ``work`` after ever more turns, until it ends; nothing may stay lent or waiting."""
    for turns in range(ENOUGH_TURNS):
        if prepare is not None:
            await prepare(pool)
        finished = await cancelled_after(turns, work(pool))
        figures = pool.statistics()
        assert (figures.in_use, figures.waiting) == (0, 0)
        await borrow(pool)
        await until(lambda: pool.statistics().dialing + pool.statistics().closing == 0)
        await site.gateway.wait_until(lambda: site.gateway.open_sockets == pool.statistics().size)
        if finished:
            return turns
    raise AssertionError(f"not done after {ENOUGH_TURNS} turns")


async def start_cold(pool: ConnectionPool) -> None:
    pool.invalidate()
    await until(lambda: pool.statistics().size == 0)


@pytest.mark.parametrize("work", [borrow, probe_and_borrow])
async def test_cancelled_while_it_dials(site: Site, work: Work) -> None:
    async with site.pool(max_size=2) as pool:
        assert await sweep(site, pool, work, start_cold) > 5


@pytest.mark.parametrize("work", [borrow, probe_and_borrow])
async def test_cancelled_while_an_idle_one_is_looked_at(site: Site, work: Work) -> None:
    async def send_something(_: ConnectionPool) -> None:
        # What is not read yet has to be, before the connection can be lent.
        for peer in site.gateway.connections:
            await peer.send("late")

    async with site.pool(max_size=2) as pool:
        assert await sweep(site, pool, work, send_something) > 3


async def test_cancelled_while_it_waits_for_a_return(site: Site) -> None:
    async with site.pool(max_size=1) as pool:
        for turns in range(40):
            held = await pool.acquire()
            waiting = asyncio.create_task(borrow(pool))
            asyncio.get_running_loop().call_soon(pool.release, held)
            await cancelled_after(turns, borrow(pool))
            await waiting
            figures = pool.statistics()
            assert (figures.in_use, figures.waiting) == (0, 0)


async def test_cancelled_in_the_turn_in_which_it_is_served(site: Site) -> None:
    async with site.pool(max_size=1) as pool:
        held = await pool.acquire()
        waiting = asyncio.create_task(borrow(pool))
        await until(lambda: pool.statistics().waiting == 1)
        pool.release(held)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        assert pool.statistics().idle == 1
        # And the other way about: one that was cancelled first is passed over.
        held = await pool.acquire()
        gone, next_one = asyncio.create_task(borrow(pool)), asyncio.create_task(borrow(pool))
        await until(lambda: pool.statistics().waiting == 2)
        gone.cancel()
        pool.release(held)
        await next_one
        assert gone.cancelled()


@pytest.mark.parametrize("frozen", [False, True])
async def test_cancelled_while_it_closes(site: Site, frozen: bool) -> None:
    for turns in range(60):
        if frozen:
            site.gateway.inject(GoSilent(), times=2)
        pool = site.pool(lambda: site.dial(close_timeout=0.05))
        idle, lent = await pool.acquire(), await pool.acquire()
        pool.release(idle)
        finished = await cancelled_after(turns, pool.aclose(grace=0.01))
        await pool.aclose()
        assert pool.statistics().size == 0
        assert lent.ws.closed
        await site.gateway.wait_idle()
        if finished:
            break


async def test_a_room_wait_that_is_cancelled_with_the_pool_leaves_nothing(site: Site) -> None:
    def dial() -> InferenceConnection:
        return site.dial(room_connected=site.room.connected, connect_wait=None)

    for turns in range(0, 60, 3):
        pool = site.pool(dial)
        pool.prewarm(2)
        await cancelled_after(turns, borrow(pool))
        await pool.aclose()
        assert pool.statistics().size == 0
