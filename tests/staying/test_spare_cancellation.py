"""Cancelled after any number of turns of the event loop: spares and handovers leave nothing."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from helpers.staying_bench import Bench, converse, listen
from helpers.support import Line, open_line
from helpers.virtual_time import elapse, in_virtual_time, until_idle

from agent_conn import InferenceConnection, Reconnector, Standby, UpgradePolicy, reconnect
from agent_conn.gateway import Gateway, Reset

ENOUGH_TURNS = 800
EACH = pytest.mark.parametrize("standby", list(Standby))


def ours(before: set[asyncio.Task[object]]) -> set[str]:
    """The tasks that a loop has left."""
    names = {task.get_name() for task in asyncio.all_tasks() - before}
    return {name for name in names if name.startswith(("agent_conn", "story"))}


async def cancel(task: asyncio.Task[object], times: int) -> bool:
    """Cancel ``task``, again at each turn; whether it had ended before."""
    finished = task.done()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait({task})
    if finished:
        task.result()
    return finished


async def lose_and_redial(bench: Bench, loop: Reconnector, ready: asyncio.Event) -> None:
    """Have a spare, and be on the way to it."""
    async for connection in loop:
        await converse(connection)
        if ready.is_set():
            break
        await elapse(6.0)
        assert loop.statistics.spare_ready
        bench.gateway.connections[0].inject(Reset())
        ready.set()
        await listen(connection)


@pytest.mark.parametrize("cancels", [1, 3], ids=["once", "three times"])
@EACH
def test_cancelled_while_a_spare_is_taken(standby: Standby, cancels: int) -> None:
    async def main() -> None:
        for turns in range(ENOUGH_TURNS):
            before: set[asyncio.Task[object]] = {*asyncio.all_tasks()}
            async with Gateway() as gateway, aiohttp.ClientSession() as session:
                alone = Bench(gateway, session)
                loop, ready = alone.loop(standby=standby, close_timeout=0.2), asyncio.Event()
                story: asyncio.Task[object] = asyncio.create_task(
                    lose_and_redial(alone, loop, ready), name="story"
                )
                await ready.wait()
                for _ in range(turns):
                    await asyncio.sleep(0)
                finished = await cancel(story, cancels)
                await loop.aclose()
                assert loop.connections == ()
                await until_idle(gateway)
                assert not ours(before)
            if finished:
                break
        assert finished
        assert turns > 3

    in_virtual_time(main)


@pytest.mark.parametrize("cancels", [1, 3], ids=["once", "three times"])
@EACH
async def test_closed_or_cancelled_while_a_spare_is_dialled_and_a_rotation_begins(
    standby: Standby, cancels: int
) -> None:
    async with open_line(tls=False) as line:
        before: set[asyncio.Task[object]] = {*asyncio.all_tasks()}
        async with aiohttp.ClientSession() as session:
            for turns in range(0, ENOUGH_TURNS, 3):
                finished = await rotate_and_stop(line, session, standby, turns, cancels)
                assert not ours(before)
                await line.gateway.wait_idle(2.0)
                if finished:
                    break
            assert finished


async def rotate_and_stop(
    line: Line, session: aiohttp.ClientSession, standby: Standby, turns: int, cancels: int
) -> bool:
    """Rotate beside a spare that is dialled, and stop all after ``turns`` turns."""

    async def drain(old: InferenceConnection) -> None:
        await converse(old)

    def dial() -> InferenceConnection:
        return InferenceConnection(session, line.gateway.url("/v1/echo"), close_timeout=0.2)

    loop = reconnect(dial, standby=standby, upgrade=UpgradePolicy(drain=drain), random=lambda: 0.0)

    async def tell() -> None:
        async for connection in loop:
            await converse(connection)
            if loop.statistics.rotated or not await loop.rotate():
                break

    story: asyncio.Task[object] = asyncio.create_task(tell(), name="story")
    for _ in range(turns):
        await asyncio.sleep(0)
    if turns % 2:
        await loop.aclose()
    finished = await cancel(story, cancels)
    closing: asyncio.Task[object] = asyncio.create_task(loop.aclose(), name="story.close")
    await asyncio.sleep(0)
    await cancel(closing, 1)
    await loop.aclose()
    assert loop.connections == ()
    return finished and loop.statistics.rotated == 1
