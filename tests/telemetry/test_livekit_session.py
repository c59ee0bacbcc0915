"""Connections of a LiveKit agent, in the trace that LiveKit itself makes of its session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

import aiohttp
from helpers.exported import Exported
from helpers.livekit_support import job
from livekit.agents import Agent, AgentSession, telemetry
from livekit.agents.ipc.mock_room import create_mock_room
from livekit_plugin import GatewaySTT
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

from agent_conn import InferenceConnection
from agent_conn.gateway import Gateway

CONVERSATION = "gen_ai.conversation.id"


@pytest.fixture
def livekits_own(exported: Exported) -> Iterator[None]:
    """LiveKit's tracer, whose spans go where ours do."""
    telemetry.set_tracer_provider(exported.tracer_provider)
    yield
    telemetry.set_tracer_provider(trace.get_tracer_provider())


def ancestors(span: ReadableSpan, everything: tuple[ReadableSpan, ...]) -> Iterator[str]:
    by_id = {each.get_span_context().span_id: each for each in everything}  # type: ignore[union-attr]
    parent = span.parent
    while parent is not None:
        above = by_id[parent.span_id]
        yield above.name
        parent = above.parent


@pytest.mark.usefixtures("livekits_own")
async def test_what_an_agent_session_dials_lies_under_its_span(
    exported: Exported, session: aiohttp.ClientSession, gateway: Gateway
) -> None:
    with job(create_mock_room()) as ctx:
        plugin = GatewaySTT(
            session=session, base_url=gateway.base_url, token="token", **exported.options()
        )
        agent_session: AgentSession[None] = AgentSession(stt=plugin, vad=None)
        await agent_session.start(Agent(instructions="Listen."))
        await gateway.wait_until(lambda: len(gateway.connections) == 1)
        await agent_session.aclose()
        await gateway.wait_idle()
        (connect,) = exported.spans()
        (life,) = exported.spans("agent_conn.connection")
        everything = exported.all_spans()
        room = ctx.job.room.sid
    assert "agent_session" in ancestors(connect, everything)
    assert "agent_session" in ancestors(life, everything)
    for span in (connect, life):
        assert dict(span.attributes or {})[CONVERSATION] == room


@pytest.mark.parametrize("attributes", [{}, {CONVERSATION: 7}])
async def test_a_parent_that_names_no_conversation_gives_none(
    exported: Exported,
    session: aiohttp.ClientSession,
    gateway: Gateway,
    attributes: dict[str, Any],
) -> None:
    with exported.tracer.start_as_current_span("mine", attributes=attributes):
        async with InferenceConnection(session, gateway.url("/v1/echo"), **exported.options()):
            await asyncio.sleep(0)
    (connect,) = exported.spans()
    assert CONVERSATION not in (connect.attributes or {})
