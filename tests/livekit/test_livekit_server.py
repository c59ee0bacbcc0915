"""Real jobs of a real ``AgentServer``, with threads and with processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

import livekit_jobs
from livekit.agents import AgentServer, JobContext, JobExecutorType
from livekit.protocol import models
from livekit_support import CREDENTIALS, ControlServer, NativeSide

from agent_conn import AgentIdentity
from agent_conn.gateway import Gateway


@asynccontextmanager
async def running_server(
    executor: JobExecutorType, entrypoint: Callable[[JobContext], Awaitable[None]]
) -> AsyncIterator[AgentServer]:
    server = AgentServer(
        job_executor_type=executor,
        num_idle_processes=0,
        host="127.0.0.1",
        port=0,
        ws_url="ws://127.0.0.1:9",
        load_fnc=lambda: 0.0,
        **CREDENTIALS,
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


def dials(gateway: Gateway, room: str, name: str) -> list[tuple[str, str]]:
    """Path and level of each handshake of one room's clients of one name."""
    return [
        (handshake.path, handshake.level.name)
        for handshake in gateway.handshakes
        if handshake.model == f"{room}/{name}"
    ]


async def start(
    server: AgentServer, gateway: Gateway, control: ControlServer, room: str, **options: Any
) -> None:
    plan = {"room": room, "base_url": gateway.base_url, "control": control.url}
    info = models.Room(sid=f"RM_{room}", name=room, metadata=json.dumps(plan))
    await server.simulate_job(room, agent_identity="agent", room_info=info, **options)


async def drive(
    server: AgentServer, gateway: Gateway, control: ControlServer, room: str
) -> dict[str, Any]:
    """Run one job through all its gates; returns its report."""
    await start(server, gateway, control, room)
    await gateway.wait_until(lambda: len(dials(gateway, room, "alone")) == 2, 30)
    control.open(f"{room}/alone")
    await gateway.wait_until(lambda: len(dials(gateway, room, "short")) == 2, 30)
    control.open(f"{room}/short")
    await gateway.wait_until(lambda: len(dials(gateway, room, "patient")) == 2, 30)
    await gateway.wait_until(lambda: len(dials(gateway, room, "short")) == 3, 30)
    control.open(f"{room}/all")
    report: dict[str, Any] = await control.report(room)
    return report


EARLY = {("/v1/stt", "ROOM"), ("/v1/tts", "ROOM")}
AGENT = {("/v1/stt", "AGENT"), ("/v1/tts", "AGENT")}


@pytest.mark.parametrize("executor", [JobExecutorType.THREAD, JobExecutorType.PROCESS])
async def test_in_a_real_job_the_line_gives_early_dials_the_agents_id(
    executor: JobExecutorType,
) -> None:
    async with Gateway() as gateway, ControlServer() as control:
        with NativeSide().installed():
            async with running_server(executor, livekit_jobs.entrypoint) as server:
                report = await drive(server, gateway, control, "one")
        assert "error" not in report
        # LiveKit alone: no agent's id, and none later.
        assert set(dials(gateway, "one", "alone")) == EARLY
        assert len(dials(gateway, "one", "alone")) == 2
        # The room connects within the wait.
        assert set(dials(gateway, "one", "patient")) == AGENT
        assert report["records"]["patient"] == [["AGENT", "connected"]] * 2
        # It does not: room level, recorded, until the pool is refreshed.
        assert set(dials(gateway, "one", "short")[:2]) == EARLY
        assert dials(gateway, "one", "short")[2:] == [("/v1/tts", "AGENT")]
        timed_out, refreshed = ["ROOM", "timed out"], ["AGENT", "already connected"]
        assert report["records"]["short"] == [timed_out, timed_out, refreshed]
        assert report["agent_sid"] == "PA_one"


async def test_two_jobs_in_one_process_at_once_send_their_own_ids_also_from_executors() -> None:
    rooms = ["red", "blue"]
    async with Gateway() as gateway, ControlServer() as control:
        with NativeSide().installed():
            async with (
                running_server(JobExecutorType.THREAD, livekit_jobs.entrypoint) as server,
                asyncio.TaskGroup() as group,
            ):
                drives = [group.create_task(drive(server, gateway, control, r)) for r in rooms]
        for room, task in zip(rooms, drives, strict=True):
            report = task.result()
            own = AgentIdentity(report["job_id"], f"RM_{room}", f"PA_{room}")
            ours, theirs = report["executor"]
            assert ours == own.headers()
            assert theirs == {}
            sent = [shake for shake in gateway.handshakes if shake.model == f"{room}/patient"]
            assert [shake.identity for shake in sent] == [own, own]


async def test_a_fake_job_sends_no_agents_id_and_does_not_wait() -> None:
    async with Gateway() as gateway, ControlServer() as control:
        async with running_server(JobExecutorType.THREAD, livekit_jobs.fake_entrypoint) as server:
            await start(server, gateway, control, "mock", fake_job=True)
            await gateway.wait_until(lambda: len(dials(gateway, "mock", "fake")) == 2, 30)
            control.open("mock/fake")
            report = await control.report("mock")
        assert report["records"] == [["ROOM", "already connected"]] * 2
        for handshake in gateway.handshakes:
            assert handshake.identity == AgentIdentity(report["job_id"], report["sid"])
