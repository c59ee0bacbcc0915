"""The planned end of a connection: the next one is opened beside it, and it drains."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from helpers.staying_bench import Bench, converse, listen, now, on_the_bench
from helpers.support import Line
from helpers.virtual_time import elapse, settle

from agent_conn import (
    InferenceConnection,
    Standby,
    UpgradePolicy,
    reconnect,
)
from agent_conn.gateway import Reject, Reset, SessionLimit

AGE = 100.0
DUE = 90.0
"""When a rotation begins whose jitter is the longest."""


def opened_at(bench: Bench, connection: InferenceConnection) -> float:
    """When the gateway had the request of ``connection``."""
    session_id = connection.record.session_id
    (shake,) = [one for one in bench.gateway.handshakes if one.session_id == session_id]
    return shake.request_at


def test_at_its_age_a_connection_is_handed_over_at_the_boundary_and_drained() -> None:
    async def scenario(bench: Bench) -> None:
        drained = []

        async def drain(old: InferenceConnection) -> None:
            await old.ws.send_str("last words")
            drained.append(await old.ws.receive_str())

        loop = bench.loop(max_age=AGE, upgrade=UpgradePolicy(drain=drain))
        async for connection in loop:
            await converse(connection)
            if loop.statistics.opened == 2:
                await settle()
                break
            await elapse(DUE - 0.1)
            assert loop.successor is None
            await elapse(0.2)
            assert loop.successor is not None
            assert loop.connections == (connection, loop.successor)
            await converse(connection)
        assert now() == pytest.approx(DUE + 0.1)
        assert drained == ["last words"]
        assert bench.made[0].record.close_code == 1000
        told = loop.statistics
        assert (told.rotations_begun, told.rotated, told.upgraded, told.lost) == (1, 1, 0, 0)
        assert (told.dials, told.redials_left) == (1, 25.0)
        await loop.aclose()

    on_the_bench(scenario)


@pytest.mark.parametrize(("draw", "due"), [(0.0, 95.0), (1.0, 90.0)])
def test_what_was_opened_together_is_not_rotated_together(draw: float, due: float) -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop(max_age=AGE, draw=lambda: draw)
        async for _ in loop:
            await bench.gateway.wait_until(lambda: len(bench.gateway.handshakes) == 2, 200.0)
            break
        assert bench.gateway.handshakes[1].request_at == pytest.approx(due)
        await loop.aclose()

    on_the_bench(scenario)


def test_a_pump_that_runs_hands_over_where_it_returns() -> None:
    async def scenario(bench: Bench) -> None:
        served = []

        async def pump(connection: InferenceConnection) -> str | None:
            served.append(connection)
            while loop.successor is None:
                await converse(connection)
                await elapse(1.0)
                if len(served) == 3:
                    return "done"
            return None

        loop = bench.loop(max_age=AGE)
        assert await loop.run(pump) == "done"
        assert len({*served}) == 3
        assert (loop.statistics.rotated, loop.statistics.lost) == (2, 0)

    on_the_bench(scenario)


def test_without_a_boundary_it_goes_on_until_the_peer_ends_it() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(SessionLimit(4 * AGE))
        loop = bench.loop(max_age=AGE)
        async for connection in loop:
            if loop.statistics.opened == 2:
                break
            await listen(connection)
            assert now() == pytest.approx(4 * AGE)
            assert loop.successor is not None
        # It was ready, and not older than the one that it follows might have become.
        assert now() == pytest.approx(4 * AGE)
        assert now() - opened_at(bench, connection) <= AGE + 20.0
        assert (loop.statistics.dials, loop.statistics.lost) == (1, 1)
        await loop.aclose()

    on_the_bench(scenario)


def test_a_rotation_that_fails_is_tried_again_and_the_old_one_goes_on() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop(max_age=AGE)
        async for connection in loop:
            if loop.statistics.opened == 2:
                break
            bench.gateway.inject(Reject(503), times=2)
            await elapse(DUE + 1.5)
            assert loop.successor is None
            await converse(connection)
            await elapse(2.0)
            assert loop.successor is not None
        told = loop.statistics
        assert (told.rotations_begun, told.rotations_failed, told.rotated) == (3, 2, 1)
        assert (told.failed, told.redials_left) == (0, 25.0)
        await loop.aclose()

    on_the_bench(scenario)


def test_a_spare_that_took_over_is_rotated_at_its_own_age() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop(standby=Standby.WEBSOCKET, max_age=AGE)
        async for connection in loop:
            if loop.statistics.opened == 2:
                assert opened_at(bench, connection) == pytest.approx(5.0)
                await elapse(5.0 + DUE - now() - 0.1)
                assert loop.successor is None
                await elapse(0.2)
                assert loop.successor is not None
                break
            await elapse(50.0)
            bench.gateway.connections[0].inject(Reset())
            await listen(connection)
        await loop.aclose()

    on_the_bench(scenario)


def test_a_websocket_kept_as_spare_is_replaced_at_max_age() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop(standby=Standby.WEBSOCKET, max_age=AGE)
        async for _ in loop:
            await elapse(8.0)
            first = loop.connections[-1]
            await elapse(AGE + 8.0)
            assert first not in loop.connections
            assert loop.statistics.spare_ready
            assert loop.statistics.spares_dialed == 2
            break
        await loop.aclose()

    on_the_bench(scenario)


async def test_a_pump_that_is_told_to_go_rotates_and_loses_nothing(any_line: Line) -> None:
    async with (
        aiohttp.TCPConnector(ssl=any_line.gateway.client_ssl or True) as connector,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        said: list[str] = []
        loop = reconnect(lambda: InferenceConnection(session, any_line.gateway.url("/v1/echo")))

        async def pump(connection: InferenceConnection) -> str | None:
            while len(said) < 300:
                if len(said) % 100 == 50:
                    rotating = asyncio.create_task(loop.rotate(), name="rotating")
                await connection.ws.send_str(str(len(said)))
                said.append(await connection.ws.receive_str())
                if len(said) % 100 == 99:
                    assert await rotating
                    assert loop.successor is not None
                    return None
            return "done"

        assert await loop.run(pump) == "done"
        assert said == [str(number) for number in range(300)]
        assert (loop.statistics.rotated, loop.statistics.lost) == (3, 0)
    await any_line.gateway.wait_idle(2.0)


async def test_without_a_connection_there_is_nothing_to_rotate(line: Line) -> None:
    loop = reconnect(line.dial)
    assert not await loop.rotate()
    await loop.aclose()
    assert not await loop.rotate()
    assert line.gateway.handshakes == []
