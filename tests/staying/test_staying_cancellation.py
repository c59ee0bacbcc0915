"""Cancelled after any number of turns of the event loop: a loop leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import aiohttp
import pytest
from helpers.staying_bench import Bench, converse, listen, on_the_bench
from helpers.support import Room
from helpers.virtual_time import until_idle

from agent_conn import (
    InferenceConnection,
    Reconnector,
    ReconnectState,
    ReplayBuffer,
    UpgradePolicy,
)
from agent_conn.gateway import GoSilent, IgnoreClose, Reject, Reset

ENOUGH_TURNS = 600


async def cancelled_after(work: Awaitable[object], turns: int, cancels: int = 1) -> bool:
    """Cancel ``work`` after ``turns`` turns; whether it had ended by itself before."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    finished = task.done()
    for _ in range(cancels):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait({task})
    assert finished is not task.cancelled()
    return finished


async def assert_nothing_left(bench: Bench, loop: Reconnector, before: set[object]) -> None:
    await loop.aclose()
    assert loop.state is ReconnectState.CLOSED
    assert loop.connections == ()
    await until_idle(bench.gateway)
    ours = {task.get_name() for task in asyncio.all_tasks() - before}
    assert not {name for name in ours if name.startswith(("agent_conn", "story"))}


class Story:
    """A rejection, a dial, a drop, an upgrade with a drain, and the end."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._room = Room()
        self.loop = bench.loop(
            upgrade=UpgradePolicy(drain=self._drain),
            identity=self._room.identity,
            room_connected=self._room.connected,
            connect_wait=0,
            on_open=self._greet,
            close_timeout=0.2,
        )

    async def run(self) -> None:
        self._bench.gateway.inject(Reject(503))
        async for connection in self.loop:
            await converse(connection)
            if self.loop.statistics.opened == 1:
                self._bench.gateway.connections[-1].inject(Reset())
                await listen(connection)
            elif self.loop.statistics.opened == 2:
                self._room.connected.set()
                assert await self.loop.upgrade()
            else:
                break

    async def _greet(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        await ws.send_str("hello")

    async def _drain(self, connection: InferenceConnection) -> None:
        await converse(connection)


@pytest.mark.parametrize("cancels", [1, 3], ids=["once", "three times"])
def test_cancelled_while_it_iterates(cancels: int) -> None:
    async def scenario(bench: Bench) -> None:
        states = set()
        before: set[object] = {*asyncio.all_tasks()}
        for turns in range(ENOUGH_TURNS):
            bench.gateway.withdraw_faults()
            story = Story(bench)
            telling = asyncio.create_task(story.run(), name="story")
            for turn in range(turns):
                # Turns take no time, so that a backoff has to be cut short; not at once, though.
                if turn % 10 == 0:
                    story.loop.wake()
                await asyncio.sleep(0)
            states.add(story.loop.state)
            finished = await cancelled_after(telling, 0, cancels)
            await assert_nothing_left(bench, story.loop, before)
            if finished:
                break
        assert finished
        assert states >= {
            ReconnectState.IDLE,
            ReconnectState.DIALING,
            ReconnectState.OPEN,
            ReconnectState.BACKOFF,
        }

    on_the_bench(scenario)


@pytest.mark.parametrize("fault", [None, GoSilent(), IgnoreClose()], ids=repr)
@pytest.mark.parametrize("cancels", [1, 3], ids=["once", "three times"])
def test_cancelled_while_it_closes(fault: GoSilent | None, cancels: int) -> None:
    async def scenario(bench: Bench) -> None:
        before: set[object] = {*asyncio.all_tasks()}
        for turns in range(1, 40):
            if fault is not None:
                bench.gateway.inject(fault)
            loop = bench.loop(close_timeout=0.2)
            async for _ in loop:
                finished = await cancelled_after(loop.aclose(), turns, cancels)
            await assert_nothing_left(bench, loop, before)
            if finished:
                break
        assert turns > 1

    on_the_bench(scenario)


async def test_a_cancelled_put_or_get_loses_no_item() -> None:
    buffer = ReplayBuffer[int](max_seconds=1.0)
    for turns in range(4):
        assert not await cancelled_after(anext(buffer), turns)
    buffer.put_nowait(1, size=1, seconds=1.0)
    for turns in range(4):
        assert not await cancelled_after(buffer.put(2, size=1, seconds=1.0), turns)
    assert buffer.statistics.put == 1
    assert await anext(buffer) == 1
