from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from helpers.pooling import Site, echo, open_site, until

from agent_conn import (
    CloseReason,
    ConfigurationError,
    ConnectionPool,
    ConnectionState,
    DialFailed,
    HandshakeRejected,
    InferenceConnection,
    Keepalive,
    PoolTimeout,
    StateError,
)
from agent_conn.gateway import Reject, StallInHandshake


async def test_turn_after_turn_is_spoken_over_one_dial(site: Site) -> None:
    async with site.pool() as pool:
        for turn in range(10):
            async with pool.acquire() as connection:
                await echo(connection, f"turn {turn}")
        figures = pool.statistics()
    assert site.gateway.accepted == 1
    assert (figures.acquired, figures.reused, figures.dialed) == (10, 9, 1)


async def test_awaited_and_released_it_is_lent_again(site: Site) -> None:
    async with site.pool() as pool:
        first = await pool.acquire()
        assert pool.statistics().in_use == 1
        pool.release(first)
        assert (pool.statistics().in_use, pool.statistics().idle) == (0, 1)
        assert await pool.acquire() is first
        pool.release(first)


async def test_released_without_reuse_it_is_closed(site: Site) -> None:
    async with site.pool() as pool:
        connection = await pool.acquire()
        pool.release(connection, reuse=False)
        await until(lambda: connection.state is ConnectionState.CLOSED)
        assert pool.statistics().closed == {CloseReason.FAILED: 1}


async def test_what_is_not_lent_cannot_be_released(site: Site) -> None:
    async with site.pool() as pool:
        connection = await pool.acquire()
        pool.release(connection)
        with pytest.raises(StateError):
            pool.release(connection)
        with pytest.raises(StateError):
            pool.release(site.dial())


async def test_a_lease_is_used_once(site: Site) -> None:
    async with site.pool() as pool:
        lease = pool.acquire()
        async with lease:
            pass
        with pytest.raises(StateError):
            await lease


async def test_the_newest_idle_connection_is_lent_first(site: Site) -> None:
    async with site.pool() as pool:
        old, new = await pool.acquire(), await pool.acquire()
        pool.release(old)
        pool.release(new)
        assert await pool.acquire() is new
        assert await pool.acquire() is old
        pool.release(new)
        pool.release(old)


async def test_who_came_first_is_served_first(site: Site) -> None:
    served: list[int] = []

    async def borrow(number: int) -> None:
        async with pool.acquire() as connection:
            served.append(number)
            await echo(connection)

    async with site.pool(max_size=1) as pool:
        held = await pool.acquire()
        borrowers = [asyncio.create_task(borrow(number)) for number in range(20)]
        await until(lambda: pool.statistics().waiting == 20)
        pool.release(held)
        await asyncio.gather(*borrowers)
    assert served == list(range(20))
    assert site.gateway.accepted == 1


async def test_no_more_than_max_size_are_ever_open(site: Site) -> None:
    sizes: list[int] = []

    async def borrow() -> None:
        async with pool.acquire() as connection:
            sizes.append(max(site.gateway.open_sockets, pool.statistics().size))
            await echo(connection)

    async with site.pool(max_size=3) as pool:
        await asyncio.gather(*(borrow() for _ in range(30)))
    assert max(sizes) == 3
    assert site.gateway.accepted == 3


async def test_a_borrower_that_raises_has_its_connection_closed(site: Site) -> None:
    async with site.pool() as pool:
        with pytest.raises(ZeroDivisionError):
            async with pool.acquire() as connection:
                raise ZeroDivisionError
        await until(lambda: connection.state is ConnectionState.CLOSED)
        assert pool.statistics().closed == {CloseReason.FAILED: 1}


async def test_a_borrower_that_is_cancelled_has_its_connection_closed(site: Site) -> None:
    async def borrow() -> None:
        async with pool.acquire() as connection:
            lent.append(connection)
            await asyncio.Event().wait()

    lent: list[InferenceConnection] = []
    async with site.pool() as pool:
        borrower = asyncio.create_task(borrow())
        await until(lambda: bool(lent))
        borrower.cancel()
        await asyncio.wait({borrower})
        await until(lambda: lent[0].state is ConnectionState.CLOSED)
        assert pool.statistics().closed == {CloseReason.FAILED: 1}


async def test_what_its_borrower_closed_is_not_lent_again(site: Site) -> None:
    async with site.pool() as pool:
        async with pool.acquire() as first:
            await first.aclose()
        async with pool.acquire() as second:
            assert second is not first
        assert pool.statistics().closed == {CloseReason.DEAD: 1}


async def test_what_its_borrower_still_reads_is_not_lent_again(site: Site) -> None:
    async with site.pool() as pool:
        async with pool.acquire() as first:
            reading = asyncio.create_task(first.ws.receive())
            await asyncio.sleep(0)
        async with pool.acquire() as second:
            assert second is not first
        await reading


async def test_a_wait_ends_at_its_timeout_and_leaves_the_line(site: Site) -> None:
    async with site.pool(max_size=1) as pool:
        async with pool.acquire():
            with pytest.raises(PoolTimeout, match="1 in use, 0 being opened"):
                await pool.acquire(timeout=0.01)
            assert pool.statistics().waiting == 0
        assert pool.statistics().timeouts == 1
        async with pool.acquire(timeout=None) as connection:
            await echo(connection)


async def test_a_dial_that_outlasts_its_waiter_serves_the_next(site: Site) -> None:
    stall = site.gateway.inject(StallInHandshake(), times=None)
    async with site.pool() as pool:
        with pytest.raises(PoolTimeout):
            await pool.acquire(timeout=0.05)
        assert pool.statistics().dialing == 1
        stall.withdraw()
    assert site.dials == 1


async def test_a_failure_that_is_final_is_told_to_whom_it_was_dialled_for(site: Site) -> None:
    site.gateway.inject(Reject(401))
    async with site.pool() as pool:
        with pytest.raises(HandshakeRejected, match="401"):
            await pool.acquire()
        async with pool.acquire() as connection:
            await echo(connection)
        assert pool.statistics().dials_failed == 1


async def test_of_two_dials_one_that_fails_leaves_the_other_to_serve(site: Site) -> None:
    site.gateway.inject(Reject(401))
    async with site.pool() as pool:
        outcomes = await asyncio.gather(_take(pool), _take(pool), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, HandshakeRejected)]
        assert len(failures) == 1


async def test_a_failure_that_may_pass_is_followed_by_another_dial(site: Site) -> None:
    site.gateway.inject(Reject(503))
    async with site.pool(jitter=lambda: 0.01) as pool:
        async with pool.acquire() as connection:
            await echo(connection)
        assert (pool.statistics().dials_failed, pool.statistics().dialed) == (1, 1)


async def test_at_the_timeout_the_last_failure_is_the_cause(site: Site) -> None:
    site.gateway.inject(Reject(503), times=None)
    async with site.pool() as pool:
        with pytest.raises(PoolTimeout, match=r"the last dial failed: .*503") as caught:
            await pool.acquire(timeout=0.1)
        assert isinstance(caught.value.__cause__, HandshakeRejected)


async def test_in_an_outage_many_who_wait_are_no_storm_of_dials(site: Site) -> None:
    outage = site.gateway.inject(Reject(503), times=None)
    async with site.pool(max_size=20, jitter=lambda: 0.1) as pool:
        borrowers = [asyncio.create_task(_take(pool)) for _ in range(20)]
        await until(lambda: pool.statistics().dials_failed == 22)
        # Twenty at once, and then one after the other until one of them succeeds.
        assert outage.struck == 22
        outage.withdraw()
        await asyncio.gather(*borrowers)
        assert pool.statistics().waiting == 0


async def _take(pool: ConnectionPool) -> None:
    async with pool.acquire() as connection:
        await echo(connection)


@pytest.mark.parametrize("given", [None, "no connection"])
async def test_a_dial_that_gives_no_connection_is_the_callers_mistake(
    site: Site, given: object
) -> None:
    async with site.pool(lambda: given) as pool:  # type: ignore[arg-type,return-value]
        with pytest.raises(ConfigurationError, match="dial"):
            await pool.acquire()


async def test_a_dial_that_raises_tells_who_waits(site: Site) -> None:
    def dial() -> InferenceConnection:
        raise LookupError

    async with site.pool(dial) as pool:
        with pytest.raises(LookupError):
            await pool.acquire()


async def test_a_dial_that_is_cancelled_from_outside_fails(site: Site) -> None:
    def dial() -> InferenceConnection:
        raise asyncio.CancelledError

    async with site.pool(dial) as pool:
        with pytest.raises(DialFailed):
            await pool.acquire()


async def test_messages_of_the_idle_time_are_dropped_and_counted(site: Site) -> None:
    async with site.pool() as pool:
        async with pool.acquire():
            pass
        for text in ("one", "two"):
            await site.gateway.connections[0].send(text)
        async with pool.acquire() as connection:
            await echo(connection)
        assert pool.statistics().dropped == 2


async def test_the_pings_of_the_gateway_are_answered_while_idle(
    loop_reports: list[dict[str, Any]],
) -> None:
    async with open_site(heartbeat=0.05) as site, site.pool() as pool:
        async with pool.acquire() as first:
            pass
        # Without a pong the gateway would hang up after one and a half heartbeats.
        with pytest.raises(TimeoutError):
            await site.gateway.wait_until(lambda: not site.gateway.connections, timeout=0.2)
        async with pool.acquire() as second:
            assert second is first


async def test_a_probe_that_fails_on_reuse_gets_another(site: Site) -> None:
    tried: list[aiohttp.ClientWebSocketResponse] = []

    async def probe(ws: aiohttp.ClientWebSocketResponse) -> None:
        tried.append(ws)
        if len(tried) == 1:
            raise ConnectionResetError

    async with site.pool() as pool:
        async with pool.acquire() as first:
            pass
        async with pool.acquire(probe=probe) as second:
            assert second is not first
            await echo(second)
        assert tried == [first.ws, second.ws]
        assert pool.statistics().closed == {CloseReason.PROBE: 1}


async def test_a_probe_that_fails_on_a_fresh_connection_tells_the_caller(site: Site) -> None:
    async def probe(ws: aiohttp.ClientWebSocketResponse) -> None:
        raise LookupError

    async with site.pool() as pool:
        with pytest.raises(LookupError):
            await pool.acquire(probe=probe)
        assert pool.statistics().closed == {CloseReason.FAILED: 1}


async def test_a_probe_has_no_more_time_than_its_acquire(site: Site) -> None:
    async def probe(ws: aiohttp.ClientWebSocketResponse) -> None:
        await ws.receive()

    async with site.pool() as pool:
        async with pool.acquire():
            pass
        with pytest.raises(PoolTimeout):
            await pool.acquire(probe=probe, timeout=0.05)
        assert pool.statistics().in_use == 0


async def test_a_timeout_of_the_probes_own_is_a_failed_probe(site: Site) -> None:
    async def probe(ws: aiohttp.ClientWebSocketResponse) -> None:
        if ws is first.ws:
            raise TimeoutError

    async with site.pool() as pool:
        async with pool.acquire() as first:
            pass
        async with pool.acquire(probe=probe) as second:
            assert second is not first


async def test_a_timeout_of_the_probes_own_on_a_fresh_one_is_not_the_pools(site: Site) -> None:
    async def probe(ws: aiohttp.ClientWebSocketResponse) -> None:
        raise TimeoutError

    async with site.pool() as pool:
        with pytest.raises(TimeoutError) as caught:
            await pool.acquire(probe=probe)
        assert not isinstance(caught.value, PoolTimeout)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("dial", lambda: ConnectionPool(None)),  # type: ignore[arg-type]
        ("clock", lambda: ConnectionPool(_unused, clock=1)),  # type: ignore[arg-type]
        ("jitter", lambda: ConnectionPool(_unused, jitter=None)),  # type: ignore[arg-type]
        ("max_size", lambda: ConnectionPool(_unused, max_size=0)),
        ("max_size", lambda: ConnectionPool(_unused, max_size=True)),
        ("max_age", lambda: ConnectionPool(_unused, max_age=0)),
        ("max_idle", lambda: ConnectionPool(_unused, max_idle=-1)),
        ("rotate", lambda: ConnectionPool(_unused, rotate=float("nan"))),
        ("min_idle", lambda: ConnectionPool(_unused, max_size=2, min_idle=3)),
        ("min_idle", lambda: ConnectionPool(_unused, min_idle=-1)),
        ("keepalive", lambda: ConnectionPool(_unused, keepalive="ping")),  # type: ignore[arg-type]
        ("message", lambda: Keepalive(message=5)),  # type: ignore[arg-type]
        ("every", lambda: Keepalive(message="ping", every=0.0)),
        ("reset", lambda: ConnectionPool(_unused, reset="reset")),  # type: ignore[arg-type]
        ("min_attribution", lambda: ConnectionPool(_unused).acquire(min_attribution=3)),  # type: ignore[arg-type]
        ("timeout", lambda: ConnectionPool(_unused).acquire(timeout=0)),
        ("probe", lambda: ConnectionPool(_unused).acquire(probe="ping")),  # type: ignore[arg-type]
        ("count", lambda: ConnectionPool(_unused).prewarm(0)),
        ("count", lambda: ConnectionPool(_unused, max_size=2).prewarm(3)),
    ],
)
def test_a_wrong_argument_is_named(name: str, call: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError, match=name):
        call()


async def test_a_grace_below_zero_is_refused(site: Site) -> None:
    async with site.pool() as pool:
        with pytest.raises(ConfigurationError, match="grace"):
            await pool.aclose(grace=-1.0)


def _unused() -> InferenceConnection:
    raise AssertionError
