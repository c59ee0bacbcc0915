from __future__ import annotations

from itertools import cycle

from helpers.pooling import Clock, Site, echo, until

from agent_conn import CloseReason, ConnectionState


async def test_one_that_nobody_used_is_closed(site: Site) -> None:
    async with site.pool(max_idle=0.03, max_age=None) as pool:
        pool.prewarm(2)
        await site.gateway.wait_until(lambda: site.gateway.accepted == 2)
        await site.gateway.wait_idle()
        await until(lambda: pool.statistics().size == 0)
        assert pool.statistics().closed == {CloseReason.UNUSED: 2}


async def test_one_that_grows_old_while_idle_is_replaced_before_it_is_too_old(site: Site) -> None:
    clock = Clock()
    async with site.pool(max_age=100.0, jitter=lambda: 1.0, clock=clock) as pool:
        async with pool.acquire() as old:
            pass
        clock.ahead = 91.0
        await until(lambda: old.state is ConnectionState.CLOSED)
        async with pool.acquire() as young:
            await echo(young)
        assert site.gateway.accepted == 2
        assert pool.statistics().closed == {CloseReason.REPLACED: 1}


async def test_what_was_opened_together_is_not_renewed_together(site: Site) -> None:
    clock, spread = Clock(), cycle((0.0, 1.0))
    async with site.pool(max_age=100.0, jitter=lambda: next(spread), clock=clock) as pool:
        async with pool.acquire() as late, pool.acquire() as soon:
            pass
        clock.ahead = 93.0
        await until(lambda: soon.state is ConnectionState.CLOSED)
        assert late.state is ConnectionState.OPEN


async def test_one_that_nobody_used_is_not_replaced_for_ever(site: Site) -> None:
    clock = Clock()
    async with site.pool(max_age=100.0, max_idle=150.0, jitter=lambda: 1.0, clock=clock) as pool:
        pool.prewarm()
        await until(lambda: pool.statistics().idle == 1)
        clock.ahead = 91.0
        await until(lambda: pool.statistics().closed == {CloseReason.REPLACED: 1})
        clock.ahead = 151.0
        await until(lambda: pool.statistics().size == 0)
        assert pool.statistics().closed == {CloseReason.REPLACED: 1, CloseReason.UNUSED: 1}


async def test_too_old_it_is_not_lent(site: Site) -> None:
    clock = Clock()
    async with site.pool(max_age=60.0, max_idle=None, clock=clock) as pool:
        async with pool.acquire() as old:
            pass
        clock.ahead = 60.0
        async with pool.acquire() as young:
            assert young is not old


async def test_idle_for_too_long_it_is_not_lent(site: Site) -> None:
    clock = Clock()
    async with site.pool(max_age=None, max_idle=60.0, max_size=1, clock=clock) as pool:
        async with pool.acquire() as old:
            pass
        clock.ahead = 60.0
        async with pool.acquire() as young:
            assert young is not old


async def test_too_old_on_its_return_it_is_closed(site: Site) -> None:
    clock = Clock()
    async with site.pool(max_age=60.0, clock=clock) as pool:
        async with pool.acquire() as old:
            clock.ahead = 60.0
            await echo(old)
        await until(lambda: old.state is ConnectionState.CLOSED)
        assert pool.statistics().closed == {CloseReason.AGED: 1}
