"""Calls on a real LiveKit server: what its own agent's connections carry, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

from helpers import livekit_jobs
from helpers.livekit_real import (
    EXECUTORS,
    Caller,
    World,
    on_a_real_server,
    open_world,
    told,
    worker,
)
from livekit.agents import JobExecutorType

from agent_conn.gateway import Gateway

pytestmark = on_a_real_server

SOCKETS = {"stt", "tts", "bargein", "eot"}


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with open_world(monkeypatch) as world:
        yield world


async def whole_call(gateway: Gateway, requests: int = 5) -> dict[str, set[str]]:
    """Wait for the four websockets and the chat of a call; the levels of each, by path."""
    await gateway.wait_until(lambda: len(told(gateway)) >= requests, 40)
    levels: dict[str, set[str]] = {}
    for path, level in told(gateway):
        levels.setdefault(path, set()).add(level)
    return levels


EVERYTHING_AT_AGENT = {path: {"AGENT"} for path in (*SOCKETS, "chat/completions")}


@pytest.mark.parametrize("executor", EXECUTORS, ids=lambda each: each.value)
async def test_all_that_an_unmodified_agent_dials_carries_its_participants_id(
    world: World, executor: JobExecutorType
) -> None:
    world.plan(strings=executor is JobExecutorType.PROCESS)
    async with worker(livekit_jobs.call, executor), Caller(world.server, "one") as caller:
        agent = await caller.agent()
        assert await whole_call(world.gateway) == EVERYTHING_AT_AGENT
        room = await caller.room.sid
    sent = {each.identity for each in world.gateway.handshakes if each.path != "/v1/models"}
    (identity,) = sent
    assert (identity.agent_id, identity.room_id) == (agent.sid, room)


async def test_livekit_alone_sends_no_agents_id_on_what_it_dials_at_once(world: World) -> None:
    world.plan(attribution=False)
    async with worker(livekit_jobs.call), Caller(world.server, "one"):
        levels = await whole_call(world.gateway)
    assert {path: levels[path] for path in SOCKETS} == {path: {"ROOM"} for path in SOCKETS}


@pytest.mark.parametrize("executor", EXECUTORS, ids=lambda each: each.value)
async def test_a_room_that_connects_late_is_waited_for(
    world: World, executor: JobExecutorType
) -> None:
    world.plan(strings=True)
    world.line.hold()
    async with worker(livekit_jobs.call, executor), Caller(world.server, "one"):
        async with asyncio.timeout(30):
            await world.line.joining.wait()
        await asyncio.sleep(3.5)
        assert told(world.gateway) == []
        world.line.release()
        assert await whole_call(world.gateway) == EVERYTHING_AT_AGENT


async def test_a_dial_before_the_room_is_even_asked_for_is_waited_for(world: World) -> None:
    world.plan(early=True)
    async with worker(livekit_jobs.call), Caller(world.server, "one"):
        assert await whole_call(world.gateway, 6) == EVERYTHING_AT_AGENT
    assert "early" in {each.model for each in world.gateway.handshakes}


async def test_a_room_that_never_connects_costs_one_wait_and_the_agents_id_alone(
    world: World,
) -> None:
    world.plan(connect_wait=1.0)
    world.line.hold()
    async with worker(livekit_jobs.call), Caller(world.server, "one"):
        await world.gateway.wait_until(lambda: len(told(world.gateway)) == 4, 30)
        assert dict(told(world.gateway)) == dict.fromkeys(SOCKETS, "ROOM")
        world.line.release()
        assert (await whole_call(world.gateway))["chat/completions"] == {"AGENT"}


async def test_four_calls_at_once_mix_no_id(world: World) -> None:
    world.plan(strings=True)
    async with worker(livekit_jobs.call, idle=4), AsyncExitStack() as stack:
        callers = [Caller(world.server, f"room-{number}") for number in range(4)]
        for caller in callers:
            await stack.enter_async_context(caller)
        expected = {((await each.room.sid), (await each.agent()).sid) for each in callers}
        assert await whole_call(world.gateway, 20) == EVERYTHING_AT_AGENT
    sent = [each.identity for each in world.gateway.handshakes if each.path != "/v1/models"]
    assert {(each.room_id, each.agent_id) for each in sent} == expected
    assert len({each.job_id for each in sent}) == 4
    assert [sent.count(each) for each in set(sent)] == [5] * 4
