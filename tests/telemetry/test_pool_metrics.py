"""What metrics tell of pools."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from blockbuster import BlockBuster
from helpers.exported import Exported
from helpers.pooling import Site, echo, open_site
from helpers.support import events

from agent_conn import ConfigurationError, PoolTimeout

STATE, COUNT = "agent_conn.pool.state", "agent_conn.pool.connection.count"
LOANS, REUSED = "agent_conn.pool.loans", "agent_conn.pool.reused"
CLOSES, REASON = "agent_conn.pool.closes", "agent_conn.reason"
NAME = "agent_conn.pool.name"


@pytest.fixture
async def site(loop_reports: list[dict[str, Any]]) -> AsyncIterator[Site]:
    async with open_site() as opened:
        yield opened


async def test_what_a_pool_owns_is_told_by_state(site: Site, exported: Exported) -> None:
    async with site.pool(max_size=2) as pool:
        exported.telemetry.observe_pool(pool, "tts")
        assert exported.values(COUNT, STATE) == {"idle": 0, "used": 0, "dialing": 0, "closing": 0}
        async with pool.acquire() as first:
            await echo(first)
            async with pool.acquire():
                assert exported.values(COUNT, STATE)["used"] == 2
                waiting = asyncio.create_task(waste(pool.acquire()))
                await asyncio.sleep(0)
                assert exported.values("agent_conn.pool.pending_requests", NAME) == {"tts": 1}
            await waiting
        assert exported.values(COUNT, STATE)["idle"] == 2


async def waste(lease: Any) -> None:
    async with lease:
        pass


async def test_loans_timeouts_and_closes_are_counted(site: Site, exported: Exported) -> None:
    pool = site.pool(max_size=1)
    exported.telemetry.observe_pool(pool)
    for _ in range(3):
        async with pool.acquire():
            pass
    async with pool.acquire():
        with pytest.raises(PoolTimeout):
            await pool.acquire(timeout=0.01)
    expected = {True: 3, False: 1}
    assert exported.values(LOANS, REUSED) == expected
    assert exported.values("agent_conn.pool.timeouts", NAME) == {"default": 1}
    await pool.aclose()
    assert exported.values(CLOSES, REASON) == {"closed": 1}
    assert exported.values(LOANS, REUSED) == expected


async def test_pools_of_one_name_add_up_and_closed_ones_keep_their_counts(
    site: Site, exported: Exported
) -> None:
    for _ in range(3):
        async with site.pool() as pool:
            exported.telemetry.observe_pool(pool, "stt")
            await waste(pool.acquire())
    async with site.pool() as one, site.pool() as other:
        for pool in (one, other, other):
            exported.telemetry.observe_pool(pool, "stt")
            await waste(pool.acquire())
        assert exported.values(COUNT, STATE)["idle"] == 2
        assert exported.values(LOANS, NAME) == {"stt": 6}


async def test_a_closed_pool_is_let_go_of(site: Site, exported: Exported) -> None:
    pool = site.pool()
    exported.telemetry.observe_pool(pool)
    await pool.aclose()
    gone = weakref.ref(pool)
    del pool
    assert exported.values(COUNT, STATE) == {"idle": 0, "used": 0, "dialing": 0, "closing": 0}
    gc.collect()
    assert gone() is None


async def test_many_names_make_few_series(site: Site, exported: Exported) -> None:
    async with site.pool() as pool:
        for number in range(100):
            exported.telemetry.observe_pool(pool, f"job {number}")
        assert len(exported.values("agent_conn.pool.timeouts", NAME)) == 33


async def test_another_thread_collects_while_the_pool_changes(
    site: Site,
    exported: Exported,
    caplog: pytest.LogCaptureFixture,
    no_blocking_calls: BlockBuster,
) -> None:
    # Coverage takes a lock in whatever frame it traces, for which threads here may have to wait.
    no_blocking_calls.deactivate()

    def collect() -> list[float]:
        return [sum(exported.values(COUNT, STATE).values()) for _ in range(50)]

    async with site.pool(max_size=20) as pool:
        exported.telemetry.observe_pool(pool)
        with caplog.at_level(logging.WARNING):
            collecting = asyncio.create_task(asyncio.to_thread(collect))
            while not collecting.done():
                await asyncio.gather(*(waste(pool.acquire()) for _ in range(20)))
                pool.invalidate()
            assert max(await collecting) <= 20
        assert set(events(caplog)) <= {"ids_left_out"}


async def test_a_wrong_argument_is_named(site: Site, exported: Exported) -> None:
    observe: Any = exported.telemetry.observe_pool
    async with site.pool() as pool:
        for arguments, name in (((site,), "pool"), ((pool, ""), "name"), ((pool, 7), "name")):
            with pytest.raises(ConfigurationError, match=name):
                observe(*arguments)
    assert exported.series(COUNT) == []
