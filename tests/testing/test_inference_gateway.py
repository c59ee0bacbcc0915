from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiohttp
import pytest
from blockbuster import BlockBuster

from agent_conn import (
    AgentIdentity,
    AttributionLevel,
    ConfigurationError,
    ConnectionState,
    HandshakeRejected,
    InferenceConnection,
    StateError,
    testing,
)
from agent_conn.gateway import (
    Gateway,
    IgnoreClose,
    Reject,
    Reset,
    ScriptedEngine,
    SpokenAudio,
    StallAtAccept,
)
from agent_conn.testing import InferenceGateway, RoomIdentity

JOB = AgentIdentity(job_id="AJ_1")
AGENT = AgentIdentity(job_id="AJ_1", room_id="RM_1", agent_id="PA_1")
SAMPLE_RATE = 8000


@pytest.fixture
async def client(loop_reports: list[dict[str, Any]]) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def echo(
    client: aiohttp.ClientSession, gateway: InferenceGateway, identity: AgentIdentity = AGENT
) -> str:
    async with InferenceConnection(client, gateway.url("/v1/echo"), identity=identity) as ws:
        await ws.send_str("hello")
        return await ws.receive_str()


async def speak(client: aiohttp.ClientSession, gateway: InferenceGateway) -> dict[str, Any]:
    async with InferenceConnection(client, gateway.url("/v1/tts")) as ws:
        await ws.send_json({"type": "session.create", "sample_rate": str(SAMPLE_RATE)})
        await ws.send_json({"type": "input_transcript", "transcript": "hi"})
        await ws.send_json({"type": "session.flush"})
        while (message := await ws.receive_json())["type"] != "output_audio":
            pass
    return dict(message)


async def test_a_handshake_is_settled_once_the_client_has_its_connection(
    client: aiohttp.ClientSession, inference_gateway: InferenceGateway
) -> None:
    async with InferenceConnection(client, inference_gateway.url("/v1/echo"), identity=AGENT):
        [handshake] = inference_gateway.handshakes
        assert (handshake.status, handshake.identity) == (101, AGENT)
        [connection] = inference_gateway.connections
        assert connection.level is AttributionLevel.AGENT
    await inference_gateway.wait_idle()
    assert inference_gateway.connections == []


async def test_what_a_caller_used_is_told(
    client: aiohttp.ClientSession, inference_gateway: InferenceGateway
) -> None:
    await speak(client, inference_gateway)
    await inference_gateway.wait_idle()
    (used,) = inference_gateway.usage
    assert used.characters == 2
    assert used.audio_out > 0


def test_a_plain_test_runs_its_own_loop(inference_gateway: InferenceGateway) -> None:
    async def agent() -> str:
        async with aiohttp.ClientSession() as client:
            return await echo(client, inference_gateway)

    assert asyncio.run(agent()) == "hello"
    inference_gateway.assert_attributed()
    asyncio.run(inference_gateway.wait_idle())


async def test_the_script_can_be_changed_between_sessions(
    client: aiohttp.ClientSession, inference_gateway: InferenceGateway
) -> None:
    first = await speak(client, inference_gateway)
    inference_gateway.engine = ScriptedEngine(audio=b"\x01\x00\x02\x00")
    second = await speak(client, inference_gateway)
    assert len(first["audio"]) > len(second["audio"])
    assert second["audio"] == "AQACAA=="


async def test_coming_connections_meet_the_injected_fault_and_then_no_more(
    client: aiohttp.ClientSession, inference_gateway: InferenceGateway
) -> None:
    inference_gateway.inject(Reject(429))
    with pytest.raises(HandshakeRejected) as rejected:
        await echo(client, inference_gateway)
    assert rejected.value.status == 429
    assert await echo(client, inference_gateway) == "hello"
    assert [each.status for each in inference_gateway.handshakes] == [429, 101]


async def test_a_fault_without_end_is_withdrawn(
    client: aiohttp.ClientSession, inference_gateway: InferenceGateway
) -> None:
    inference_gateway.inject(Reject(503), times=None)
    inference_gateway.inject(StallAtAccept())
    inference_gateway.withdraw_faults()
    assert await echo(client, inference_gateway) == "hello"


async def test_an_open_connection_is_lost_on_demand(
    client: aiohttp.ClientSession, inference_gateway: InferenceGateway
) -> None:
    connection = InferenceConnection(client, inference_gateway.url("/v1/echo"))
    async with connection as ws:
        assert inference_gateway.inject_now(Reset()) == 1
        await ws.receive()
    assert connection.loss is not None
    assert inference_gateway.inject_now(Reset()) == 0


@pytest.mark.parametrize(
    ("fault", "times", "named"), [(object(), 1, "fault"), (Reset(), 0, "times")]
)
def test_a_wrong_injection_is_refused(
    inference_gateway: InferenceGateway, fault: Any, times: int, named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        inference_gateway.inject(fault, times)


async def test_what_is_waited_for_may_ask_the_gateway_itself(
    client: aiohttp.ClientSession, inference_gateway: InferenceGateway
) -> None:
    waiting = asyncio.create_task(
        inference_gateway.wait_until(lambda: len(inference_gateway.handshakes) == 1)
    )
    await echo(client, inference_gateway)
    await waiting
    with pytest.raises(TimeoutError, match="still false"):
        await inference_gateway.wait_until(lambda: False, timeout=0.01)


# What an assertion tells.


async def test_every_request_must_be_attributed_as_asserted(
    client: aiohttp.ClientSession, inference_gateway: InferenceGateway
) -> None:
    await echo(client, inference_gateway, AGENT)
    await echo(client, inference_gateway, JOB)
    inference_gateway.assert_attributed(AttributionLevel.JOB)
    with pytest.raises(AssertionError) as failed:
        inference_gateway.assert_attributed(AttributionLevel.ROOM, path="/v1/echo")
    assert str(failed.value) == (
        "not every request to /v1/echo was attributed ROOM or closer; seen:\n"
        "  /v1/echo AGENT (job AJ_1, room RM_1, agent PA_1), status 101\n"
        "  /v1/echo JOB (job AJ_1), status 101"
    )


async def test_a_path_that_nobody_asked_for_is_not_attributed(
    client: aiohttp.ClientSession, inference_gateway: InferenceGateway
) -> None:
    await echo(client, inference_gateway, AGENT)
    inference_gateway.assert_attributed(path="/v1/echo")
    with pytest.raises(AssertionError, match=r"^no request came to /v1/tts; seen:\n  /v1/echo AG"):
        inference_gateway.assert_attributed(path="/v1/tts")


def test_without_any_request_nothing_is_attributed(inference_gateway: InferenceGateway) -> None:
    with pytest.raises(AssertionError, match=r"^no request came; seen: none$"):
        inference_gateway.assert_attributed(AttributionLevel.NONE)


# Its start and its end.


def test_it_is_over_at_the_end_and_can_still_be_asked() -> None:
    with InferenceGateway(Gateway(token="t")) as gateway:
        threads = {each.name for each in threading.enumerate()}
        assert "inference-gateway" in threads
    assert "inference-gateway" not in {each.name for each in threading.enumerate()}
    assert gateway.handshakes == []
    with pytest.raises(StateError, match="does not run"):
        asyncio.run(gateway.wait_idle())
    with pytest.raises(StateError, match="starts once"), gateway:
        pass


async def test_a_connection_that_will_not_close_is_ended_with_the_gateway(
    client: aiohttp.ClientSession,
) -> None:
    with InferenceGateway() as gateway:
        gateway.inject(IgnoreClose())
        connection = InferenceConnection(client, gateway.url("/v1/echo"))
        ws = await connection
    while (await ws.receive()).type is aiohttp.WSMsgType.TEXT:
        pass
    await connection.aclose()


def test_it_must_be_entered_first() -> None:
    with pytest.raises(StateError, match="does not run"):
        InferenceGateway().inject(Reset())


def test_what_hinders_its_start_is_raised(inference_gateway: InferenceGateway) -> None:
    taken = Gateway(port=int(inference_gateway.base_url.split(":")[2].split("/")[0]))
    with pytest.raises(OSError, match="in use"), InferenceGateway(taken):
        pass


@pytest.mark.parametrize("stop_timeout", [0, -1, float("nan")])
def test_a_stop_without_a_bound_is_refused(stop_timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="stop_timeout"):
        InferenceGateway(stop_timeout=stop_timeout)


async def test_an_engine_that_blocks_is_told_with_its_place(
    client: aiohttp.ClientSession,
    no_blocking_calls: BlockBuster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_blocking_calls.deactivate()
    blocked, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    class Blocking(ScriptedEngine):
        async def synthesize(self, *arguments: Any, **options: Any) -> AsyncGenerator[SpokenAudio]:
            loop.call_soon_threadsafe(blocked.set)
            release.wait()
            yield SpokenAudio(b"")

    async def stop_while_it_speaks() -> None:
        with InferenceGateway(Gateway(Blocking()), stop_timeout=0.05) as gateway:
            speaking.append(asyncio.create_task(speak(client, gateway)))
            await blocked.wait()
            monkeypatch.setattr(testing, "ANSWER_SECONDS", 0.05)
            with pytest.raises(TimeoutError, match=r"does not answer(?s:.*)release\.wait"):
                gateway.withdraw_faults()
            with pytest.raises(TimeoutError, match=r"does not answer(?s:.*)release\.wait"):
                await gateway.wait_idle(timeout=0)

    speaking: list[asyncio.Task[dict[str, Any]]] = []
    with pytest.raises(TimeoutError, match=r"did not stop in 0\.05 s(?s:.*)release\.wait"):
        await stop_while_it_speaks()
    release.set()
    await asyncio.gather(*speaking, return_exceptions=True)
    [thread] = (each for each in threading.enumerate() if each.name == "inference-gateway")
    await asyncio.to_thread(thread.join)


# The room.


def test_the_agents_id_is_known_once_the_room_is_connected(
    agent_room_connected: asyncio.Event, agent_identity: RoomIdentity
) -> None:
    assert agent_identity() == AgentIdentity(job_id="AJ_test", room_id="RM_test")
    with pytest.raises(Exception, match="before connecting"):
        agent_identity.read_agent_id()
    agent_room_connected.set()
    assert agent_identity().agent_id == agent_identity.read_agent_id() == "PA_test"
    agent_identity.room_id = None
    assert agent_identity() == AgentIdentity(job_id="AJ_test", agent_id="PA_test")


@pytest.mark.parametrize(
    ("connected", "level"), [(True, AttributionLevel.AGENT), (False, AttributionLevel.ROOM)]
)
async def test_a_connection_waits_for_the_room_that_the_test_connects(
    client: aiohttp.ClientSession,
    inference_gateway: InferenceGateway,
    agent_room_connected: asyncio.Event,
    agent_identity: RoomIdentity,
    *,
    connected: bool,
    level: AttributionLevel,
) -> None:
    connection = InferenceConnection(
        client,
        inference_gateway.url("/v1/echo"),
        identity=agent_identity,
        room_connected=agent_room_connected,
        connect_wait=30 if connected else 0.01,
    )
    opening = asyncio.ensure_future(connection)
    if connected:
        await inference_gateway.wait_until(lambda: inference_gateway.accepted == 1)
        assert connection.state is ConnectionState.WAITING
        assert inference_gateway.handshakes == []
        agent_room_connected.set()
    await opening
    assert [each.level for each in inference_gateway.handshakes] == [level]
    await connection.aclose()
