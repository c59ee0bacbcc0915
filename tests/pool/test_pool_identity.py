"""A connection is lent while what was sent as its identity holds for the borrower."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import replace

from helpers.pooling import Site, echo, until

from agent_conn import AgentIdentity, AttributionLevel, ConnectionState, InferenceConnection
from agent_conn.gateway import Reject, StallInHandshake

AGENT = AttributionLevel.AGENT
HERE = AgentIdentity(job_id="AJ_1", room_id="RM_1", agent_id="PA_1")
job: ContextVar[str] = ContextVar("job")


class Known:
    """An identity source whose answer changes."""

    def __init__(self) -> None:
        self.identity = HERE

    def __call__(self) -> AgentIdentity:
        return self.identity


def of_this_job() -> AgentIdentity:
    return AgentIdentity.best_effort(job_id=job.get, room_id="RM_1", agent_id="PA_1")


async def test_after_the_agent_moved_none_of_twenty_loans_is_under_the_old_id(site: Site) -> None:
    known = Known()
    async with site.pool(lambda: site.dial(identity=known)) as pool:
        for number in range(20):
            known.identity = replace(HERE, agent_id=f"PA_{number // 2}")
            async with pool.acquire(min_attribution=AGENT) as connection:
                await echo(connection)
                assert connection.record.identity == known.identity


async def test_an_id_that_is_not_known_now_takes_nothing_away(site: Site) -> None:
    known = Known()
    async with site.pool(lambda: site.dial(identity=known)) as pool:
        async with pool.acquire() as first:
            pass
        known.identity = AgentIdentity(job_id="AJ_1")
        async with pool.acquire() as second:
            assert second is first


async def test_an_idle_one_is_replaced_once_another_id_is_known(site: Site) -> None:
    known = Known()
    async with site.pool(lambda: site.dial(identity=known), rotate=0.1) as pool:
        async with pool.acquire() as old:
            pass
        known.identity = replace(HERE, room_id="RM_2")
        await until(lambda: old.state is ConnectionState.CLOSED)
        assert site.gateway.handshakes[-1].identity == known.identity
        assert site.gateway.accepted == 2


async def test_one_that_is_moved_while_it_is_lent_goes_to_none_of_those_who_wait(
    site: Site,
) -> None:
    known = Known()
    async with site.pool(lambda: site.dial(identity=known), max_size=1) as pool:
        async with pool.acquire() as old:
            waiting = asyncio.create_task(_borrow(pool.acquire()))
            await until(lambda: pool.statistics().waiting == 1)
            known.identity = replace(HERE, agent_id="PA_2")
        connection = await waiting
        assert connection is not old
        assert connection.record.identity == known.identity


async def test_jobs_that_share_a_pool_are_billed_for_themselves(site: Site) -> None:
    wrong: list[str] = []

    async def call(number: int) -> None:
        job.set(f"AJ_{number}")
        for _ in range(5):
            async with pool.acquire() as connection:
                await echo(connection)
                identity = connection.record.identity
                if identity is None or identity.job_id != f"AJ_{number}":
                    wrong.append(f"AJ_{number}")

    async with site.pool(lambda: site.dial(identity=of_this_job), max_size=3) as pool:
        await asyncio.gather(*(asyncio.create_task(call(number)) for number in range(4)))
        assert pool.statistics().acquired == 20
    assert wrong == []


async def test_a_job_keeps_its_own_connections_where_slots_are_free(site: Site) -> None:
    async def call(name: str) -> InferenceConnection:
        job.set(name)
        async with pool.acquire() as connection:
            return connection

    async with site.pool(lambda: site.dial(identity=of_this_job), max_size=4) as pool:
        first = await asyncio.create_task(call("AJ_1"))
        await asyncio.create_task(call("AJ_2"))
        assert await asyncio.create_task(call("AJ_1")) is first


async def test_a_dial_of_the_pools_own_runs_in_no_requests_context(site: Site) -> None:
    seen: list[str | None] = []

    def dial() -> InferenceConnection:
        seen.append(job.get(None))
        return site.dial()

    async with site.pool(dial, rotate=0.1) as pool:
        job.set("AJ_1")
        async with pool.acquire():
            pool.prewarm(2)
            await until(lambda: pool.statistics().idle == 1)
        site.room.connected.set()
        await until(lambda: [each.level for each in site.gateway.connections] == [AGENT] * 2)
    assert seen == ["AJ_1", None, None, None]


async def test_a_redial_for_one_who_waits_runs_in_their_context_too(site: Site) -> None:
    site.gateway.inject(Reject(503))
    job.set("AJ_1")
    dial = lambda: site.dial(identity=of_this_job)  # noqa: E731
    async with site.pool(dial, jitter=lambda: 0.01) as pool, pool.acquire() as connection:
        assert connection.record.identity == replace(HERE, job_id="AJ_1")


async def test_a_dial_left_over_by_another_job_serves_nobody_else(site: Site) -> None:
    stall = site.gateway.inject(StallInHandshake())

    async def call(name: str) -> InferenceConnection:
        job.set(name)
        return await pool.acquire()

    async with site.pool(lambda: site.dial(identity=of_this_job, open_timeout=0.3)) as pool:
        gone = asyncio.create_task(call("AJ_1"))
        await site.gateway.wait_until(lambda: bool(stall.struck))
        gone.cancel()
        connection = await asyncio.create_task(call("AJ_2"))
        assert connection.record.identity == replace(HERE, job_id="AJ_2")
        pool.release(connection)


async def _borrow(lease: object) -> InferenceConnection:
    async with lease as connection:  # type: ignore[attr-defined]
        await echo(connection)
        assert isinstance(connection, InferenceConnection)
        return connection
