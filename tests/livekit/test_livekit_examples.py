"""The LiveKit examples, as a reader runs them: the agent as a script, the plugin in a session."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

from helpers.livekit_real import needs_server
from helpers.livekit_support import NativeSide, job
from livekit import rtc
from livekit.agents import Agent, AgentSession, inference
from livekit_loopback import Microphone
from livekit_plugin import SAMPLE_RATE, GatewaySTT

from agent_conn import AgentIdentity
from agent_conn.gateway import Gateway, LocalSpeech

EXAMPLES = Path(__file__).parents[2] / "examples"


async def run_example(
    *arguments: str, seconds: float = 50, **environment: str
) -> tuple[int | None, str, str]:
    """The status of an example that runs as a script, what it printed and what it complained."""
    plain = {name: value for name, value in os.environ.items() if "LIVEKIT" not in name}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / arguments[0]),
        *arguments[1:],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**plain, **environment},
    )
    try:
        async with asyncio.timeout(seconds):
            told, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, told.decode(), complaints.decode()


async def test_the_agent_runs_locally_without_a_livekit_server() -> None:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("espeakng_loader")
    status, told, complaints = await run_example("livekit_agent.py", "--local")
    assert status == 0, complaints
    heard, *records = told.splitlines()
    assert heard == "said 'hello world', heard 'hello world'"
    levels = {record.rsplit(" ", 1)[0] for record in records}
    assert levels == {"AGENT already connected"}
    assert len(records) >= 2


def test_the_documentation_names_each_class_of_livekits() -> None:
    page = (EXAMPLES.parent / "docs/how-to/livekit.md").read_text()
    public = {name: getattr(inference, name) for name in inference.__all__}
    classes = {name for name, value in public.items() if inspect.isclass(value)}
    assert {name for name in classes if f"`{name}`" not in page} == set()


@needs_server
@pytest.mark.timeout(150)
async def test_a_caller_talks_with_the_agent_whose_every_connection_names_it() -> None:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("espeakng_loader")
    status, told, complaints = await run_example("livekit_call.py", seconds=140)
    assert status == 0, complaints
    attributed, alone = told.split("LiveKit alone")
    for part in (attributed, alone):
        assert re.search(r"the agent greets: ['\"]\w+", part)
        # What is heard of it is up to the recogniser, over a line that compresses.
        assert re.search(r"the agent answers: ['\"]\w+", part)
        assert re.search(r"room connected after \d+\.\d+ s", part)
    shown = {line.split()[0]: line.split()[1:3] for line in attributed.splitlines() if "0." in line}
    websockets = [shown[path] for path in ("stt", "tts", "bargein", "eot", "chat/completions")]
    ((level, agent_id),) = {tuple(each) for each in websockets}
    assert level == "AGENT"
    assert agent_id.startswith("PA_")
    assert re.search(r"stt +ROOM +- ", alone)


async def test_without_a_server_the_call_says_how_to_get_one(tmp_path: Path) -> None:
    status, told, complaints = await run_example(
        "livekit_call.py", XDG_CACHE_HOME=str(tmp_path), PATH=str(tmp_path)
    )
    assert (status, told) == (1, "")
    assert "go install github.com/livekit/livekit-server/cmd/server@v1.9.11" in complaints


async def test_the_plugin_hears_in_an_agent_session_of_its_job(session: Any) -> None:
    pytest.importorskip("pocketsphinx")
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
