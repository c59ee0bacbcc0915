"""A spare beside the connection in use: what it costs, when it serves, and what replaces it."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import weakref
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from helpers.staying_bench import Bench, converse, listen, now, on_the_bench
from helpers.support import Room
from helpers.virtual_time import elapse, in_virtual_time, settle, until_idle

from agent_conn import (
    AttributionLevel,
    ConfigurationError,
    ConnectionLost,
    Endpoints,
    InferenceConnection,
    ReplayBuffer,
    RetriesExhausted,
    Standby,
    reconnect,
)
from agent_conn.gateway import (
    AcceptAndClose,
    CloseWith,
    Gateway,
    GoSilent,
    IdleTimeout,
    IgnoreClose,
    Reject,
    Reset,
)

UP = 6.0
"""Seconds after which the first spare is there: its jitter is five at most."""
BETWEEN = 15.0
EACH = pytest.mark.parametrize("standby", list(Standby))


async def drop(bench: Bench, connection: InferenceConnection) -> None:
    """End ``connection``, the oldest that the gateway has, as its pump sees it."""
    next(one for one in bench.gateway.connections if not one.closed).inject(Reset())
    await listen(connection)


def test_a_redial_on_a_transport_dials_nothing_and_reads_ids_and_token_then() -> None:
    async def scenario(bench: Bench) -> None:
        room, minted = Room(), []

        def mint() -> str:
            minted.append(now())
            return "a-token"

        loop = bench.loop(standby=Standby.TRANSPORT, identity=room.identity, token=mint)
        async for connection in loop:
            await converse(connection)
            if loop.statistics.opened == 2:
                break
            await elapse(UP)
            assert loop.statistics.spare_ready
            assert bench.gateway.accepted == 2
            assert len(bench.gateway.handshakes) == len(minted) == 1
            room.connected.set()
            await drop(bench, connection)
        assert bench.gateway.accepted == 2
        assert minted == [0.0, UP]
        assert connection.attribution is AttributionLevel.AGENT
        record = connection.record
        assert (record.spare, record.pre_dialed, record.dials, record.redial) == (True, True, 1, 1)
        assert (loop.statistics.dials, loop.statistics.spares_used) == (2, 1)
        await loop.aclose()

    on_the_bench(scenario)


def test_a_websocket_takes_over_without_a_dial_and_after_its_hook() -> None:
    async def scenario(bench: Bench) -> None:
        hooks = []

        async def greet(ws: aiohttp.ClientWebSocketResponse) -> None:
            await ws.send_str("hello")
            hooks.append(now())

        loop = bench.loop(standby=Standby.WEBSOCKET, on_open=greet)
        async for connection in loop:
            assert await connection.ws.receive_str() == "hello"
            if loop.statistics.opened == 2:
                break
            await elapse(UP)
            assert hooks == [0.0, 5.0]
            await drop(bench, connection)
        assert now() == UP
        assert len(bench.gateway.handshakes) == len(hooks) == 2
        assert connection.record.spare
        assert (loop.statistics.dials, loop.statistics.spares_used) == (1, 1)
        await converse(connection)
        await loop.aclose()

    on_the_bench(scenario)


@EACH
def test_a_spare_that_ends_is_replaced_by_one_dial_in_fifteen_seconds(standby: Standby) -> None:
    async def scenario(bench: Bench) -> None:
        dialed: list[float] = []
        draw = random.Random(1).random

        def dial() -> InferenceConnection:
            if dialed:
                # Each spare's peer ends it after a second.
                bench.gateway.inject(IdleTimeout(1.0))
            dialed.append(now())
            return bench.dial()

        async with reconnect(dial, standby=standby, random=draw) as loop:
            async for _ in loop:
                await elapse(200.0)
                break
            assert loop.statistics.spares_dialed == len(dialed) - 1
            assert loop.statistics.dials == 1
        gaps = [after - before for before, after in pairwise(dialed[1:])]
        assert len(gaps) >= 200 / (BETWEEN + 7) - 1
        assert min(gaps) >= BETWEEN
        assert len({round(gap, 3) for gap in gaps}) > 2

    on_the_bench(scenario)


@pytest.mark.parametrize(
    ("standby", "fault"),
    [(Standby.TRANSPORT, Reset("accept")), (Standby.WEBSOCKET, Reject(503))],
    ids=repr,
)
def test_a_spare_that_fails_is_no_attempt(standby: Standby, fault: Reset | Reject) -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop(standby=standby)
        async for connection in loop:
            if loop.statistics.opened == 2:
                # An origin that counted as down would have been waited for.
                assert loop.statistics.waited == 0.0
                await elapse(BETWEEN + UP)
                assert loop.statistics.spare_ready
                break
            bench.gateway.inject(fault, times=None)
            await elapse(150.0)
            told = loop.statistics
            assert 7 <= told.spares_dialed <= 10
            assert (told.dials, told.failed, told.redials_left) == (1, 0, 25.0)
            assert loop.last_error is None
            assert not told.spare_ready
            bench.gateway.withdraw_faults()
            await drop(bench, connection)
        await loop.aclose()

    on_the_bench(scenario)


@EACH
def test_a_spare_is_dialled_after_the_first_is_open(standby: Standby) -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(503), times=4)
        loop = bench.loop(standby=standby)
        async for _ in loop:
            assert len(bench.made) == 5
            assert now() > UP
            assert loop.statistics.spares_dialed == 0
            await elapse(UP)
            assert loop.statistics.spares_dialed == 1
            break
        await loop.aclose()

    on_the_bench(scenario)


def test_a_websocket_with_old_ids_is_replaced() -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()
        loop = bench.loop(standby=Standby.WEBSOCKET, identity=room.identity)
        async for connection in loop:
            if loop.statistics.opened == 2:
                assert connection.attribution is AttributionLevel.AGENT
                assert connection.record.spare
                break
            await elapse(UP)
            old = loop.connections[-1]
            assert old.attribution is AttributionLevel.ROOM
            room.connected.set()
            assert not loop.statistics.spare_ready
            await elapse(BETWEEN + UP)
            assert loop.connections[-1].attribution is AttributionLevel.AGENT
            assert loop.statistics.spare_ready
            await drop(bench, connection)
        await loop.aclose()

    on_the_bench(scenario)


def test_a_websocket_whose_ids_have_just_changed_does_not_take_over() -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()
        loop = bench.loop(standby=Standby.WEBSOCKET, identity=room.identity)
        async for connection in loop:
            if loop.statistics.opened == 2:
                assert connection.attribution is AttributionLevel.AGENT
                assert not connection.record.spare
                break
            await elapse(UP)
            assert loop.statistics.spare_ready
            room.connected.set()
            await drop(bench, connection)
        await loop.aclose()

    on_the_bench(scenario)


def test_a_transport_whose_peer_hangs_up_at_its_request_costs_no_attempt_and_no_time() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop(standby=Standby.TRANSPORT)
        async for connection in loop:
            await converse(connection)
            if loop.statistics.opened == 2:
                break
            await elapse(UP)
            bench.gateway.inject(Reset("handshake"))
            await drop(bench, connection)
        told = loop.statistics
        assert now() == UP
        assert (told.dials, told.failed, told.spares_failed, told.spares_used) == (2, 0, 1, 0)
        await loop.aclose()

    on_the_bench(scenario)


def test_where_both_are_lost_at_once_the_next_is_dialled_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop(standby=Standby.WEBSOCKET)
        async for connection in loop:
            await converse(connection)
            if loop.statistics.opened == 2:
                break
            await elapse(UP)
            bench.gateway.connections[-1].inject(Reset())
            await drop(bench, connection)
        assert now() == UP
        assert not connection.record.spare
        assert loop.statistics.dials == 2
        await loop.aclose()

    on_the_bench(scenario)


@pytest.mark.parametrize("why", ["force_close", "Endpoints"])
def test_where_no_transport_can_be_kept_the_log_says_what_to_use(
    why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        connector = aiohttp.TCPConnector(force_close=why == "force_close")
        async with Gateway() as gateway, aiohttp.ClientSession(connector=connector) as session:
            url: Any = gateway.url("/v1/echo")
            url = Endpoints([url]) if why == "Endpoints" else url
            loop = reconnect(
                lambda: InferenceConnection(session, url),
                standby=Standby.TRANSPORT,
                random=lambda: 1.0,
            )
            async for connection in loop:
                await elapse(UP)
                await converse(connection)
                assert loop.statistics.spares_failed == 1
                assert loop.last_error is None
                break
            await loop.aclose()
            await until_idle(gateway)

    with caplog.at_level(logging.WARNING, "agent_conn"):
        in_virtual_time(main)
    (told,) = [text for text in caplog.messages if "spare_failed" in text]
    assert "use Standby.WEBSOCKET" in told


@pytest.mark.parametrize("fault", [None, GoSilent(), IgnoreClose()], ids=repr)
@EACH
def test_closing_is_bounded_and_leaves_nothing(
    standby: Standby, fault: GoSilent | IgnoreClose | None
) -> None:
    async def scenario(bench: Bench) -> None:
        before = asyncio.all_tasks()
        loop = bench.loop(standby=standby, close_timeout=0.2)
        async for _ in loop:
            if fault is not None and standby is Standby.WEBSOCKET:
                bench.gateway.inject(fault)
            await elapse(UP)
            assert loop.statistics.spare_ready
            assert len(loop.connections) == 2
            begun = now()
            await loop.aclose()
            assert now() - begun <= 0.3
        assert loop.connections == ()
        await settle()
        await until_idle(bench.gateway)
        left = {task.get_name() for task in asyncio.all_tasks() - before}
        assert not {name for name in left if name.startswith("agent_conn.")}

    on_the_bench(scenario)


@EACH
def test_an_hour_with_spares_that_end_every_minute_is_few_dials_and_keeps_none(
    standby: Standby,
) -> None:
    async def main() -> None:
        made = weakref.WeakSet[InferenceConnection]()
        async with Gateway(request_timeout=60.0) as gateway, aiohttp.ClientSession() as session:

            def dial() -> InferenceConnection:
                connection = InferenceConnection(session, gateway.url("/v1/echo"), heartbeat=None)
                made.add(connection)
                return connection

            loop = reconnect(dial, standby=standby, random=lambda: 0.5)
            async for _ in loop:
                gateway.inject(IdleTimeout(60.0), times=None)
                await elapse(3_600.0)
                gc.collect()
                assert len(made) <= 2
                assert 50 <= loop.statistics.spares_dialed <= 240
                assert gateway.open_sockets <= 2
                break
            await loop.aclose()
            await until_idle(gateway)

    in_virtual_time(main, grace=0.0005)


def test_a_final_loss_ends_the_loop_although_a_spare_is_there() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop(standby=Standby.WEBSOCKET)

        async def pump(connection: InferenceConnection) -> None:
            await elapse(UP)
            assert loop.statistics.spare_ready
            bench.gateway.connections[0].inject(CloseWith(1008))
            await listen(connection)

        with pytest.raises(ConnectionLost) as lost:
            await loop.run(pump)
        assert lost.value.code == 1008
        assert loop.connections == ()

    on_the_bench(scenario)


def test_a_peer_that_accepts_and_hangs_up_makes_no_storm_with_a_spare() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(AcceptAndClose(1011), times=None)
        loop = bench.loop(standby=Standby.WEBSOCKET)
        with pytest.raises(RetriesExhausted):
            await loop.run(listen)
        spares = loop.statistics.spares_dialed
        assert len(bench.gateway.handshakes) <= 26 + spares
        assert spares <= now() / BETWEEN + 1

    on_the_bench(scenario)


class Stream:
    """Numbered items through drops at random times; each echo acknowledges one."""

    SECONDS = 0.5

    def __init__(self, gateway: Gateway, session: aiohttp.ClientSession, standby: Standby) -> None:
        self.acknowledged: list[int] = []
        self.drops = 0
        self._gateway = gateway
        self._random = random.Random(7)
        self.buffer = ReplayBuffer[int](max_seconds=60.0)
        self.loop = reconnect(
            lambda: InferenceConnection(session, gateway.url("/v1/echo")),
            standby=standby,
            random=self._random.random,
        )

    async def run(self, drops: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed(drops))
            group.create_task(self.loop.run(self._pump))

    async def _feed(self, drops: int) -> None:
        number = 0
        while self.drops < drops:
            for _ in range(self._random.randrange(80)):
                self.buffer.put_nowait(number, size=1, seconds=self.SECONDS)
                number += 1
                await elapse(self.SECONDS)
            for one in self._gateway.connections:
                if not one.closed and one.close_code is None:
                    one.inject(Reset())
                    self.drops += 1
                    break
        self.buffer.end()

    async def _pump(self, connection: InferenceConnection) -> object:
        self.buffer.begin()
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._write(connection.ws))
            heard = 0
            async for message in connection.ws:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                if message.data == "end":
                    return "all was said"
                heard += 1
                self.acknowledged.append(int(message.data))
                self.buffer.acknowledge(heard * self.SECONDS)
            writing.cancel()
        return None

    async def _write(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for number in self.buffer:
            await ws.send_str(str(number))
        await ws.send_str("end")


@pytest.mark.parametrize("drops", [100, pytest.param(1_000, marks=pytest.mark.slow)])
@EACH
def test_drops_at_random_lose_and_double_nothing_with_replay(standby: Standby, drops: int) -> None:
    async def main() -> None:
        async with Gateway(request_timeout=60.0) as gateway, aiohttp.ClientSession() as session:
            stream = Stream(gateway, session, standby)
            await stream.run(drops)
            put = stream.buffer.statistics.put
            assert stream.acknowledged == list(range(put))
            assert stream.loop.statistics.spares_used >= drops / 3
            await until_idle(gateway)

    in_virtual_time(main, grace=0.0005)


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("standby", "transport", "standby must be of Standby, got str"),
        ("standby", True, "standby must be of Standby, got bool"),
        ("max_age", 0, "max_age"),
        ("max_age", "60", "max_age"),
        ("max_age", float("nan"), "max_age"),
    ],
)
def test_arguments_are_checked(argument: str, value: object, said: str) -> None:
    options: dict[str, Any] = {argument: value}
    with pytest.raises(ConfigurationError, match=said):
        reconnect(lambda: pytest.fail("dialled"), **options)
