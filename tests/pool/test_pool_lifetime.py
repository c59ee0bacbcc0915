from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import logging
import pickle

import pytest
from helpers.pooling import Site, echo, until

from agent_conn import (
    CloseReason,
    ConnectionPool,
    ConnectionState,
    InferenceConnection,
    StateError,
)
from agent_conn.gateway import Reject, StallInHandshake


async def test_prewarmed_it_takes_no_dial(site: Site) -> None:
    async with site.pool() as pool:
        pool.prewarm(2)
        await until(lambda: pool.statistics().idle == 2)
        async with pool.acquire(), pool.acquire():
            assert site.gateway.accepted == 2


async def test_prewarm_counts_what_is_owned_already(site: Site) -> None:
    async with site.pool() as pool:
        async with pool.acquire():
            pool.prewarm()
            pool.prewarm(2)
            pool.prewarm(2)
            await until(lambda: pool.statistics().idle == 1)
        assert site.dials == 2


@pytest.mark.parametrize("prewarm_first", [True, False])
async def test_prewarm_beside_acquire_opens_no_second_socket(
    site: Site, prewarm_first: bool
) -> None:
    async with site.pool() as pool:
        if prewarm_first:
            pool.prewarm()
        taking = asyncio.create_task(_take(pool))
        await asyncio.sleep(0)
        pool.prewarm()
        await taking
        assert pool.statistics().size == 1
    assert site.gateway.accepted == 1


async def test_a_prewarm_that_fails_is_logged_counted_and_tried_again(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.gateway.inject(Reject(503))
    with caplog.at_level(logging.WARNING, logger="agent_conn"):
        async with site.pool(jitter=lambda: 0.01) as pool:
            pool.prewarm()
            await until(lambda: pool.statistics().idle == 1)
            assert pool.statistics().dials_failed == 1
    (record,) = (each for each in caplog.records if "pool_" in each.getMessage())
    assert record.message == "pool_dial_failed: error=HandshakeRejected"


async def test_invalidated_the_idle_are_closed_and_the_lent_on_their_return(site: Site) -> None:
    async with site.pool() as pool:
        async with pool.acquire() as lent:
            async with pool.acquire() as idle:
                pass
            pool.invalidate()
            await until(lambda: idle.state is ConnectionState.CLOSED)
            await echo(lent)
        await until(lambda: lent.state is ConnectionState.CLOSED)
        async with pool.acquire() as fresh:
            assert fresh not in (lent, idle)
        assert pool.statistics().closed == {CloseReason.INVALIDATED: 2}


@pytest.mark.parametrize("turns", range(0, 60, 4))
async def test_a_handshake_under_way_when_invalidated_is_discarded(site: Site, turns: int) -> None:
    made: list[InferenceConnection] = []

    def dial() -> InferenceConnection:
        made.append(site.dial())
        return made[-1]

    async with site.pool(dial, max_size=1) as pool:
        taking = asyncio.create_task(_hold(pool))
        for _ in range(turns):
            await asyncio.sleep(0)
        before = list(made)
        pool.invalidate()
        connection = await taking
        assert connection not in before or connection.state is ConnectionState.OPEN
        if connection in before:
            # It was lent before the invalidation, and so closed on its return.
            pool.release(connection)
            await until(lambda: connection.state is ConnectionState.CLOSED)
        else:
            pool.release(connection)
            assert all(old.state is not ConnectionState.OPEN for old in before)


async def _hold(pool: ConnectionPool) -> InferenceConnection:
    return await pool.acquire()


async def test_a_prewarm_under_way_when_invalidated_is_done_again(site: Site) -> None:
    site.gateway.inject(StallInHandshake())
    async with site.pool() as pool:
        pool.prewarm()
        await site.gateway.wait_until(lambda: len(site.gateway.handshakes) == 1)
        pool.invalidate()
        await until(lambda: pool.statistics().idle == 1)
        assert site.dials == 2


async def test_closed_it_lends_no_more(site: Site) -> None:
    pool = site.pool()
    async with pool.acquire():
        assert not pool.closed
    await pool.aclose()
    assert pool.closed
    await pool.aclose()
    pool.invalidate()
    with pytest.raises(StateError):
        await pool.acquire()
    with pytest.raises(StateError):
        pool.prewarm()
    assert pool.statistics().size == 0


async def test_closing_waits_for_what_is_lent(site: Site) -> None:
    pool = site.pool()
    connection = await pool.acquire()
    closing = asyncio.create_task(pool.aclose(grace=30.0))
    await asyncio.sleep(0)
    await echo(connection)
    assert not closing.done()
    pool.release(connection)
    await closing
    assert connection.state is ConnectionState.CLOSED


async def test_closing_cuts_what_is_not_returned_in_time(site: Site) -> None:
    pool = site.pool()
    async with pool.acquire() as connection:
        await pool.aclose(grace=0.01)
        assert connection.state is ConnectionState.CLOSED
    assert pool.statistics().size == 0


async def test_closing_tells_those_who_wait_and_gives_up_dials(site: Site) -> None:
    site.gateway.inject(StallInHandshake(), times=None)
    pool = site.pool()
    waiting = asyncio.create_task(_take(pool))
    await site.gateway.wait_until(lambda: len(site.gateway.handshakes) == 1)
    await pool.aclose()
    with pytest.raises(StateError):
        await waiting


async def test_a_cancelled_close_cuts_what_is_lent_and_closes_all(site: Site) -> None:
    pool = site.pool()
    connection = await pool.acquire()
    closing = asyncio.create_task(pool.aclose(grace=30.0))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    assert closing.cancelled()
    assert connection.state is ConnectionState.CLOSED


async def test_the_statistics_are_plain_data(site: Site) -> None:
    async with site.pool() as pool:
        pool.release(await pool.acquire(), reuse=False)
        figures = pool.statistics()
    for copied in (copy.deepcopy(figures), pickle.loads(pickle.dumps(figures))):
        assert copied == figures
    assert json.loads(json.dumps(dataclasses.asdict(figures)))["closed"] == {"failed": 1}


async def _take(pool: ConnectionPool) -> None:
    async with pool.acquire() as connection:
        await echo(connection)
