"""LiveKit's unmodified LLM, and openai's client, against a local chat-completions route."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import Any, cast

import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

from helpers.livekit_support import CREDENTIALS, NativeSide, fake_job
from livekit import rtc
from livekit.agents import inference, llm
from openai import AsyncClient

from agent_conn import AgentIdentity, WaitOutcome
from agent_conn.gateway import Gateway, mint_token
from agent_conn.integrations.httpx import AttributionAuth
from agent_conn.integrations.livekit import job_identity, room_connected

# openai 3, which LiveKit Agents takes by now, is built on httpx's successor.
httpx_of_openai: Any = importlib.import_module("httpx2" if find_spec("httpx2") else "httpx")


@pytest.fixture
async def chat() -> AsyncIterator[Gateway]:
    async with Gateway(chat_replies=["hello"], **CREDENTIALS) as gateway:
        yield gateway


async def ask(model: inference.LLM) -> str:
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="hi")
    async with model.chat(chat_ctx=context) as stream:
        return "".join([c.delta.content or "" async for c in stream if c.delta])


def identities(chat: Gateway) -> list[AgentIdentity]:
    return [handshake.identity for handshake in chat.handshakes]


def make_llm(chat: Gateway, **options: Any) -> inference.LLM:
    return inference.LLM("a/b", base_url=chat.base_url, **CREDENTIALS, **options)


async def test_the_unmodified_llm_sends_the_agents_id(chat: Gateway) -> None:
    room = rtc.Room()
    with NativeSide().installed(), fake_job(room) as ctx:
        model = make_llm(chat)
        assert await ask(model) == "hello"
        await room.connect("ws://unused", "one")
        assert await ask(model) == "hello"
        await model.aclose()
        await room.disconnect()
    room_id = ctx.job.room.sid
    assert identities(chat) == [
        AgentIdentity("AJ_1", room_id),
        AgentIdentity("AJ_1", room_id, "PA_one"),
    ]
    assert len({handshake.session_id for handshake in chat.handshakes}) == 2
    for handshake in chat.handshakes:
        assert (handshake.model, handshake.status) == ("a/b", 200)
        assert handshake.headers["User-Agent"].startswith("LiveKit")


async def test_an_openai_client_of_a_plugin_waits_for_its_jobs_room(chat: Gateway) -> None:
    native, room = NativeSide(hold=True), rtc.Room()
    with native.installed(), fake_job(room) as ctx:
        auth = AttributionAuth(
            chat.base_url,
            identity=job_identity(),
            room_connected=room_connected(ctx.room),
            connect_wait=5.0,
        )
        http_client = httpx_of_openai.AsyncClient(auth=cast("Any", auth))
        connecting = asyncio.create_task(room.connect("ws://unused", "one"))
        async with AsyncClient(
            api_key=mint_token(**CREDENTIALS), base_url=chat.base_url, http_client=http_client
        ) as client:
            asyncio.get_running_loop().call_later(0.2, native.release)
            answer = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hi"}]
            )
        await connecting
        await room.disconnect()
    assert answer.choices[0].message.content == "hello"
    assert identities(chat) == [AgentIdentity("AJ_1", ctx.job.room.sid, "PA_one")]
    assert [record.wait_outcome for record in auth.records] == [WaitOutcome.CONNECTED]
