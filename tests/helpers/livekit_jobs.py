"""Entrypoints of real jobs. A job's process imports this file by name."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import aiohttp
from livekit.agents import Agent, AgentSession, JobContext, inference
from livekit.agents.utils import http_context

from agent_conn.integrations.livekit import attribute_job, inference_token
from helpers.livekit_support import livekit_headers

PLAN = "AGENT_CONN_JOB_PLAN"


async def call(ctx: JobContext) -> None:
    """A call of an agent that is LiveKit's own throughout, as the environment's plan says."""
    plan: dict[str, Any] = json.loads(os.environ[PLAN])
    if plan.get("attribution", True):
        attribute_job(ctx, connect_wait=plan.get("connect_wait", 8.0))
    ctx.add_shutdown_callback(_fetch_models)
    session: AgentSession[None] = AgentSession(**_models(plan))
    if plan.get("early", False):
        await _dial_before_the_room_is_asked_for()
    await session.start(Agent(instructions="Answer in one sentence."), room=ctx.room)
    await session.generate_reply(instructions="Greet the caller.")


async def _fetch_models(_reason: str = "") -> None:
    """As an avatar that is told the end: in vain, were the session closed by then."""
    url = f"{os.environ['LIVEKIT_INFERENCE_URL']}/models"
    headers = {**livekit_headers(), "Authorization": f"Bearer {inference_token()()}"}
    async with http_context.http_session().get(url, headers=headers) as response:
        response.raise_for_status()


async def _dial_before_the_room_is_asked_for() -> None:
    """As an entrypoint that warms its models up and does something else before it connects."""
    begun = asyncio.Event()

    async def on_start(*_: object) -> None:
        begun.set()

    look = aiohttp.TraceConfig()
    look.on_request_start.append(on_start)
    look.freeze()
    # Before the attribution's, which holds the request up.
    http_context.http_session().trace_configs.insert(0, look)
    tts = inference.TTS("early")
    tts.prewarm()
    await begun.wait()


def _models(plan: dict[str, Any]) -> dict[str, Any]:
    if plan.get("strings", False):
        return {"stt": "deepgram/nova-3", "tts": "cartesia/sonic-3", "llm": "openai/gpt-4o-mini"}
    return {
        "stt": inference.STT("deepgram/nova-3"),
        "tts": inference.TTS("cartesia/sonic-3"),
        "llm": inference.LLM("openai/gpt-4o-mini"),
    }
