"""A test of your agent: it dials before its room is connected, and is attributed all the same.

Needs pytest and pytest-asyncio, in any mode: pip install pytest pytest-asyncio. The fixtures come
with agent_conn.

    pytest examples/test_my_agent.py
"""

from __future__ import annotations

import asyncio
import base64

import aiohttp
import pytest

from agent_conn import AttributionLevel, HandshakeRejected, IdentitySource, InferenceConnection
from agent_conn.gateway import Reject, ScriptedEngine
from agent_conn.testing import InferenceGateway, RoomIdentity

GREETING = b"\x01\x00" * 2400


class MyAgent:
    """Your agent, which greets as soon as it may."""

    def __init__(
        self, tts_url: str, identity: IdentitySource, room_connected: asyncio.Event
    ) -> None:
        self.tts_url = tts_url
        self.identity = identity
        self.room_connected = room_connected

    async def greet(self) -> bytes:
        """Return what it says."""
        pcm = bytearray()
        async with (
            aiohttp.ClientSession() as session,
            InferenceConnection(
                session,
                self.tts_url,
                identity=self.identity,
                room_connected=self.room_connected,
                connect_wait=1.0,
            ) as ws,
        ):
            await ws.send_json({"type": "session.create", "sample_rate": "24000"})
            await ws.send_json({"type": "input_transcript", "transcript": "Hello."})
            await ws.send_json({"type": "session.flush"})
            while (message := await ws.receive_json())["type"] != "done":
                if message["type"] == "output_audio":
                    pcm += base64.b64decode(message["audio"])
        return bytes(pcm)


@pytest.fixture
def agent(
    inference_gateway: InferenceGateway,
    agent_identity: RoomIdentity,
    agent_room_connected: asyncio.Event,
) -> MyAgent:
    return MyAgent(inference_gateway.url("/v1/tts"), agent_identity, agent_room_connected)


@pytest.mark.asyncio
async def test_the_greeting_is_billed_to_the_agent(
    agent: MyAgent, inference_gateway: InferenceGateway, agent_room_connected: asyncio.Event
) -> None:
    inference_gateway.engine = ScriptedEngine(audio=GREETING)
    greeting = asyncio.create_task(agent.greet())
    await inference_gateway.wait_until(lambda: inference_gateway.accepted == 1)  # It has dialled.
    agent_room_connected.set()  # Now the room connects.
    assert await greeting == GREETING
    inference_gateway.assert_attributed(AttributionLevel.AGENT)


@pytest.mark.asyncio
async def test_the_greeting_is_said_even_if_the_room_never_connects(
    agent: MyAgent, inference_gateway: InferenceGateway
) -> None:
    assert await agent.greet()
    assert inference_gateway.handshakes[-1].level is AttributionLevel.ROOM


@pytest.mark.asyncio
async def test_a_spent_quota_is_told(
    agent: MyAgent, inference_gateway: InferenceGateway, agent_room_connected: asyncio.Event
) -> None:
    agent_room_connected.set()
    inference_gateway.inject(Reject(429))
    with pytest.raises(HandshakeRejected) as rejected:
        await agent.greet()
    assert rejected.value.status == 429
