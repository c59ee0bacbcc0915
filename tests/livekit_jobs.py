"""Entrypoints of real jobs. A job's process imports this file by name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

import aiohttp
from livekit.agents import JobContext
from livekit.agents.inference import STT, TTS
from livekit_support import CREDENTIALS, NativeSide, livekit_headers, room_module

from agent_conn.integrations.livekit import AttributedSession, attributed_session, job_identity


async def entrypoint(ctx: JobContext) -> None:
    """Dial as LiveKit does alone, then with the line and too little time, then with enough."""
    plan = json.loads(ctx.job.room.metadata)
    installed = isinstance(room_module.FfiClient, NativeSide)
    report: dict[str, Any] = {"job_id": ctx.job.id}
    with nullcontext() if installed else NativeSide().installed():
        async with AsyncExitStack() as stack:
            control = Control(await stack.enter_async_context(aiohttp.ClientSession()), plan)
            try:
                await _dial_and_connect(ctx, plan, stack, control, report)
                report["executor"] = await _headers_in_executor()
                report["agent_sid"] = ctx.agent.sid
            except Exception as error:
                report["error"] = repr(error)
            await control.post("report", report)


async def fake_entrypoint(ctx: JobContext) -> None:
    """Dial with the line in a job whose room is a mock."""
    plan = json.loads(ctx.job.room.metadata)
    async with AsyncExitStack() as stack:
        control = Control(await stack.enter_async_context(aiohttp.ClientSession()), plan)
        session = attributed_session(connect_wait=5.0, origins=plan["base_url"])
        await stack.enter_async_context(_dialing(plan, "fake", session))
        await control.gate("fake")
        report = {"records": _told(session), "sid": ctx.job.room.sid, "job_id": ctx.job.id}
        await control.post("report", report)


async def _headers_in_executor() -> list[dict[str, str]]:
    """Ours and LiveKit's, of which only ours were made in the job."""
    loop, identity = asyncio.get_running_loop(), job_identity()
    ours = await loop.run_in_executor(None, identity)
    theirs = await loop.run_in_executor(None, livekit_headers)
    return [ours.headers(), {name: theirs[name] for name in theirs if name != "User-Agent"}]


async def _dial_and_connect(
    ctx: JobContext,
    plan: dict[str, Any],
    stack: AsyncExitStack,
    control: Control,
    report: dict[str, Any],
) -> None:
    sessions: dict[str, AttributedSession] = {}
    await stack.enter_async_context(_dialing(plan, "alone", None))
    await control.gate("alone")
    for name, wait in (("short", 0.05), ("patient", 9.0)):
        sessions[name] = attributed_session(connect_wait=wait, origins=plan["base_url"])
        await stack.enter_async_context(_dialing(plan, name, sessions[name]))
        if name == "short":
            await control.gate(name)
    await ctx.connect()
    await control.gate("all")
    report["records"] = {name: _told(session) for name, session in sessions.items()}


def _told(session: AttributedSession) -> list[list[str | None]]:
    records = session.attribution.records
    return [[record.attribution.name, record.wait_outcome] for record in records]


@asynccontextmanager
async def _dialing(
    plan: dict[str, Any], name: str, session: aiohttp.ClientSession | None
) -> AsyncIterator[None]:
    """An STT and a TTS that dial at once, as the model ``name`` and the room's."""
    model = f"{plan['room']}/{name}"
    stt = STT(model, http_session=session, base_url=plan["base_url"], **CREDENTIALS)
    tts = TTS(model, http_session=session, base_url=plan["base_url"], **CREDENTIALS)
    stream = stt.stream()
    tts.prewarm()
    try:
        yield
    finally:
        await stream.aclose()
        await stt.aclose()
        await tts.aclose()


class Control:
    """A job's line to the test."""

    def __init__(self, session: aiohttp.ClientSession, plan: dict[str, Any]) -> None:
        self._session = session
        self._url = plan["control"]
        self._room = plan["room"]

    async def gate(self, name: str) -> None:
        """Return once the test has opened this gate."""
        async with self._session.get(f"{self._url}/gate/{self._room}/{name}") as response:
            response.raise_for_status()

    async def post(self, path: str, body: Any) -> None:
        async with self._session.post(f"{self._url}/{path}/{self._room}", json=body) as response:
            response.raise_for_status()
