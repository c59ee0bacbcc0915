"""Ids of jobs and connections of rooms: real rooms on a fake native side, and doubles."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

from helpers.livekit_support import NativeSide, fake_job, mock_room
from livekit import rtc

from agent_conn import AgentIdentity, AttributionLevel, ConfigurationError, WaitOutcome
from agent_conn._room import wait_for_room
from agent_conn.integrations.livekit import job_identity, room_connected

ANY_MOCK = MagicMock()
ANY_MOCK.name = "any"
MOCKS = pytest.mark.parametrize("room", [mock_room(), ANY_MOCK], ids=["livekit's", "any"])


@pytest.fixture
async def native(loop_reports: list[Any]) -> AsyncIterator[NativeSide]:
    with NativeSide(hold=True).installed() as side:
        yield side


@asynccontextmanager
async def connected_room(native: NativeSide, name: str) -> AsyncIterator[rtc.Room]:
    native.release()
    room = rtc.Room()
    await room.connect("ws://unused", name)
    yield room
    await room.disconnect()


async def seen_by(room: rtc.Room, event: Any, act: Callable[[], object]) -> None:
    """Return once ``room`` has emitted ``event`` after ``act``."""
    emitted = asyncio.Event()
    room.once(event, lambda *_: emitted.set())
    act()
    async with asyncio.timeout(5):
        await emitted.wait()


async def test_before_the_room_connects_its_job_and_room_are_known_alone(
    native: NativeSide,
) -> None:
    with fake_job(rtc.Room(), "AJ_1") as ctx:
        identity = job_identity()()
        assert identity == AgentIdentity("AJ_1", ctx.job.room.sid)
        assert identity.level is AttributionLevel.ROOM


async def test_each_read_has_the_participants_sid_of_that_moment(native: NativeSide) -> None:
    room = rtc.Room()
    with fake_job(room, "AJ_1") as ctx:
        read = job_identity()
        connecting = asyncio.create_task(room.connect("ws://unused", "one"))
        assert read().agent_id is None
        native.release()
        await connecting
        assert read() == AgentIdentity("AJ_1", ctx.job.room.sid, "PA_one")
        handle = native.handle("one")
        await seen_by(room, "reconnected", lambda: native.reconnect(handle, "agent-one", "PA_new"))
        assert read().agent_id == "PA_new"
        await room.disconnect()
        # livekit keeps the participant then; it is in no room any more.
        assert room.local_participant.sid == "PA_new"
        assert read() == AgentIdentity("AJ_1", ctx.job.room.sid)


async def test_threads_executors_and_tasks_made_elsewhere_know_the_job(native: NativeSide) -> None:
    work: asyncio.Queue[Callable[[], AgentIdentity]] = asyncio.Queue()

    async def worker() -> AgentIdentity:
        return (await work.get())()

    before = asyncio.create_task(worker())
    async with connected_room(native, "one") as room:
        with fake_job(room, "AJ_1") as ctx:
            read = job_identity()
            expected = AgentIdentity("AJ_1", ctx.job.room.sid, "PA_one")
            loop = asyncio.get_running_loop()
            assert await loop.run_in_executor(None, read) == expected
            assert await loop.run_in_executor(None, job_identity()) == expected
            assert await loop.run_in_executor(None, _read_there) == AgentIdentity()
        found: list[AgentIdentity] = []
        thread = threading.Thread(target=lambda: found.append(read()))
        thread.start()
        await asyncio.to_thread(thread.join)
        work.put_nowait(read)
        assert [*found, await before, read()] == [expected] * 3


def _read_there() -> AgentIdentity:
    return job_identity()()


async def test_two_jobs_at_once_are_each_read_as_themselves(native: NativeSide) -> None:
    started = asyncio.Barrier(2)

    async def run(name: str) -> tuple[AgentIdentity, AgentIdentity]:
        async with connected_room(native, name) as room:
            with fake_job(room, f"AJ_{name}") as ctx:
                await started.wait()
                own = AgentIdentity(f"AJ_{name}", ctx.job.room.sid, f"PA_{name}")
                return own, job_identity()()

    for own, read in await asyncio.gather(run("one"), run("two")):
        assert read == own


async def test_a_given_context_is_read_rather_than_the_one_around() -> None:
    with fake_job(job_id="AJ_outer") as outer, fake_job(job_id="AJ_inner"):
        assert job_identity(outer)().job_id == "AJ_outer"
        assert job_identity()().job_id == "AJ_inner"


def test_outside_a_job_there_are_no_ids() -> None:
    assert job_identity()() == AgentIdentity()


@MOCKS
async def test_no_id_is_invented_from_a_mock_of_a_room(room: Any) -> None:
    with fake_job(room, "mock-job-1"):
        identity = job_identity()()
    assert identity.agent_id is None
    assert identity.job_id == "mock-job-1"


async def test_an_id_that_cannot_be_read_costs_no_other() -> None:
    class Job:
        @property
        def id(self) -> str:
            raise LookupError

        room = SimpleNamespace(sid="RM_1")

    class Context:
        job = Job()
        room = SimpleNamespace(isconnected=lambda: True)
        agent = SimpleNamespace(sid="PA_1")

    identity = job_identity(Context())()  # type: ignore[arg-type]  # a double
    assert identity == AgentIdentity(None, "RM_1", "PA_1")
    assert identity.omitted["job_id"] == "raised LookupError"


@pytest.mark.parametrize("ctx", [7, "ctx", object()])
def test_what_is_no_job_is_refused(ctx: Any) -> None:
    with pytest.raises(ConfigurationError, match="ctx must be a JobContext"):
        job_identity(ctx)


async def test_a_room_is_waited_for_until_it_connects(native: NativeSide) -> None:
    room = rtc.Room()
    ready = room_connected(room)
    waiting = asyncio.create_task(wait_for_room(ready, 5))
    connecting = asyncio.create_task(room.connect("ws://unused", "one"))
    await asyncio.sleep(0)
    assert not ready.is_set()
    native.release()
    assert await waiting is WaitOutcome.CONNECTED
    assert ready.is_set()
    await connecting
    await ready.wait()
    await room.disconnect()
    assert not ready.is_set()


async def test_a_room_that_disconnects_goes_on_being_waited_for(native: NativeSide) -> None:
    async with connected_room(native, "one") as room:
        ready = room_connected(room)
        handle = native.handle("one")
        await seen_by(room, "disconnected", lambda: native.disconnect(handle))
        waiting = asyncio.create_task(wait_for_room(ready, 5))
        # A change that connects nothing.
        for _ in range(20):
            room.emit("connection_state_changed", room.connection_state)
            await asyncio.sleep(0)
        assert not waiting.done()
        await room.connect("ws://unused", "two")
        assert await waiting is WaitOutcome.CONNECTED


async def test_a_room_whose_connect_fails_is_waited_for_until_the_bound(
    native: NativeSide,
) -> None:
    room = rtc.Room()
    connecting = asyncio.create_task(room.connect("ws://unused", "one"))
    waiting = asyncio.create_task(wait_for_room(room_connected(room), 0.05))
    await asyncio.sleep(0)
    native.refuse()
    with pytest.raises(rtc.ConnectError):
        await connecting
    assert await waiting is WaitOutcome.TIMED_OUT


async def test_however_a_wait_ends_the_room_is_no_longer_subscribed_to(native: NativeSide) -> None:
    subscribed: list[Any] = []

    class Watched(rtc.Room):
        def on(self, event: Any, callback: Any = None) -> Any:
            subscribed.append(callback)
            return super().on(event, callback)

        def off(self, event: Any, callback: Any) -> None:
            subscribed.remove(callback)
            super().off(event, callback)

    waiting = asyncio.create_task(room_connected(Watched()).wait())
    await asyncio.sleep(0)
    assert len(subscribed) == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert subscribed == []


@MOCKS
async def test_a_mock_that_never_emits_is_already_connected(room: Any) -> None:
    assert room_connected(room).is_set()
    assert not room.connect.called


async def test_a_room_of_another_threads_loop_can_be_waited_for(native: NativeSide) -> None:
    subscribed = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Watched(rtc.Room):
        def on(self, event: Any, callback: Any = None) -> Any:
            # Told once the other loop has nothing left to do but wait.
            other = asyncio.get_running_loop()
            other.call_soon(loop.call_soon_threadsafe, subscribed.set)
            return super().on(event, callback)

    room = Watched()
    ready = room_connected(room)
    waiting = asyncio.create_task(asyncio.to_thread(asyncio.run, wait_for_room(ready, 8)))
    await subscribed.wait()
    connected_at = loop.time()
    connecting = asyncio.create_task(room.connect("ws://unused", "one"))
    await asyncio.sleep(0)
    native.release()
    assert await waiting is WaitOutcome.CONNECTED
    assert loop.time() - connected_at < 4
    await connecting
    await room.disconnect()


@pytest.mark.parametrize("room", [None, 7, "room"])
def test_what_is_no_room_is_refused(room: Any) -> None:
    with pytest.raises(ConfigurationError, match="room must be an"):
        room_connected(room)
