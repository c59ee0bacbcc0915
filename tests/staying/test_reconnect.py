"""One loop against the gateway: what it retries, how long it waits, when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from staying_bench import Bench, converse, listen, now, on_the_bench
from support import Room
from virtual_time import elapse, settle

from agent_conn import (
    AgentIdentity,
    ConfigurationError,
    ConnectionLost,
    ConnectionState,
    ConnectTimeout,
    HandshakeRejected,
    Reconnector,
    ReconnectState,
    RetriesExhausted,
    RetryPolicy,
    StateError,
    WaitOutcome,
    reconnect,
)
from agent_conn.gateway import (
    AcceptAndClose,
    CloseWith,
    Redirect,
    Reject,
    Reset,
    StallInHandshake,
)


async def follow(
    loop: Reconnector, afterwards: Callable[[], Awaitable[None]] | None = None
) -> None:
    async for connection in loop:
        await listen(connection)
        if afterwards is not None:
            await afterwards()


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


def test_a_429_waits_as_long_as_it_says() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(Reject(429, {"Retry-After": "2"}))
        async for _ in bench.loop():
            break
        first, second = bench.gateway.handshakes
        assert second.request_at - first.request_at == pytest.approx(2.0)

    on_the_bench(scenario)


def test_a_black_holed_handshake_stops_after_its_attempts() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(StallInHandshake(), times=None)
        with pytest.raises(RetriesExhausted, match="after 4 attempts") as caught:
            async for _ in bench.loop(RetryPolicy(attempts=4), open_timeout=3.0):
                pass
        assert [type(one) for one in caught.value.attempts] == [ConnectTimeout] * 4
        assert len(bench.gateway.handshakes) == 4
        assert now() == pytest.approx(4 * 3.0 + 1 + 2 + 4)

    on_the_bench(scenario)


def test_accepting_and_closing_three_times_stops_it() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(AcceptAndClose(1011), times=None)
        loop = bench.loop()
        with pytest.raises(RetriesExhausted) as caught:
            await follow(loop)
        assert len(bench.gateway.handshakes) == 3
        assert [type(one) for one in caught.value.attempts] == [ConnectionLost] * 3
        assert loop.statistics.lost == 3

    on_the_bench(scenario)


def test_a_muted_caller_never_runs_out_of_budget() -> None:
    async def scenario(bench: Bench) -> None:
        async def hang_up() -> None:
            for sockets in range(1, 31):
                await bench.gateway.wait_until(lambda: bench.gateway.accepted == sockets, 60)  # noqa: B023
                await elapse(11.0)
                bench.gateway.connections[-1].inject(CloseWith(1011))

        hanging_up = asyncio.create_task(hang_up())
        loop = bench.loop(RetryPolicy(attempts=2, quick_failures=1))
        async for connection in loop:
            if len(bench.made) == 31:
                break
            await listen(connection)
        await loop.aclose()
        await hanging_up
        assert loop.statistics.waited == 0.0
        assert loop.statistics.opened == 31

    on_the_bench(scenario)


def test_a_connection_that_ended_unseen_is_not_proven_by_the_time_the_body_took() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(AcceptAndClose(1011), times=None)
        with pytest.raises(RetriesExhausted):
            await follow(bench.loop(), lambda: elapse(100.0))

    on_the_bench(scenario)


def test_a_body_that_does_nothing_cannot_dial_for_ever() -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(RetriesExhausted):
            async for _ in bench.loop():
                pass
        assert len(bench.made) == 3

    on_the_bench(scenario)


def test_after_a_proven_connection_the_first_redial_leaves_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        loop = bench.loop()
        async for connection in loop:
            await converse(connection)
            if loop.statistics.opened == 2:
                break
            bench.gateway.connections[-1].inject(Reset())
            await listen(connection)
        assert now() == 0.0

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
        assert now() == pytest.approx(50.0)

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
        assert isinstance(loop.statistics.last_error, ConnectionLost)
        assert loop.statistics.last_error.code == 1000

    on_the_bench(scenario)


def test_a_final_close_code_is_raised() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gateway.inject(CloseWith(1008))
        with pytest.raises(ConnectionLost) as caught:
            await follow(bench.loop())
        assert caught.value.code == 1008

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


def test_the_first_message_costs_later_ones_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        async for connection in bench.loop():
            plain = aiohttp.ClientWebSocketResponse.receive
            assert getattr(connection.ws.receive, "__func__", None) is not plain
            await converse(connection)
            assert getattr(connection.ws.receive, "__func__", None) is plain
            break

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


@pytest.mark.parametrize("name", ["dial", "retry", "upgrade", "random"])
def test_a_wrong_argument_is_refused_by_name(name: str) -> None:
    arguments: dict[str, Any] = {"dial": AgentIdentity, name: 3}
    with pytest.raises(ConfigurationError, match=name):
        reconnect(**arguments)
