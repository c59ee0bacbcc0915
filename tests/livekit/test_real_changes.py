"""A real LiveKit server that pauses, restarts or removes the agent in the middle of a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp
import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

from helpers.livekit_real import (
    GATEWAY_CREDENTIALS,
    THREAD,
    Caller,
    Jobs,
    RunningJob,
    on_a_real_server,
    open_world,
    worker,
)
from helpers.usage import assert_equal_within_a_percent
from livekit import api, rtc
from livekit.agents import get_job_context
from livekit.agents.utils import http_context
from livekit_local_server import LiveKitServer

from agent_conn import (
    AttributionLevel,
    ConnectionPool,
    InferenceConnection,
    UsageMeter,
    reconnect,
)
from agent_conn.gateway import Gateway
from agent_conn.integrations.livekit import get_inference_headers, inference_connection

pytestmark = on_a_real_server


@dataclass
class Call:
    server: LiveKitServer
    gateway: Gateway
    caller: Caller
    job: RunningJob
    jobs: Jobs

    @property
    def agent_id(self) -> str:
        return self.job.ctx.agent.sid

    async def participants(self) -> set[str]:
        """The ids of those in the room, by the server's own account."""
        async with self.admin() as admin:
            answer = await admin.room.list_participants(api.ListParticipantsRequest(room="one"))
        return {participant.sid for participant in answer.participants}

    def admin(self) -> api.LiveKitAPI:
        url = self.server.url.replace("ws", "http", 1)
        return api.LiveKitAPI(url, self.server.key, self.server.secret)

    async def dial(self) -> str | None:
        """The agent's id that a dial of the job's session goes out with now."""
        return await self.job.run(partial(_dial, self.gateway))

    async def seen(self, event: rtc.room.EventTypes) -> asyncio.Event:
        """What is set once the job's room emits ``event``."""
        happened, loop = asyncio.Event(), asyncio.get_running_loop()

        async def subscribe() -> None:
            self.job.ctx.room.once(event, lambda *_: loop.call_soon_threadsafe(happened.set))

        await self.job.run(subscribe)
        return happened


async def _dial(gateway: Gateway) -> str | None:
    url = gateway.url("/v1/echo")
    headers = get_inference_headers()
    headers.pop("X-LiveKit-Agent-ID", None)
    headers["Authorization"] = f"Bearer {_token()}"
    async with http_context.http_session().ws_connect(url, headers=headers):
        sent = gateway.handshakes[-1]
    assert sent.identity.job_id == get_job_context().job.id
    return sent.identity.agent_id


def _token() -> str:
    grants = api.InferenceGrants(perform=True)
    token = api.AccessToken(*GATEWAY_CREDENTIALS.values()).with_identity("agent")
    return token.with_inference_grants(grants).to_jwt()


@asynccontextmanager
async def running_call(patch: pytest.MonkeyPatch) -> AsyncIterator[Call]:
    async with open_world(patch) as world:
        jobs = Jobs(partial(_dial, world.gateway))
        async with worker(jobs.entrypoint, THREAD), Caller(world.server, "one") as caller:
            yield Call(world.server, world.gateway, caller, await jobs.started(), jobs)


@pytest.fixture
async def call(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Call]:
    async with running_call(monkeypatch) as call:
        yield call


async def test_a_server_that_pauses_changes_no_id(call: Call) -> None:
    before = call.agent_id
    call.server.pause()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await call.participants()
    assert await call.dial() == before
    call.server.resume()
    async with asyncio.timeout(20):
        assert before in await call.participants()
    assert await call.dial() == before


async def test_after_a_restart_what_is_dialled_or_lent_goes_under_the_new_id(call: Call) -> None:
    before = call.agent_id
    pool = await call.job.run(partial(_open_pool, call.gateway))
    assert await call.job.run(partial(_lent, pool)) == before
    held = await call.job.run(partial(_open, call.gateway))
    assert held.is_current()
    reconnected = await call.seen("reconnected")
    await call.server.stop()
    await call.server.start()
    async with asyncio.timeout(40):
        await reconnected.wait()
        # The participant has another id soon after, and no event tells.
        while call.agent_id == before:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await call.dial() == call.agent_id
    assert await call.job.run(partial(_lent, pool)) == call.agent_id
    # A stream from before is told by this, which upgrades and pools go by.
    assert not held.is_current()
    await call.job.run(pool.aclose)
    await call.job.run(held.aclose)


async def test_after_a_restart_a_stream_from_before_follows_where_that_is_asked(
    call: Call,
) -> None:
    before, meter = call.agent_id, UsageMeter()
    stream = await call.job.run(partial(_start_stream, call, meter))
    await call.server.stop()
    await call.server.start()
    await call.gateway.wait_until(lambda: len(call.gateway.usage) == 2, 60)
    assert await call.job.run(stream.finish) == [before, call.agent_id]
    assert before != call.agent_id
    assert [used.agent_id for used in meter.usage] == [before, call.agent_id]
    assert_equal_within_a_percent(meter.usage, call.gateway.usage)


async def test_an_agent_that_is_removed_has_no_id_any_more(call: Call) -> None:
    disconnected = await call.seen("disconnected")
    async with call.admin() as admin:
        identity = call.job.ctx.room.local_participant.identity
        await admin.room.remove_participant(
            api.RoomParticipantIdentity(room="one", identity=identity)
        )
    async with asyncio.timeout(20):
        await disconnected.wait()
    # The participant can still be read, though it is in no room.
    assert call.agent_id.startswith("PA_")
    assert await call.jobs.ended() is None


async def test_a_jobs_shutdown_callbacks_dial_on_its_session_which_ends_after_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_call(monkeypatch) as call:
        session = await call.job.run(_session)
        await call.job.run(_shut_down)
        # LiveKit leaves the room first, so that there is no agent's id any more.
        assert await call.jobs.ended() is None
    assert session.closed
    assert call.gateway.handshakes[-1].level is AttributionLevel.ROOM


class Stream:
    """An STT stream of a job, which asks to follow the agent's id once its room is back."""

    def __init__(self, room: rtc.Room, gateway: Gateway, meter: UsageMeter) -> None:
        self._agent_ids: list[str | None] = []
        self._ending = False
        self._loop = reconnect(
            partial(inference_connection, "stt", model="m", base_url=gateway.base_url, usage=meter)
        )
        self._tasks = [asyncio.create_task(self._loop.run(self._listen), name="listen")]
        room.on("reconnected", self._on_reconnected)

    async def finish(self) -> list[str | None]:
        """The agent's ids that the stream went under."""
        self._ending = True
        await asyncio.gather(*self._tasks)
        return self._agent_ids

    def _on_reconnected(self) -> None:
        self._tasks.append(asyncio.create_task(self._follow(), name="follow"))

    async def _follow(self) -> None:
        # The agent has its new id up to 3 s later, with no event.
        async with asyncio.timeout(10):
            while not await self._loop.upgrade():  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def _listen(self, connection: InferenceConnection) -> bool | None:
        assert connection.record.identity is not None
        self._agent_ids.append(connection.record.identity.agent_id)
        await connection.ws.send_json(
            {"type": "session.create", "settings": {"sample_rate": "16000"}}
        )
        while self._loop.successor is None and not self._ending:
            await connection.ws.send_json({"type": "input_audio", "audio": "AAAA" * 400})
            # As fast as somebody speaks.
            await asyncio.sleep(0.0375)
        await connection.ws.send_json({"type": "session.close"})
        async for _ in connection:
            pass
        return True if self._ending else None


async def _start_stream(call: Call, meter: UsageMeter) -> Stream:
    return Stream(call.job.ctx.room, call.gateway, meter)


async def _session() -> aiohttp.ClientSession:
    return http_context.http_session()


async def _shut_down() -> None:
    get_job_context().shutdown()


async def _open(gateway: Gateway) -> InferenceConnection:
    connection = inference_connection("echo", model="m", base_url=gateway.base_url)
    await connection
    return connection


async def _open_pool(gateway: Gateway) -> ConnectionPool:
    dial = partial(inference_connection, "echo", model="m", base_url=gateway.base_url)
    return await ConnectionPool(dial).__aenter__()


async def _lent(pool: ConnectionPool) -> str | None:
    async with pool.acquire() as connection:
        assert connection.record.identity is not None
        return connection.record.identity.agent_id
