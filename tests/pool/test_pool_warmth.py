"""Warm, clean and kept alive: what a pool does so that the next turn finds a connection ready."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from helpers.pooling import Site, echo, open_site, until

from agent_conn import CloseReason, ConnectionPool, InferenceConnection, Keepalive
from agent_conn.gateway import CloseWith, Gateway, Reject


async def is_warm(site: Site, pool: ConnectionPool, count: int) -> None:
    await until(lambda: pool.statistics().idle == count)
    await site.gateway.wait_until(lambda: site.gateway.open_sockets == count)


async def test_with_min_idle_as_many_are_idle_before_anyone_asks(site: Site) -> None:
    async with site.pool(min_idle=2) as pool:
        await is_warm(site, pool, 2)
        async with pool.acquire():
            await until(lambda: pool.statistics().idle == 2)
        assert pool.statistics().reused == 1


async def test_with_min_idle_those_that_the_gateway_closes_are_dialled_anew(site: Site) -> None:
    async with site.pool(min_idle=2, jitter=lambda: 0.1) as pool:
        await is_warm(site, pool, 2)
        for connection in site.gateway.connections:
            connection.inject(CloseWith(1001))
        await until(lambda: pool.statistics().closed == {CloseReason.DEAD: 2})
        await is_warm(site, pool, 2)


async def test_with_min_idle_a_gateway_that_is_back_is_dialled_again(
    loop_reports: list[dict[str, Any]],
) -> None:
    async with open_site() as site, site.pool(min_idle=1, jitter=lambda: 0.1) as pool:
        await is_warm(site, pool, 1)
        port = site.gateway.port
        await site.gateway.aclose()
        await until(lambda: pool.statistics().dials_failed >= 2)
        async with Gateway(port=port) as again:
            await again.wait_until(lambda: again.open_sockets == 1)
            await pool.aclose()


async def test_who_asks_within_its_timeout_rides_out_a_restart(
    loop_reports: list[dict[str, Any]],
) -> None:
    async with open_site() as site, site.pool() as pool:
        port = site.gateway.port
        await site.gateway.aclose()
        asking = asyncio.create_task(_borrow(pool))
        await until(lambda: pool.statistics().dials_failed >= 1)
        async with Gateway(port=port):
            await asking
            await pool.aclose()


async def _borrow(pool: ConnectionPool) -> None:
    async with pool.acquire(timeout=8.0) as connection:
        await echo(connection)


async def test_a_gateway_that_refuses_what_is_dialled_in_advance_meets_no_storm(
    site: Site,
) -> None:
    refusal = site.gateway.inject(Reject(403), times=None)
    async with site.pool(min_idle=3, jitter=lambda: 0.5) as pool:
        await until(lambda: pool.statistics().dials_failed == 4)
        # Three at once, and one more half a second later.
        assert refusal.struck == 4


async def finish_answer(ws: aiohttp.ClientWebSocketResponse) -> None:
    while await ws.receive_str() != "done":
        pass


async def test_reset_is_awaited_before_anyone_else_has_the_connection(site: Site) -> None:
    async with site.pool(max_size=1, reset=finish_answer) as pool:
        async with pool.acquire() as first:
            peer = site.gateway.connections[0]
            await peer.send("half an")
        asking = asyncio.create_task(_take(pool))
        await peer.send("answer")
        await until(lambda: pool.statistics().waiting == 1)
        assert pool.statistics().in_use == 1
        await peer.send("done")
        second = await asking
        assert second is first
        await echo(second)
        pool.release(second, reuse=False)


async def _take(pool: ConnectionPool) -> InferenceConnection:
    return await pool.acquire()


async def fail(_: aiohttp.ClientWebSocketResponse) -> None:
    raise LookupError


async def hang(_: aiohttp.ClientWebSocketResponse) -> None:
    await asyncio.Event().wait()


async def test_a_connection_whose_reset_fails_is_closed(site: Site) -> None:
    async with site.pool(reset=fail) as pool:
        async with pool.acquire() as first:
            pass
        async with pool.acquire() as second:
            assert second is not first
        await until(lambda: pool.statistics().closed == {CloseReason.RESET: 2})


async def test_a_reset_that_hangs_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_conn._pool.maintenance.RESET_TIMEOUT", 0.05)
    async with site.pool(reset=hang) as pool:
        async with pool.acquire():
            pass
        await until(lambda: pool.statistics().closed == {CloseReason.RESET: 1})


@pytest.mark.parametrize("how", ["raises", "reuse"])
async def test_what_is_not_used_again_is_not_reset(site: Site, how: str) -> None:
    async with site.pool(reset=fail) as pool:
        connection = await pool.acquire()
        if how == "reuse":
            pool.release(connection, reuse=False)
        else:
            pool.release(connection, reuse=False)
            with pytest.raises(ZeroDivisionError):
                async with pool.acquire():
                    raise ZeroDivisionError
        await until(lambda: pool.statistics().size == 0)
        assert set(pool.statistics().closed) == {CloseReason.FAILED}


async def test_closing_waits_for_a_reset_no_longer_than_for_a_borrower(site: Site) -> None:
    pool = site.pool(reset=hang)
    async with pool.acquire():
        pass
    async with asyncio.timeout(2.0):
        await pool.aclose(grace=0.05)
    assert pool.statistics().size == 0


async def test_an_idle_connection_and_one_in_use_are_kept_alive(site: Site) -> None:
    keepalive = Keepalive(every=0.05, message='{"type": "KeepAlive"}')
    async with site.pool(keepalive=keepalive) as pool:
        async with pool.acquire() as connection:
            for _ in range(3):
                assert await connection.ws.receive_str() == '{"type": "KeepAlive"}'
        await until(lambda: pool.statistics().dropped == 3)
        async with pool.acquire() as again:
            assert again is connection


async def test_where_its_borrower_sends_no_keepalive_goes_out(site: Site) -> None:
    loop = asyncio.get_running_loop()
    async with (
        site.pool(keepalive=Keepalive(every=1.0, message="still here")) as pool,
        pool.acquire() as connection,
    ):
        until_then = loop.time() + 1.5
        while loop.time() < until_then:
            # Nothing but its own echo comes back.
            await echo(connection)
        began = loop.time()
        assert await connection.ws.receive_str() == "still here"
        assert loop.time() - began > 0.5


async def test_a_keepalive_may_be_binary(site: Site) -> None:
    async with (
        site.pool(keepalive=Keepalive(every=0.05, message=b"\0")) as pool,
        pool.acquire() as connection,
    ):
        assert await connection.ws.receive_bytes() == b"\0"


async def test_the_keepalive_of_a_connection_ends_with_it(site: Site) -> None:
    async with site.pool(keepalive=Keepalive(every=3600.0, message="still here")) as pool:
        async with pool.acquire():
            pass
        async with asyncio.timeout(2.0):
            await pool.aclose()
    assert "agent_conn.pool.keepalive" not in {task.get_name() for task in asyncio.all_tasks()}


def test_the_repr_of_a_keepalive_does_not_show_what_is_sent() -> None:
    assert "secret" not in repr(Keepalive(message="secret"))
