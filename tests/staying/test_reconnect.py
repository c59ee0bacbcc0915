"""One loop against the gateway: what it retries, how long it waits, when it ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from helpers.staying_bench import Bench, converse, listen, now, on_the_bench
from helpers.support import Room
from helpers.virtual_time import settle

from agent_conn import (
    AgentConnError,
    AgentIdentity,
    ConfigurationError,
    ConnectionLost,
    ConnectionState,
    ConnectTimeout,
    HandshakeRejected,
    OpenHookFailed,
    Reconnector,
    ReconnectState,
    RetriesExhausted,
    RetryPolicy,
    StateError,
    WaitOutcome,
    reconnect,
)
from agent_conn.gateway import (
    CloseWith,
    DropAfter,
    Redirect,
    Reject,
    Reset,
    StallInHandshake,
)


async def follow(loop: Reconnector) -> None:
    async for connection in loop:
        await listen(connection)


def test_each_record_says_how_many_attempts_went_before() -> None:
    redials: list[int] = []

    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(503), times=2)
        async for connection in bench.loop():
            redials.extend(one.record.redial for one in bench.made)
            assert connection is bench.made[-1]
            break

    on_the_bench(scenario)
    assert redials == [0, 1, 2]


def test_it_gives_open_connections_until_the_caller_breaks() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop()
        given = 0
        async for connection in loop:
            assert connection.state is ConnectionState.OPEN
            assert loop.connections == (connection,)
            await converse(connection)
            given += 1
            if given == 3:
                break
            bench.gateway.connections[-1].inject(Reset())
            await listen(connection)
        await loop.aclose()
        assert loop.state is ReconnectState.CLOSED
        assert [one.state for one in bench.made] == [ConnectionState.CLOSED] * 3

    on_the_bench(scenario)


def test_leaving_the_loop_closes_what_is_open() -> None:
    async def scenario(bench: Bench) -> None:
        async for _ in bench.loop():
            break
        await settle()
        assert bench.made[0].record.close_code == 1000

    on_the_bench(scenario)


def test_an_error_in_the_body_closes_what_is_open() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop()

        async def fail() -> None:
            async with loop:
                async for _ in loop:
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert loop.state is ReconnectState.CLOSED
        assert bench.made[0].state is ConnectionState.CLOSED

    on_the_bench(scenario)


def test_a_401_is_dialled_once() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(401), times=None)
        with pytest.raises(HandshakeRejected) as caught:
            async for _ in bench.loop():
                pass
        assert caught.value.status == 401
        assert len(bench.gateway.handshakes) == 1

    on_the_bench(scenario)


def test_a_redirect_is_dialled_once() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Redirect("/elsewhere"), times=None)
        with pytest.raises(Exception, match="redirect"):
            async for _ in bench.loop():
                pass
        assert len(bench.gateway.handshakes) == 1

    on_the_bench(scenario)


def test_a_429_waits_as_long_as_it_says_and_its_jitter() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(429, {"Retry-After": "2"}))
        async for _ in bench.loop():
            break
        first, second = bench.gateway.handshakes
        assert second.request_at - first.request_at == pytest.approx(2.0 + 1.0)

    on_the_bench(scenario)


def test_a_black_holed_handshake_stops_after_its_redials() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(StallInHandshake(), times=None)
        with pytest.raises(RetriesExhausted, match="all 3 redials") as caught:
            async for _ in bench.loop(RetryPolicy(attempts=3), open_timeout=3.0):
                pass
        assert [type(one) for one in caught.value.attempts] == [ConnectTimeout] * 4
        assert len(bench.gateway.handshakes) == 4
        assert now() == pytest.approx(4 * 3.0 + 1 + 2 + 4)

    on_the_bench(scenario)


def test_the_room_is_waited_for_once_and_identity_and_token_are_fresh_each_time() -> None:
    async def scenario(bench: Bench) -> None:
        room, tokens = Room(), iter(["first", "second", "third"])
        loop = bench.loop(
            RetryPolicy(initial=0.0),
            identity=room.identity,
            room_connected=room.connected,
            connect_wait=2.0,
            token=lambda: next(tokens),
        )
        bench.gateway.inject(Reject(503))
        async for connection in loop:
            if len(bench.made) == 3:
                break
            assert now() == pytest.approx(2.0)
            await converse(connection)
            room.connected.set()
            bench.gateway.connections[-1].inject(Reset())
            await listen(connection)
        assert now() == pytest.approx(2.0)
        assert next(tokens, None) is None
        levels = [shake.level.name for shake in bench.gateway.handshakes]
        assert levels == ["ROOM", "ROOM", "AGENT"]
        outcomes = [one.record.wait_outcome for one in bench.made]
        assert outcomes == [
            WaitOutcome.TIMED_OUT,
            WaitOutcome.TIMED_OUT,
            WaitOutcome.ALREADY_CONNECTED,
        ]
        await loop.aclose()

    on_the_bench(scenario)


def test_waking_cuts_a_backoff_short() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(503, {"Retry-After": "50"}))
        loop = bench.loop()
        asyncio.get_running_loop().call_later(3.0, loop.wake)
        async for _ in loop:
            break
        assert now() == pytest.approx(3.0)
        assert loop.statistics.waited == pytest.approx(3.0)

    on_the_bench(scenario)


def test_waking_at_any_other_time_cuts_nothing_short() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(503, {"Retry-After": "50"}))
        loop = bench.loop()
        loop.wake()
        async for _ in loop:
            loop.wake()
            break
        assert now() == pytest.approx(51.0)

    on_the_bench(scenario)


@pytest.mark.parametrize("state", ["WAITING", "DIALING", "BACKOFF", "OPEN"])
def test_another_task_can_end_it_in_every_state(state: str) -> None:
    async def scenario(bench: Bench) -> None:
        room = asyncio.Event()
        if state != "WAITING":
            room.set()
        if state == "DIALING":
            bench.gateway.inject(StallInHandshake())
        if state == "BACKOFF":
            bench.gateway.inject(Reject(503))
        loop = bench.loop(room_connected=room, connect_wait=None)

        consuming = asyncio.create_task(follow(loop))
        await settle()
        assert loop.state.name == ("DIALING" if state == "WAITING" else state)
        await loop.aclose()
        await consuming
        assert loop.state is ReconnectState.CLOSED
        assert loop.connections == ()
        assert now() == 0.0

    on_the_bench(scenario)


def test_a_normal_close_by_the_peer_is_dialled_again() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop()
        async for connection in loop:
            await converse(connection)
            if loop.statistics.opened == 2:
                break
            bench.gateway.connections[-1].inject(CloseWith(1000))
            await listen(connection)
        await loop.aclose()
        assert isinstance(loop.last_error, ConnectionLost)
        assert loop.last_error.code == 1000
        assert loop.statistics.last_error == "ConnectionLost: closed with code 1000"

    on_the_bench(scenario)


def test_a_final_close_code_is_raised() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(CloseWith(1008))
        with pytest.raises(ConnectionLost) as caught:
            await follow(bench.loop())
        assert caught.value.code == 1008

    on_the_bench(scenario)


@pytest.mark.parametrize(
    ("code", "dials"), [(4004, 1), (1008, 1), (1002, 1), (1012, 4), (1011, 4), (4429, 4)]
)
def test_a_close_met_in_on_open_has_the_verdict_that_it_has_later(code: int, dials: int) -> None:
    async def scenario(bench: Bench) -> None:
        async def greeted(ws: aiohttp.ClientWebSocketResponse) -> None:
            message = await ws.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise RuntimeError("no greeting")

        bench.gateway.inject(CloseWith(code, reason="key withdrawn"), times=None)
        with pytest.raises(AgentConnError) as caught:
            await follow(bench.loop(RetryPolicy(attempts=3), on_open=greeted))
        assert len(bench.gateway.handshakes) == dials
        assert "key withdrawn" in str(caught.value)

    on_the_bench(scenario)


def test_a_hook_that_fails_by_itself_is_final() -> None:
    async def scenario(bench: Bench) -> None:
        async def fail(_: aiohttp.ClientWebSocketResponse) -> None:
            raise ExceptionGroup("", [ConnectionResetError(), ZeroDivisionError()])

        with pytest.raises(OpenHookFailed):
            await follow(bench.loop(on_open=fail))
        assert len(bench.made) == 1

    on_the_bench(scenario)


def test_a_drop_in_a_group_of_on_open_is_dialled_again() -> None:
    async def scenario(bench: Bench) -> None:
        async def talk(ws: aiohttp.ClientWebSocketResponse) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(send(ws))

        async def send(ws: aiohttp.ClientWebSocketResponse) -> None:
            for _ in range(20):
                await ws.send_str("?")
                await asyncio.sleep(0.01)

        bench.gateway.inject(DropAfter(2, reset=True))
        async for _ in bench.loop(on_open=talk):
            break
        assert len(bench.made) == 2

    on_the_bench(scenario)


def test_spent_credits_are_dialled_once_and_a_limit_that_passes_again() -> None:
    async def scenario(bench: Bench) -> None:
        for category, dials in (("MaxGatewayCredits", 1), ("MaxConcurrentGatewaySTT", 4)):
            begun = len(bench.made)
            body = json.dumps({"type": "inference_quota_exceeded", "category": category}).encode()
            bench.gateway.inject(Reject(429, body=body), times=dials)
            with pytest.raises((HandshakeRejected, RetriesExhausted)):
                await follow(bench.loop(RetryPolicy(attempts=3)))
            assert len(bench.made) - begun == dials

    on_the_bench(scenario)


def test_a_loop_is_iterated_once() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop()
        async for _ in loop:
            with pytest.raises(StateError, match="OPEN"):
                await anext(aiter(loop))
            break
        await loop.aclose()
        with pytest.raises(StateError, match="CLOSED"):
            await anext(aiter(loop))

    on_the_bench(scenario)


def test_a_loop_that_was_closed_before_it_began_cannot_be_iterated() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop()
        await loop.aclose()
        await loop.aclose()
        with pytest.raises(StateError, match="CLOSED"):
            await anext(aiter(loop))

    on_the_bench(scenario)


def test_closing_from_on_open_ends_the_loop() -> None:
    async def scenario(bench: Bench) -> None:
        async def close(_: object) -> None:
            await loop.aclose()

        loop = bench.loop(on_open=close)
        async for _ in loop:
            raise AssertionError
        assert loop.state is ReconnectState.CLOSED

    on_the_bench(scenario)


def test_what_a_factory_raises_ends_the_loop() -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(ConfigurationError, match="open_timeout"):
            async for _ in bench.loop(open_timeout=-1):
                pass

    on_the_bench(scenario)


def test_a_factory_that_makes_something_else_is_refused() -> None:
    async def scenario(bench: Bench) -> None:
        factory: Any = object
        with pytest.raises(ConfigurationError, match="dial"):
            await follow(reconnect(factory))

    on_the_bench(scenario)


async def test_a_dial_that_is_async_is_refused_at_once() -> None:
    async def dial() -> None: ...

    factory: Any = dial
    with pytest.raises(ConfigurationError, match=r"dial must be a def .*, got an async def"):
        reconnect(factory)


@pytest.mark.parametrize("name", ["dial", "retry", "upgrade", "random"])
def test_a_wrong_argument_is_refused_by_name(name: str) -> None:
    arguments: dict[str, Any] = {"dial": AgentIdentity, name: 3}
    with pytest.raises(ConfigurationError, match=name):
        reconnect(**arguments)
