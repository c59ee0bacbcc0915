"""The room comes late: make before break."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import aiohttp
import pytest
from helpers.staying_bench import Bench, converse, listen, now, on_the_bench
from helpers.support import Room
from helpers.virtual_time import elapse, settle, until_idle

from agent_conn import (
    AgentIdentity,
    AttributionLevel,
    ConfigurationError,
    ConnectionState,
    InferenceConnection,
    Reconnector,
    UpgradePolicy,
    reconnect,
)
from agent_conn.gateway import IgnoreClose, Reject, Reset, StallInHandshake


def late(room: Room) -> dict[str, Any]:
    return {"identity": room.identity, "room_connected": room.connected, "connect_wait": 0}


def test_the_better_one_is_opened_beside_the_old_and_given_at_the_boundary() -> None:
    async def scenario(bench: Bench) -> None:
        room, greeted = Room(), []

        async def greet(ws: aiohttp.ClientWebSocketResponse) -> None:
            greeted.append(ws)

        loop = bench.loop(**late(room), on_open=greet)
        levels: list[AttributionLevel] = []
        better: InferenceConnection | None = None
        async for connection in loop:
            levels.append(connection.attribution)
            if len(levels) == 2:
                assert connection is better
                assert connection.ws is greeted[1]
                await converse(connection)
                break
            room.connected.set()
            assert await loop.upgrade()
            better = loop.successor
            assert len(bench.gateway.connections) == 2
            await converse(connection)
        assert levels == [AttributionLevel.ROOM, AttributionLevel.AGENT]
        await loop.aclose()
        assert loop.statistics.upgraded == 1
        assert loop.statistics.lost == 0
        assert loop.statistics.dials == 1

    on_the_bench(scenario)


def test_what_the_better_one_was_told_before_the_boundary_goes_to_the_pump() -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()

        async def ask(ws: aiohttp.ClientWebSocketResponse) -> None:
            for number in range(3):
                await ws.send_str(str(number))

        loop = bench.loop(**late(room), on_open=ask)
        async for connection in loop:
            assert [await connection.ws.receive_str() for _ in range(3)] == ["0", "1", "2"]
            if loop.statistics.upgraded:
                break
            room.connected.set()
            assert await loop.upgrade()
            await bench.gateway.wait_until(
                lambda: bench.gateway.connections[-1].messages_received == 3
            )
            await settle()
        await loop.aclose()

    on_the_bench(scenario)


def test_the_old_one_is_drained_while_the_new_one_is_used() -> None:
    async def scenario(bench: Bench) -> None:
        room, drained = Room(), []

        async def drain(old: InferenceConnection) -> None:
            await old.ws.send_str("last words")
            drained.append(await old.ws.receive_str())

        loop = bench.loop(upgrade=UpgradePolicy(drain=drain), **late(room))
        async for connection in loop:
            if loop.statistics.upgraded:
                await settle()
                assert drained == ["last words"]
                assert loop.connections == (connection,)
                assert bench.made[0].record.close_code == 1000
                break
            room.connected.set()
            await loop.upgrade()
        await loop.aclose()

    on_the_bench(scenario)


def test_closing_ends_the_watch_for_a_room_that_never_comes_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()
        before = asyncio.all_tasks()
        upgrade = UpgradePolicy(room_connected=room.connected)
        loop = bench.loop(upgrade=upgrade, identity=room.identity)
        async for _ in loop:
            watching = asyncio.all_tasks() - before
            assert "agent_conn.upgrade_watch" in {task.get_name() for task in watching}
            break
        started = now()
        async with asyncio.timeout(60):
            await loop.aclose()
        assert now() - started < 1
        assert [task.get_name() for task in watching if not task.done()] == []

    on_the_bench(scenario)


@pytest.mark.parametrize("how", ["never returns", "raises"])
def test_a_drain_is_bounded_and_counted(how: str) -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()

        async def drain(old: InferenceConnection) -> None:
            if how == "raises":
                raise OSError
            await listen(old)

        policy = UpgradePolicy(drain=drain, drain_timeout=2.0)
        bench.gateway.inject(IgnoreClose())
        loop = bench.loop(upgrade=policy, **late(room), close_timeout=1.0)
        async for _ in loop:
            if loop.statistics.upgraded:
                await bench.gateway.wait_until(lambda: bench.gateway.open_sockets == 1, 10)
                await settle()
                assert now() <= 3.1
                assert loop.statistics.drains_cut == 1
                break
            room.connected.set()
            await loop.upgrade()
        await loop.aclose()

    on_the_bench(scenario)


@pytest.mark.parametrize("fault", [Reject(503), Reject(401), StallInHandshake()], ids=repr)
def test_where_no_better_one_can_be_had_the_old_one_stays(fault: Reject) -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()
        loop = bench.loop(**late(room))
        async for connection in loop:
            room.connected.set()
            bench.gateway.inject(fault)
            assert not await loop.upgrade()
            assert loop.successor is None
            await converse(connection)
            assert await loop.upgrade()
            break
        await loop.aclose()
        assert loop.statistics.upgrades_begun == 2

    on_the_bench(scenario)


def test_a_better_one_that_turns_out_no_better_is_closed() -> None:
    async def scenario(bench: Bench) -> None:
        known = iter([AgentIdentity(job_id="AJ_1"), AgentIdentity(job_id="AJ_1", room_id="RM_1")])

        def read() -> AgentIdentity:
            return next(known, AgentIdentity(job_id="AJ_1"))

        loop = bench.loop(identity=read)
        async for connection in loop:
            assert not await loop.upgrade()
            await converse(connection)
            await settle()
            assert bench.gateway.open_sockets == 1
            break
        await loop.aclose()

    on_the_bench(scenario)


def test_without_a_better_identity_nothing_is_dialled() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop(**late(Room()))
        assert not await loop.upgrade()
        async for _ in loop:
            assert not await loop.upgrade()
            break
        await loop.aclose()
        assert not await loop.upgrade()
        assert len(bench.made) == 1

    on_the_bench(scenario)


def test_an_id_that_comes_and_goes_makes_one_upgrade_a_value() -> None:
    async def scenario(bench: Bench) -> None:
        agent = True

        def read() -> AgentIdentity:
            return AgentIdentity(job_id="AJ_1", agent_id="PA_1" if agent else None)

        loop = bench.loop(identity=read)
        begun = []
        agent = False
        async for connection in loop:
            await converse(connection)
            agent = True
            begun.append(await loop.upgrade())
            if len(begun) == 4:
                break
            if not begun[-1]:
                agent = False
                bench.gateway.connections[-1].inject(Reset())
                await listen(connection)
        await loop.aclose()
        assert begun == [True, False, False, False]
        assert loop.statistics.upgrades_begun == 1

    on_the_bench(scenario)


def test_another_id_of_the_same_level_is_an_upgrade_and_each_value_is_left_once() -> None:
    async def scenario(bench: Bench) -> None:
        known = "PA_1"
        loop = bench.loop(identity=lambda: AgentIdentity(agent_id=known))
        sent, begun = [], []
        async for connection in loop:
            identity = connection.record.identity
            assert identity is not None
            sent.append(identity.agent_id)
            known = {"PA_1": "PA_2", "PA_2": "PA_1"}[known]
            begun.append(await loop.upgrade())
            if not begun[-1]:
                break
        await loop.aclose()
        assert sent == ["PA_1", "PA_2", "PA_1"]
        assert begun == [True, True, False]

    on_the_bench(scenario)


def test_an_upgrade_that_fails_is_told_and_tried_again_with_growing_delays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()
        tried: list[float] = []
        failing = 3

        def dial() -> InferenceConnection:
            nonlocal failing
            if loop.statistics.opened and failing:
                failing -= 1
                tried.append(now())
                raise KeyError("nothing configured")
            return bench.dial(**late(room))

        policy = UpgradePolicy(room_connected=room.connected, jitter=0.0)
        loop = reconnect(dial, upgrade=policy, random=lambda: 1.0)
        async for connection in loop:
            if loop.statistics.upgraded:
                assert connection.attribution is AttributionLevel.AGENT
                break
            room.connected.set()
            await bench.gateway.wait_until(lambda: len(bench.gateway.connections) == 2, 60)
            await settle()
            assert tried == [0.0, 1.0, 3.0]
            assert now() == 7.0
            assert str(loop.last_error) == "dial raised KeyError"
            assert loop.statistics.upgrades_failed == 3
        await loop.aclose()
        failures = [text for text in caplog.messages if "upgrade_failed" in text]
        assert failures == ["upgrade_failed: error=dial raised KeyError"] * 3

    on_the_bench(scenario)


def test_a_better_one_that_is_lost_before_its_boundary_is_opened_again() -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()
        policy = UpgradePolicy(room_connected=room.connected, jitter=0.0)
        loop = bench.loop(upgrade=policy, **late(room))
        async for _ in loop:
            if loop.statistics.upgraded:
                break
            room.connected.set()
            await bench.gateway.wait_until(lambda: len(bench.gateway.connections) == 2, 60)
            bench.gateway.connections[-1].inject(Reset())
            await settle()
            assert loop.successor is None
            await elapse(60.0)
            assert loop.successor is not None
        await loop.aclose()
        assert loop.statistics.upgraded == 1

    on_the_bench(scenario)


def test_two_that_ask_at_once_get_one_upgrade() -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()
        loop = bench.loop(**late(room))
        async for _ in loop:
            room.connected.set()
            assert all(await asyncio.gather(loop.upgrade(), loop.upgrade()))
            break
        await loop.aclose()
        assert len(bench.made) == 2

    on_the_bench(scenario)


def test_a_better_one_that_dies_before_the_boundary_is_closed_and_the_old_one_stays() -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()
        loop = bench.loop(**late(room))
        async for connection in loop:
            room.connected.set()
            assert await loop.upgrade()
            bench.gateway.connections[-1].inject(Reset())
            await settle()
            assert loop.successor is None
            await converse(connection)
            assert loop.connections == (connection,)
            assert await loop.upgrade()
            break
        await loop.aclose()

    on_the_bench(scenario)


def test_a_loss_while_the_better_one_is_ready_costs_no_redial() -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()
        loop = bench.loop(**late(room))
        async for connection in loop:
            if loop.statistics.upgraded:
                assert loop.statistics.lost == 1
                break
            room.connected.set()
            assert await loop.upgrade()
            bench.gateway.connections[0].inject(Reset())
            await listen(connection)
        await loop.aclose()
        assert len(bench.made) == 2
        assert now() == 0.0

    on_the_bench(scenario)


def test_by_itself_it_upgrades_once_the_room_is_there_and_after_its_jitter() -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()
        policy = UpgradePolicy(room_connected=room.connected, jitter=4.0)
        loop = bench.loop(upgrade=policy, **late(room))
        asyncio.get_running_loop().call_later(3.0, room.connected.set)
        async for connection in loop:
            if loop.statistics.upgraded:
                assert connection.attribution is AttributionLevel.AGENT
                break
            await bench.gateway.wait_until(lambda: len(bench.gateway.connections) == 2, 60)
            assert now() == pytest.approx(3.0 + 4.0)
            await settle()
            assert loop.successor is not None
        await loop.aclose()

    on_the_bench(scenario)


def test_many_loops_of_one_room_do_not_upgrade_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()
        policy = UpgradePolicy(room_connected=room.connected, jitter=10.0)
        draws = iter(number / 10 for number in range(10))
        loops = [bench.loop(upgrade=policy, draw=draws.__next__, **late(room)) for _ in range(10)]
        held = [asyncio.create_task(hold(loop)) for loop in loops]
        await bench.gateway.wait_until(lambda: len(bench.gateway.connections) == 10)
        room.connected.set()
        await bench.gateway.wait_until(lambda: len(bench.gateway.connections) == 20, 60)
        begun = [shake.request_at for shake in bench.gateway.handshakes[10:]]
        assert begun == pytest.approx(list(range(10)))
        await asyncio.gather(*(loop.aclose() for loop in loops), *held)

    async def hold(loop: Reconnector) -> None:
        async for connection in loop:
            await listen(connection)

    on_the_bench(scenario)


def test_off_it_upgrades_only_when_asked() -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()
        loop = bench.loop(**late(room))
        async for _ in loop:
            room.connected.set()
            await elapse(60.0)
            break
        await loop.aclose()
        assert len(bench.made) == 1

    on_the_bench(scenario)


def test_closing_the_loop_closes_a_better_one_that_is_being_opened_or_ready() -> None:
    async def scenario(bench: Bench) -> None:
        for fault in (None, StallInHandshake()):
            room = Room()
            loop = bench.loop(**late(room))
            async for _ in loop:
                room.connected.set()
                if fault is not None:
                    bench.gateway.inject(fault)
                upgrading = asyncio.create_task(loop.upgrade())
                await settle()
                assert bench.gateway.open_sockets == 2
                await loop.aclose()
                assert await upgrading is (fault is None)
                await until_idle(bench.gateway)
            assert {one.state for one in bench.made} == {ConnectionState.CLOSED}

    on_the_bench(scenario)


@pytest.mark.parametrize(
    "wrong",
    [
        {"room_connected": 1},
        {"room_connected": threading.Event()},
        {"jitter": -1},
        {"drain": 1},
        {"drain_timeout": 0},
    ],
    ids=repr,
)
def test_a_wrong_value_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        UpgradePolicy(**wrong)
