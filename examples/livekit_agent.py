"""A whole voice agent under LiveKit's own AgentServer; one line attributes all that it dials.

As a worker of a LiveKit server (workers, dispatch and draining on many machines are LiveKit's),
with LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET in the environment:

    python examples/livekit_agent.py dev

On this machine alone, against the local gateway, where it hears what it says:

    python examples/livekit_agent.py --local

`examples/livekit_call.py` calls it on a LiveKit server of this machine.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import threading
import time
from typing import Any

from livekit import rtc
from livekit.agents import (
    Agent,
    AgentServer,
    AgentSession,
    JobContext,
    JobExecutorType,
    cli,
    inference,
)
from livekit_loopback import hear_itself

from agent_conn.gateway import Gateway, LocalSpeech
from agent_conn.integrations.livekit import attribute_job

GREETING = "hello world"
SAMPLE_RATE = 16_000
ATTRIBUTED = os.environ.get("LIVEKIT_AGENT_ALONE") != "1"
"""Off, to see what LiveKit sends without the line."""

over = threading.Event()


async def entrypoint(ctx: JobContext) -> None:
    """Run one job: greet, then talk."""
    attribution = attribute_job(ctx) if ATTRIBUTED else None  # The line.
    session: AgentSession[None] = AgentSession(
        stt=inference.STT("auto", sample_rate=SAMPLE_RATE),
        tts=inference.TTS("cartesia/sonic-3", sample_rate=SAMPLE_RATE),
        llm=inference.LLM("openai/gpt-4o-mini"),
    )
    agent = Agent(instructions="You are a helpful voice assistant. Answer in one sentence.")
    if ctx.is_fake_job():
        # The room of a fake job is a mock, whose participant has no id.
        participant: Any = ctx.room.local_participant
        participant.sid = "PA_local"
        heard = await hear_itself(session, agent, GREETING, SAMPLE_RATE)
        print(f"said {GREETING!r}, heard {heard!r}", flush=True)
        for record in attribution.records if attribution is not None else ():
            print(record.attribution.name, record.wait_outcome, record.session_id, flush=True)
        over.set()
        return
    started = time.monotonic()

    @ctx.room.on("connection_state_changed")
    def on_change(state: rtc.ConnectionState.ValueType) -> None:
        if state == rtc.ConnectionState.CONN_CONNECTED:
            print(f"room connected after {time.monotonic() - started:.3f} s", flush=True)

    await session.start(agent, room=ctx.room)
    session.say(GREETING)


async def run_locally() -> None:
    """Run one job against a gateway on this machine, with no LiveKit server."""
    key, secret = "local", secrets.token_hex(32)
    async with (
        LocalSpeech() as speech,
        Gateway(speech, api_key=key, api_secret=secret) as gateway,
    ):
        await speech.warm_up()
        os.environ["LIVEKIT_INFERENCE_URL"] = gateway.base_url
        os.environ["LIVEKIT_INFERENCE_API_KEY"] = key
        os.environ["LIVEKIT_INFERENCE_API_SECRET"] = secret
        server = AgentServer(
            job_executor_type=JobExecutorType.THREAD,
            num_idle_processes=0,
            host="127.0.0.1",
            port=0,
        )
        server.rtc_session(entrypoint)
        started = asyncio.Event()
        server.on("worker_started", started.set)
        running = asyncio.create_task(server.run(devmode=True, unregistered=True))
        await started.wait()
        await server.simulate_job("local", fake_job=True)
        await asyncio.to_thread(over.wait)
        await server.aclose()
        await running


if __name__ == "__main__":
    if "--local" in sys.argv[1:]:
        asyncio.run(run_locally())
    else:
        worker = AgentServer(host="127.0.0.1", port=0)
        worker.rtc_session(entrypoint)
        cli.run_app(worker)
