"""A pump that a loop runs: what is a loss to it, what comes out, and when it is done."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from helpers.staying_bench import Bench, converse, listen, now, on_the_bench
from helpers.support import Line, Room
from helpers.virtual_time import elapse, settle

from agent_conn import (
    ConfigurationError,
    ConnectionLost,
    GiveUpReason,
    InferenceConnection,
    Reconnector,
    ReconnectState,
    ReplayBuffer,
    RetriesExhausted,
    RetryPolicy,
    StateError,
    reconnect,
)
from agent_conn.gateway import CloseWith, DropAfter, GoSilent, IgnoreClose, Reset

pytestmark = pytest.mark.quick


class Told(Exception):
    pass


DROPS: dict[str, Callable[[], Exception]] = {
    "reset": ConnectionResetError,
    "aiohttp's": lambda: aiohttp.ClientPayloadError("cut"),
    "ours": lambda: ConnectionLost("the session ended early"),
    "group": lambda: ExceptionGroup("", [ConnectionResetError(), BrokenPipeError()]),
    "nested": lambda: ExceptionGroup("", [ExceptionGroup("", [aiohttp.ClientError()])]),
}
OTHERS: dict[str, Callable[[], Exception]] = {
    "own": Told,
    "time": TimeoutError,
    "file": FileNotFoundError,
    "wrong kind": lambda: aiohttp.WSMessageTypeError("Received message 2:b'' is not TEXT"),
    "mixed": lambda: ExceptionGroup("", [ConnectionResetError(), Told()]),
}


@pytest.mark.parametrize("what", DROPS)
def test_a_drop_that_the_pump_meets_is_a_loss(what: str) -> None:
    async def scenario(bench: Bench) -> None:
        turns = 0

        async def pump(_: InferenceConnection) -> str:
            nonlocal turns
            turns += 1
            if turns == 1:
                error = DROPS[what]()
                raise error
            return "done"

        loop = bench.loop()
        assert await loop.run(pump) == "done"
        assert turns == 2
        assert loop.statistics.lost == 1
        assert isinstance(loop.last_error, ConnectionLost)
        assert loop.last_error.__traceback__ is None

    on_the_bench(scenario)


@pytest.mark.parametrize("what", OTHERS)
def test_what_else_a_pump_raises_comes_out_as_it_is(what: str) -> None:
    async def scenario(bench: Bench) -> None:
        error = OTHERS[what]()

        async def pump(_: InferenceConnection) -> None:
            raise error

        loop = bench.loop()
        with pytest.raises(type(error)) as caught:
            await loop.run(pump)
        assert caught.value is error
        assert loop.state is ReconnectState.CLOSED
        assert len(bench.made) == 1

    on_the_bench(scenario)


async def test_a_sender_that_meets_the_drop_goes_on_with_the_next_connection(line: Line) -> None:
    line.gateway.inject(DropAfter(5, reset=True))
    turns = 0

    async def pump(connection: InferenceConnection) -> None:
        nonlocal turns
        turns += 1
        for _ in range(200 if turns == 1 else 1):
            await connection.ws.send_bytes(bytes(640))
            await asyncio.sleep(0.002)

    async with reconnect(line.dial, random=lambda: 0.0) as loop:
        await loop.run(pump)
    assert turns == 2


async def test_a_task_group_in_a_pump_and_one_around_it(line: Line) -> None:
    line.gateway.inject(DropAfter(2, reset=True))
    buffer = ReplayBuffer[str]()
    heard = []

    async def write(ws: aiohttp.ClientWebSocketResponse) -> None:
        async for item in buffer:
            await ws.send_str(item)

    async def pump(connection: InferenceConnection) -> None:
        buffer.begin()
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write(connection.ws))
            async for message in connection.ws:
                buffer.acknowledge_items(1)
                heard.append(message.data)
                if len(heard) == 10:
                    writing.cancel()
                    return
            writing.cancel()

    for number in range(10):
        buffer.put_nowait(str(number), size=1)
    async with asyncio.TaskGroup() as group:
        async with asyncio.timeout(10.0):
            await group.create_task(reconnect(line.dial, random=lambda: 0.0).run(pump))
    assert heard == [str(number) for number in range(10)]


async def test_a_sentence_that_a_peer_dies_of_is_given_up_and_the_rest_is_spoken(
    session: aiohttp.ClientSession,
) -> None:
    heard: list[str] = []

    async def speak(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            heard.append(message.data)
            if message.data == "poison":
                await ws.close(code=1011)
            else:
                await ws.send_str("done")
        return ws

    told: list[tuple[float, GiveUpReason, int]] = []
    buffer = ReplayBuffer[str](on_give_up=lambda *what: told.append(what))
    for sentence in ("good", "poison", "better", "best"):
        buffer.put_nowait(sentence, size=len(sentence))
    buffer.end()

    async def pump(connection: InferenceConnection) -> bool | None:
        buffer.begin()
        async for sentence in buffer:
            await connection.ws.send_str(sentence)
            message = await connection.ws.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                return None
            buffer.acknowledge_items(1)
        return True

    application = web.Application()
    application.router.add_get("/", speak)
    async with TestServer(application) as server:
        dial = partial(InferenceConnection, session, str(server.make_url("/")))
        async with reconnect(dial, random=lambda: 0.0) as loop:
            assert await loop.run(pump)
    assert heard == ["good", "poison", "poison", "poison", "better", "best"]
    assert told == [(0.0, GiveUpReason.POISON, 1)]
    assert loop.statistics.lost == 3


def test_a_timeout_around_it_ends_it_and_closes_what_is_open() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await loop.run(listen)
        assert now() == pytest.approx(5.0)
        assert loop.state is ReconnectState.CLOSED

    on_the_bench(scenario)


@pytest.mark.parametrize("fault", [None, IgnoreClose(), GoSilent()], ids=repr)
def test_a_scope_of_anyio_around_it_ends_it_within_its_bound(fault: IgnoreClose | None) -> None:
    async def scenario(bench: Bench) -> None:
        if fault is not None:
            bench.gateway.inject(fault)
        loop = bench.loop(close_timeout=1.0)
        with anyio.move_on_after(5.0) as scope:
            await loop.run(listen)
        assert scope.cancelled_caught
        assert now() <= 6.1
        assert loop.state is ReconnectState.CLOSED
        assert loop.connections == ()

    on_the_bench(scenario)


@pytest.mark.parametrize("turns", [*range(0, 60, 3), 100, 200])
def test_cancelled_at_any_time_it_leaves_nothing_behind(turns: int) -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop()
        running = asyncio.create_task(loop.run(converse_for_ever))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()
        await loop.aclose()
        assert loop.connections == ()

    async def converse_for_ever(connection: InferenceConnection) -> None:
        while True:
            await converse(connection)

    on_the_bench(scenario)


def test_it_ends_with_none_when_the_loop_is_closed_from_elsewhere() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop()
        running = asyncio.create_task(loop.run(send_for_ever))
        await settle()
        await loop.aclose()
        await elapse(1.0)
        assert running.done()
        await running

    async def send_for_ever(connection: InferenceConnection) -> None:
        while True:
            await connection.ws.send_str("?")
            await elapse(0.1)

    on_the_bench(scenario)


@pytest.mark.parametrize("how", ["returns something", "returns while open", "closed it"])
def test_a_pump_is_done_when(how: str) -> None:
    async def scenario(bench: Bench) -> None:
        async def pump(connection: InferenceConnection) -> int | None:
            if how == "returns something":
                bench.gateway.connections[-1].inject(CloseWith(1000))
                await listen(connection)
                return 0
            if how == "closed it":
                await connection.aclose()
            return None

        result = await bench.loop().run(pump)
        assert result == (0 if how == "returns something" else None)
        assert len(bench.made) == 1

    on_the_bench(scenario)


@pytest.mark.parametrize("end", [CloseWith(1000), CloseWith(1011), Reset()], ids=repr)
def test_a_pump_whose_websocket_ended_is_given_the_next(end: Reset) -> None:
    async def scenario(bench: Bench) -> None:
        async def pump(connection: InferenceConnection) -> None:
            if len(bench.made) < 3:
                bench.gateway.connections[-1].inject(end)
                await listen(connection)

        await bench.loop().run(pump)
        assert len(bench.made) == 3

    on_the_bench(scenario)


def test_a_pump_that_returns_for_a_better_connection_is_given_it() -> None:
    async def scenario(bench: Bench) -> None:
        room = Room()
        loop = bench.loop(identity=room.identity, room_connected=room.connected, connect_wait=0)
        levels = []

        async def pump(connection: InferenceConnection) -> None:
            levels.append(connection.attribution.name)
            if len(levels) == 1:
                room.connected.set()
                assert await loop.upgrade()

        await loop.run(pump)
        assert levels == ["ROOM", "AGENT"]
        assert loop.statistics.lost == 0

    on_the_bench(scenario)


def test_the_peers_close_decides_and_not_what_the_sender_met() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(CloseWith(4004, reason="unknown key"))

        async def pump(connection: InferenceConnection) -> None:
            await settle()
            raise ConnectionResetError

        with pytest.raises(ConnectionLost, match="unknown key") as caught:
            await bench.loop().run(pump)
        assert caught.value.code == 4004

    on_the_bench(scenario)


def test_drops_spend_the_budget_as_any_losses_and_are_told_at_its_end() -> None:
    async def scenario(bench: Bench) -> None:
        async def pump(_: InferenceConnection) -> None:
            raise BrokenPipeError

        loop = bench.loop(RetryPolicy(attempts=3))
        with pytest.raises(RetriesExhausted) as caught:
            await loop.run(pump)
        assert len(caught.value.attempts) == 4
        assert isinstance(caught.value.attempts[0].__cause__, BrokenPipeError)

    on_the_bench(scenario)


def test_a_loop_is_run_once() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop()

        async def pump(_: InferenceConnection) -> None:
            with pytest.raises(StateError, match="OPEN"):
                await loop.run(pump)

        await loop.run(pump)
        with pytest.raises(StateError, match="CLOSED"):
            await loop.run(pump)

    on_the_bench(scenario)


@pytest.mark.parametrize("wrong", [None, 3, "not async"])
def test_a_pump_that_is_none_is_refused(wrong: Any) -> None:
    async def scenario(bench: Bench) -> None:
        pump: Any = (lambda _: 3) if wrong == "not async" else wrong
        with pytest.raises(ConfigurationError, match="pump must be"):
            await bench.loop().run(pump)

    on_the_bench(scenario)


def test_statistics_and_errors_are_plain_data() -> None:
    async def scenario(bench: Bench) -> None:
        loop: Reconnector = bench.loop(RetryPolicy(attempts=1))
        bench.gateway.inject(CloseWith(1011, reason="overheated"), times=None)
        with pytest.raises(RetriesExhausted) as caught:
            await loop.run(partial(listen))
        told = loop.statistics
        assert pickle.loads(pickle.dumps(told)) == copy.deepcopy(told) == told
        assert "overheated" in json.loads(json.dumps(asdict(told)))["last_error"]
        again = pickle.loads(pickle.dumps(caught.value))
        assert [str(one) for one in again.attempts] == [str(one) for one in caught.value.attempts]

    on_the_bench(scenario)
