"""The LiveKit examples, as a reader runs them: the agent as a script, the plugin in a session."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

from livekit import rtc
from livekit.agents import Agent, AgentSession
from livekit_loopback import Microphone
from livekit_plugin import SAMPLE_RATE, GatewaySTT
from livekit_support import NativeSide, job

from agent_conn import AgentIdentity
from agent_conn.gateway import Gateway, LocalSpeech

EXAMPLES = Path(__file__).parents[2] / "examples"


async def test_the_agent_runs_locally_without_a_livekit_server() -> None:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("espeakng_loader")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / "livekit_agent.py"),
        "--local",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if "LIVEKIT" not in name},
    )
    try:
        async with asyncio.timeout(50):
            told, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaints.decode()
    heard, *records = told.decode().splitlines()
    assert heard == "said 'hello world', heard 'hello world'"
    assert [record.rsplit(" ", 1)[0] for record in records] == ["ROOM already connected"] * 2


async def test_the_plugin_hears_in_an_agent_session_of_its_job(session: Any) -> None:
    native, room = NativeSide(hold=True), rtc.Room()
    async with LocalSpeech() as speech, Gateway(speech) as gateway:
        await speech.warm_up()
        spoken = [piece.pcm async for piece in speech.synthesize("hello world", SAMPLE_RATE)]
        with native.installed(), job(room) as ctx:
            heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            plugin = GatewaySTT(
                session=session, base_url=gateway.base_url, token="token", connect_wait=None
            )
            agent_session: AgentSession[None] = AgentSession(stt=plugin, vad=None)

            @agent_session.on("user_input_transcribed")
            def on_transcript(event: Any) -> None:
                if event.is_final and not heard.done():
                    heard.set_result(event.transcript)

            microphone = Microphone(SAMPLE_RATE)
            pcm = b"".join(spoken)
            microphone.put(rtc.AudioFrame(pcm, SAMPLE_RATE, 1, len(pcm) // 2))
            agent_session.input.audio = microphone
            await agent_session.start(Agent(instructions="Listen."))
            await gateway.wait_until(lambda: gateway.accepted == 1)
            connecting = asyncio.create_task(room.connect("ws://unused", "one"))
            await asyncio.sleep(0)
            native.release()
            await connecting
            async with asyncio.timeout(20):
                assert await heard == "hello world"
            await agent_session.aclose()
            await room.disconnect()
        (handshake,) = gateway.handshakes
        assert handshake.identity == AgentIdentity("AJ_1", ctx.job.room.sid, "PA_one")
        await gateway.wait_idle(2.0)
