"""Closed at whatever moment, from wherever: nothing of a pool is left, and nobody hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import aiohttp
import anyio
import pytest
from helpers.pool_closing import close_random_pools, left_of
from helpers.pooling import Site, until

from agent_conn import ConnectionPool, ConnectionState, InferenceConnection, StateError
from agent_conn.gateway import GoSilent


@pytest.mark.parametrize("seed", range(4))
async def test_random_pools_closed_at_random_moments_leave_nothing(site: Site, seed: int) -> None:
    assert await close_random_pools(site, seed, pools=25) == []


async def test_random_pools_leave_nothing_on_uvloop_either() -> None:
    uvloop = pytest.importorskip("uvloop")
    assert await asyncio.to_thread(uvloop.run, left_of(100)) == []


async def test_closed_by_what_its_first_on_open_tells_it_leaves_nothing(site: Site) -> None:
    for _ in range(20):
        ready = asyncio.Event()
        made: list[InferenceConnection] = []

        async def greet(ws: aiohttp.ClientWebSocketResponse, ready: asyncio.Event = ready) -> None:
            await ws.send_str("hello")
            await ws.receive_str()
            ready.set()

        def dial(
            made: list[InferenceConnection] = made,
            greet: Callable[[aiohttp.ClientWebSocketResponse], object] = greet,
        ) -> InferenceConnection:
            made.append(site.dial(on_open=greet))
            return made[-1]

        async with site.pool(dial) as pool:
            pool.prewarm()
            await ready.wait()
        assert pool.statistics().size == 0
        assert made[0].state is ConnectionState.CLOSED


async def test_a_dial_given_up_in_the_step_in_which_it_opens_is_closed(site: Site) -> None:
    made: list[InferenceConnection] = []

    async def give_up(_: aiohttp.ClientWebSocketResponse) -> None:
        # Nothing is awaited after this: the task is cancelled, and yet it has opened.
        pool.invalidate()

    def dial() -> InferenceConnection:
        made.append(site.dial(on_open=give_up if not made else None))
        return made[-1]

    async with site.pool(dial) as pool:
        pool.prewarm()
        await until(lambda: pool.statistics().idle == 1)
    assert [each.state for each in made] == [ConnectionState.CLOSED] * 2


async def test_under_a_cancelled_scope_of_anyio_all_is_closed_when_it_returns(site: Site) -> None:
    pool = site.pool(lambda: site.dial(close_timeout=0.2))
    lent, idle = await pool.acquire(), await pool.acquire()
    pool.release(idle)
    for peer in site.gateway.connections:
        peer.inject(GoSilent())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await pool.aclose(grace=30.0)
    assert scope.cancelled_caught
    assert pool.statistics().size == 0
    assert {lent.state, idle.state} == {ConnectionState.CLOSED}


async def test_a_borrower_in_a_cancelled_scope_of_anyio_leaves_nothing_lent(site: Site) -> None:
    async with site.pool() as pool:
        for turns in range(30):
            with anyio.CancelScope() as scope:
                asyncio.get_running_loop().call_later(turns / 5000, scope.cancel)
                async with pool.acquire() as connection:
                    await connection.ws.receive()
            figures = pool.statistics()
            assert (figures.in_use, figures.waiting) == (0, 0)


async def test_closed_within_the_grace_and_a_close_timeout_whatever_peers_do(site: Site) -> None:
    loop = asyncio.get_running_loop()
    pool = site.pool(lambda: site.dial(close_timeout=0.2))
    held = [await pool.acquire() for _ in range(3)]
    pool.release(held[0])
    for peer in site.gateway.connections:
        peer.inject(GoSilent())
    began = loop.time()
    await pool.aclose(grace=0.1)
    assert loop.time() - began < 0.1 + 0.2 + 0.3
    assert pool.statistics().size == 0


async def test_closed_by_its_own_reset_or_hook_it_waits_not_for_itself(site: Site) -> None:
    async def close_the_pool(_: aiohttp.ClientWebSocketResponse) -> None:
        await pool.aclose(grace=0.05)

    for options in ({"on_open": close_the_pool}, {}):
        pool = site.pool(
            lambda options=options: site.dial(**options),  # type: ignore[misc]
            reset=close_the_pool,
        )
        async with asyncio.timeout(2.0):
            if options:
                with pytest.raises(StateError):
                    await pool.acquire()
            else:
                pool.release(await pool.acquire())
                await until(lambda pool=pool: pool.closed)  # type: ignore[misc]
            await pool.aclose()
        assert pool.statistics().size == 0


def test_prewarmed_where_no_loop_runs_it_says_so_and_serves_all_the_same() -> None:
    pool = ConnectionPool(_unused, max_size=1)
    with pytest.raises(StateError, match="got none"):
        pool.prewarm()
    assert pool.statistics().size == 0

    async def use() -> None:
        with pytest.raises(LookupError):
            await pool.acquire(timeout=1.0)
        await pool.aclose()

    asyncio.run(use())


def _unused() -> InferenceConnection:
    raise LookupError


USES: list[Callable[[ConnectionPool], object]] = [
    lambda pool: pool.prewarm(),
    lambda pool: pool.invalidate(),
    lambda pool: pool.release(None),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("use", USES)
async def test_used_in_another_thread_it_says_so(
    site: Site, use: Callable[[ConnectionPool], object]
) -> None:
    said: list[Exception] = []

    def run() -> None:
        try:
            use(pool)
        except StateError as error:
            said.append(error)

    async with site.pool() as pool:
        async with pool.acquire():
            pass
        thread = threading.Thread(target=run)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert "event loop" in str(said[0])
        assert pool.statistics().idle == 1


async def test_used_in_another_loop_it_says_so(site: Site) -> None:
    async with site.pool() as pool:
        async with pool.acquire():
            pass

        async def elsewhere() -> None:
            with pytest.raises(StateError, match="one event loop"):
                await pool.acquire()
            with pytest.raises(StateError, match="one event loop"):
                await pool.aclose()

        await asyncio.to_thread(asyncio.run, elsewhere())
        assert not pool.closed
        async with pool.acquire():
            assert pool.statistics().reused == 1
