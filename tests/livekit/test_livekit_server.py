"""A job that LiveKit's own AgentServer simulates without a LiveKit server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

from helpers.livekit_support import CREDENTIALS
from livekit.agents import AgentServer, JobContext, JobExecutorType
from livekit.agents.inference import TTS
from livekit.protocol import models

from agent_conn import AgentIdentity, ConnectionRecord, WaitOutcome
from agent_conn.gateway import Gateway
from agent_conn.integrations.livekit import attribute_job


@asynccontextmanager
async def running_server(
    entrypoint: Callable[[JobContext], Awaitable[None]],
) -> AsyncIterator[AgentServer]:
    server = AgentServer(
        job_executor_type=JobExecutorType.THREAD, num_idle_processes=0, host="127.0.0.1", port=0
    )
    server.rtc_session(entrypoint)
    started = asyncio.Event()
    server.on("worker_started", started.set)
    task = asyncio.create_task(server.run(devmode=True, unregistered=True))
    try:
        await started.wait()
        yield server
    finally:
        await server.aclose()
        await task


async def test_a_simulated_job_sends_no_agents_id_and_does_not_wait(gateway: Gateway) -> None:
    told: asyncio.Queue[tuple[str, tuple[ConnectionRecord, ...]]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def entrypoint(ctx: JobContext) -> None:
        attribution = attribute_job(ctx)
        tts = TTS("a/b", base_url=gateway.base_url, **CREDENTIALS)
        async with tts.stream() as stream:
            stream.push_text("hello")
            stream.end_input()
            async for _ in stream:
                pass
        await tts.aclose()
        loop.call_soon_threadsafe(told.put_nowait, (ctx.job.id, attribution.records))

    async with running_server(entrypoint) as server:
        room = models.Room(sid="RM_simulated", name="simulated")
        await server.simulate_job("simulated", fake_job=True, room_info=room)
        async with asyncio.timeout(30):
            job_id, (record,) = await told.get()
    assert record.wait_outcome is WaitOutcome.ALREADY_CONNECTED
    (handshake,) = gateway.handshakes
    assert handshake.identity == AgentIdentity(job_id, "RM_simulated")
