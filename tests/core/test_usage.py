"""What connections use: as the sender counts it, and as the gateway does."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

import aiohttp
import pytest
from helpers.usage import assert_equal_within_a_percent

from agent_conn import (
    AgentIdentity,
    AttributionLevel,
    ConfigurationError,
    InferenceConnection,
    Pump,
    RetryPolicy,
    Usage,
    UsageMeter,
    reconnect,
)
from agent_conn.gateway import DropAfter, Gateway, GoSilent, Inspector, ScriptedEngine

RATE = 16_000
PIECE = {"type": "input_audio", "audio": "AAAA" * 533 + "AA=="}
"""50 ms of silence."""
PIECES = 600
SENTENCES = [f"This is what was said to the caller of number {number}." for number in range(6)]
STT = {
    "type": "session.create",
    "settings": {"sample_rate": str(RATE), "encoding": "pcm_s16le", "extra": {}},
}
TTS = {"type": "session.create", "sample_rate": str(RATE), "encoding": "pcm_s16le", "extra": {}}


@pytest.fixture
async def gateway(loop_reports: list[dict[str, Any]]) -> AsyncIterator[Gateway]:
    # It hears another word in each piece, so that each is answered.
    engine = ScriptedEngine([" ".join("a" * PIECES)], interim_bytes=RATE // 20 * 2)
    async with Gateway(engine, inspector=Inspector()) as gateway:
        yield gateway


class Agent:
    """One agent's two pumps, which go on after a drop where they were."""

    def __init__(self) -> None:
        self._pieces = PIECES
        self._sentences = list(SENTENCES)

    async def listen(self, connection: InferenceConnection) -> bool:
        await connection.ws.send_json(STT)
        await connection.ws.receive_json()
        while self._pieces:
            await connection.ws.send_json(PIECE)
            self._pieces -= 1
            await self._until(connection, "interim_transcript")
        return True

    async def speak(self, connection: InferenceConnection) -> bool:
        await connection.ws.send_json(TTS)
        while self._sentences:
            await connection.ws.send_json(
                {"type": "input_transcript", "transcript": self._sentences.pop()}
            )
            await connection.ws.send_json({"type": "session.flush"})
            await self._until(connection, "done")
        return True

    async def _until(self, connection: InferenceConnection, kind: str) -> None:
        async for message in connection:
            if json.loads(message.data)["type"] == kind:
                return


async def converse(dial: partial[InferenceConnection], pump: Pump[bool], number: int) -> None:
    """One agent's side of a conversation, whose room is there from the second connection on."""
    levels: list[AttributionLevel] = []

    def identity() -> AgentIdentity:
        return AgentIdentity(f"AJ_{number}", f"RM_{number}", f"PA_{number}" if levels else None)

    async def noting(connection: InferenceConnection) -> bool:
        levels.append(connection.attribution)
        return await pump(connection)

    joining = partial(dial, identity=identity)
    async with reconnect(joining, retry=RetryPolicy(initial=0.01)) as loop:
        assert await loop.run(noting)
    assert levels == [AttributionLevel.ROOM, AttributionLevel.AGENT]


async def test_both_ends_of_conversations_with_drops_count_the_same(
    session: aiohttp.ClientSession, gateway: Gateway
) -> None:
    meter, agents = UsageMeter(), [Agent(), Agent()]
    hear = partial(InferenceConnection, session, gateway.url("/v1/stt"), usage=meter)
    gateway.inject(DropAfter(300), times=2)
    await asyncio.gather(
        *(converse(hear, agent.listen, number) for number, agent in enumerate(agents))
    )
    speak = partial(InferenceConnection, session, gateway.url("/v1/tts"), usage=meter)
    gateway.inject(DropAfter(5))
    gateway.inject(DropAfter(5, reset=True))
    await asyncio.gather(
        *(converse(speak, agent.speak, number) for number, agent in enumerate(agents))
    )
    assert_equal_within_a_percent(meter.usage, gateway.usage)
    assert len(meter.usage) == 4
    heard = sum(used.audio_in for used in meter.usage)
    assert heard == pytest.approx(2 * PIECES * 0.05)
    assert sum(used.characters for used in meter.usage) == 2 * sum(map(len, SENTENCES))


async def test_the_inspector_tells_what_each_caller_used(
    session: aiohttp.ClientSession, gateway: Gateway
) -> None:
    caller = AgentIdentity("AJ_1", "RM_1", "PA_1")
    async with InferenceConnection(session, gateway.url("/v1/tts"), identity=caller) as ws:
        await ws.send_json(TTS)
        await ws.send_json({"type": "input_transcript", "transcript": "hello"})
        await ws.send_json({"type": "session.close"})
        await gateway.wait_until(lambda: not gateway.connections)
    async with session.get(gateway.inspector_url + "inspector/usage") as response:
        told = await response.json()
    assert told == [asdict(used) for used in gateway.usage]
    assert gateway.usage == (Usage("AJ_1", "RM_1", "PA_1", characters=5),)


async def test_what_a_silent_gateway_did_not_say_was_not_used(
    session: aiohttp.ClientSession, gateway: Gateway
) -> None:
    gateway.inject(GoSilent())
    async with InferenceConnection(session, gateway.url("/v1/stt")) as ws:
        await ws.send_json(STT)
        await ws.send_json(PIECE)
        (there,) = gateway.connections
        await gateway.wait_until(lambda: there.messages_received == 2)
    assert gateway.usage == ()


@pytest.mark.parametrize(
    "said",
    [
        "no JSON",
        "[" * 100_000,
        "[]",
        {"type": "input_audio", "audio": "AAAA"},
        {"type": "session.create", "settings": {"sample_rate": "0"}},
        {"type": "session.create", "settings": {"sample_rate": "x"}},
        {"type": "session.create", "settings": {"sample_rate": "16000", "encoding": "opus"}},
        {"type": "input_transcript", "transcript": 7},
        {"type": "output_audio", "audio": None},
    ],
)
async def test_what_cannot_be_counted_is_not_and_goes_its_way(
    session: aiohttp.ClientSession, gateway: Gateway, said: Any
) -> None:
    meter = UsageMeter()
    text = said if isinstance(said, str) else json.dumps(said)
    async with InferenceConnection(session, gateway.url("/v1/echo"), usage=meter) as ws:
        await ws.send_str(text)
        assert await ws.receive_str() == text
        await ws.send_json({"type": "input_audio", "audio": "AAAA"})
        await ws.receive_str()
    assert [each for each in meter.usage if each != Usage()] == []


def test_a_meter_serves_many_threads() -> None:
    meter, caller = UsageMeter(), AgentIdentity("AJ_1")

    def count() -> None:
        for _ in range(2_000):
            meter.add(caller, characters=1)

    with ThreadPoolExecutor(8) as threads:
        for _ in range(8):
            threads.submit(count)
    assert meter.usage == (Usage("AJ_1", characters=16_000),)


def test_what_the_oldest_callers_used_is_kept_under_no_ids() -> None:
    meter = UsageMeter()
    for number in range(10_005):
        meter.add(AgentIdentity(f"AJ_{number}"), characters=1, audio_in=0.5)
    usage = meter.usage
    assert len(usage) == 10_001
    assert usage[-1].job_id == "AJ_10004"
    assert Usage(characters=5, audio_in=2.5) in usage


def test_usage_is_plain_data() -> None:
    used = Usage("AJ_1", "RM_1", "PA_1", 1.5, 20, 2.5)
    assert pickle.loads(pickle.dumps(used)) == used
    assert Usage(**json.loads(json.dumps(asdict(used)))) == used


async def test_a_meter_that_is_none_is_refused(session: aiohttp.ClientSession) -> None:
    with pytest.raises(ConfigurationError, match="usage must be of UsageMeter, got"):
        InferenceConnection(session, "ws://127.0.0.1/", usage={})  # type: ignore[arg-type]
