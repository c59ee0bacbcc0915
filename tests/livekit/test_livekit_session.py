"""``attributed_session`` under LiveKit's unmodified STT and TTS, with real speech."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, inference, stt
from livekit.agents.utils import ConnectionPool, http_context
from livekit_support import CREDENTIALS, NativeSide, fake_job, job

from agent_conn import AgentIdentity, AttributionLevel, ConfigurationError, WaitOutcome
from agent_conn.gateway import Gateway, LocalSpeech, Reject
from agent_conn.integrations.livekit import AttributedSession, attributed_session, room_connected

ROOM, AGENT = AttributionLevel.ROOM, AttributionLevel.AGENT


@pytest.fixture
async def native(loop_reports: list[Any]) -> AsyncIterator[NativeSide]:
    with NativeSide(hold=True).installed() as side:
        yield side


@asynccontextmanager
async def connecting_room(native: NativeSide) -> AsyncIterator[rtc.Room]:
    """A room that has asked to connect, and connects when ``native`` lets it."""
    room = rtc.Room()
    connecting = asyncio.create_task(room.connect("ws://unused", "one"))
    await asyncio.sleep(0)
    try:
        yield room
    finally:
        native.release()
        await connecting
        await room.disconnect()


@asynccontextmanager
async def speaker(session: aiohttp.ClientSession, gateway: Gateway) -> AsyncIterator[inference.TTS]:
    tts = inference.TTS(
        "a/b", http_session=session, base_url=gateway.base_url, sample_rate=16_000, **CREDENTIALS
    )
    try:
        yield tts
    finally:
        await tts.aclose()


async def say(tts: inference.TTS, text: str) -> list[rtc.AudioFrame]:
    stream = tts.stream()
    stream.push_text(text)
    stream.end_input()
    frames = [event.frame async for event in stream]
    await stream.aclose()
    return frames


async def hear(
    session: aiohttp.ClientSession, gateway: Gateway, frames: list[rtc.AudioFrame]
) -> str:
    heard = inference.STT(
        "a/b", http_session=session, base_url=gateway.base_url, sample_rate=16_000, **CREDENTIALS
    )
    stream = heard.stream()
    for frame in frames:
        stream.push_frame(frame)
    stream.end_input()
    final = stt.SpeechEventType.FINAL_TRANSCRIPT
    finals = [event.alternatives[0].text async for event in stream if event.type is final]
    await stream.aclose()
    await heard.aclose()
    return " ".join(finals)


def levels(gateway: Gateway) -> list[tuple[str, AttributionLevel]]:
    return [(handshake.path, handshake.level) for handshake in gateway.handshakes]


async def test_livekits_own_classes_speak_and_hear_and_the_pool_rises_to_the_agent(
    native: NativeSide,
) -> None:
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("espeakng_loader")
    async with LocalSpeech() as speech, Gateway(speech) as gateway:
        await speech.warm_up()
        async with connecting_room(native) as room:
            with job(room):
                session = attributed_session(connect_wait=0.02, origins=gateway.base_url)
                async with session, speaker(session, gateway) as tts:
                    first = await say(tts, "hello world")
                    assert levels(gateway) == [("/v1/tts", ROOM)]
                    native.release()
                    await gateway.wait_until(lambda: len(gateway.handshakes) == 2)
                    second = await say(tts, "hello world")
                    assert levels(gateway) == [("/v1/tts", ROOM), ("/v1/tts", AGENT)]
                    for spoken in (first, second):
                        assert await hear(session, gateway, spoken) == "hello world"
                    assert levels(gateway)[2:] == [("/v1/stt", AGENT)] * 2
                    outcomes = [record.wait_outcome for record in session.attribution.records]
        assert outcomes == [WaitOutcome.TIMED_OUT] + [WaitOutcome.ALREADY_CONNECTED] * 3
        await gateway.wait_idle(2.0)


async def test_within_the_wait_both_uses_of_the_pool_are_on_one_connection_at_agent(
    native: NativeSide, gateway: Gateway
) -> None:
    async with connecting_room(native) as room:
        with job(room) as ctx:
            session = attributed_session(connect_wait=5.0, origins=gateway.base_url)
            async with session, speaker(session, gateway) as tts:
                tts.prewarm()
                await gateway.wait_until(lambda: gateway.accepted == 1)
                native.release()
                assert await say(tts, "hello")
                assert await say(tts, "again")
    (handshake,) = gateway.handshakes
    assert handshake.identity == AgentIdentity("AJ_1", ctx.job.room.sid, "PA_one")
    await gateway.wait_idle(2.0)


async def test_a_connection_in_use_is_not_cut_when_the_pool_is_refreshed(
    native: NativeSide, gateway: Gateway
) -> None:
    async with connecting_room(native) as room:
        with job(room):
            session = attributed_session(connect_wait=0.02, origins=gateway.base_url)
            async with session, speaker(session, gateway) as tts:
                stream = tts.stream()
                stream.push_text("The first of these two sentences is spoken. The second ")
                await gateway.wait_until(
                    lambda: any(ws.messages_received > 1 for ws in gateway.connections)
                )
                native.release()
                await gateway.wait_until(lambda: len(gateway.connections) == 2)
                stream.push_text("comes later.")
                stream.end_input()
                assert [event async for event in stream]
                await stream.aclose()
                assert await say(tts, "again")
                await gateway.wait_until(lambda: len(gateway.connections) == 1)
    assert levels(gateway) == [("/v1/tts", ROOM), ("/v1/tts", AGENT)]
    await gateway.wait_idle(2.0)


async def test_a_pool_that_was_closed_meanwhile_dials_no_more(
    native: NativeSide, gateway: Gateway
) -> None:
    async with connecting_room(native) as room:
        with job(room):
            session = attributed_session(connect_wait=0.0, origins=gateway.base_url)
            async with session:
                async with speaker(session, gateway) as tts:
                    await say(tts, "hello")
                await gateway.wait_idle(2.0)
                native.release()
                await until_connected(room)
                await let_others_run()
    assert len(gateway.handshakes) == 1


async def test_a_pool_is_not_kept_alive_for_its_refresh(
    native: NativeSide, gateway: Gateway
) -> None:
    async with connecting_room(native) as room:
        with job(room):
            session = attributed_session(connect_wait=0.0, origins=gateway.base_url)
            async with session:
                pool = await filled_pool(session, gateway)
                gc.collect()
                assert pool() is None
                native.release()
                await until_connected(room)
                await let_others_run()
    assert len(gateway.handshakes) == 1
    await gateway.wait_idle(2.0)


async def test_a_room_whose_agent_stays_unknown_refreshes_nothing_for_ever(
    native: NativeSide, gateway: Gateway
) -> None:
    async with connecting_room(native) as room:
        with job(room) as ctx:
            session = attributed_session(ctx, connect_wait=0.0, origins=gateway.base_url)
            async with session, speaker(session, gateway) as tts:
                await say(tts, "hello")
                handle = native.handle("one")
                native.release()
                native.reconnect(handle, "agent-one", "")
                await until_connected(room)
                await let_others_run()
                await say(tts, "again")
    assert levels(gateway) == [("/v1/tts", ROOM)]


async def test_a_room_that_cannot_be_waited_for_is_logged_and_costs_nothing_else(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(rtc.Room):
        def on(self, event: Any, callback: Any = None) -> Any:
            if event == "connection_state_changed":
                raise RuntimeError("broken")
            return super().on(event, callback)

    with job(Broken()):
        session = attributed_session(connect_wait=0.5, origins=gateway.base_url)
        async with session, speaker(session, gateway) as tts:
            assert await say(tts, "hello")
            assert session.attribution.records[0].wait_outcome is WaitOutcome.FAILED
    assert {"room_wait_failed", "pool_refresh_failed"} <= {r.message for r in caplog.records}
    await gateway.wait_idle(2.0)


async def test_other_origins_see_no_ids_and_their_pools_are_left_alone(
    native: NativeSide, gateway: Gateway
) -> None:
    async with Gateway() as other, connecting_room(native) as room:
        with job(room):
            session = attributed_session(connect_wait=5.0, origins=gateway.base_url)
            async with session, speaker(session, other) as tts:
                assert await say(tts, "hello")
                native.release()
                await until_connected(room)
                await let_others_run()
                assert await say(tts, "hello")
                # What LiveKit itself sends.
                assert levels(other) == [("/v1/tts", ROOM)]
                assert session.attribution.records == ()
        await other.wait_idle(2.0)


async def test_a_rejection_reaches_livekits_own_retry(native: NativeSide, gateway: Gateway) -> None:
    gateway.inject(Reject(401), times=None)
    with job(rtc.Room()):
        async with attributed_session(connect_wait=0, origins=gateway.base_url) as session:
            with pytest.raises(APIError) as failed:
                await hear_nothing(session, gateway)
    assert failed.value.retryable is False
    assert len(gateway.handshakes) == 1


async def test_a_fake_job_is_not_waited_for_and_gets_no_agents_id(
    native: NativeSide, gateway: Gateway
) -> None:
    with fake_job(rtc.Room()):
        session = attributed_session(connect_wait=9.0, origins=gateway.base_url)
        async with session, speaker(session, gateway) as tts:
            async with asyncio.timeout(5):
                assert await say(tts, "hello")
    assert levels(gateway) == [("/v1/tts", ROOM)]
    await gateway.wait_idle(2.0)


async def test_outside_a_job_nothing_is_added_but_a_session_id(gateway: Gateway) -> None:
    async with attributed_session(origins=gateway.base_url) as session:
        async with speaker(session, gateway) as tts:
            assert await say(tts, "hello")
        assert isinstance(session.connector, aiohttp.TCPConnector)
    (handshake,) = gateway.handshakes
    assert handshake.identity == AgentIdentity()
    assert handshake.session_id


async def test_in_a_job_it_uses_livekits_connector_and_leaves_it_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LIVEKIT_INFERENCE_URL", raising=False)
    async with http_context.open() as livekits:
        with job(rtc.Room()) as ctx:
            monkeypatch.setattr(type(ctx.proc), "http_proxy", "http://proxy.example:3128")
            session = attributed_session()
            assert session.connector is livekits.connector
            await session.close()
            await session.close()
        assert not livekits.closed
        assert livekits.connector is not None
        assert not livekits.connector.closed
        assert session.closed


async def test_the_jobs_proxy_is_used(
    native: NativeSide, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with job(rtc.Room()) as ctx:
        proxy = gateway.base_url.removesuffix("/v1")
        monkeypatch.setattr(type(ctx.proc), "http_proxy", proxy)
        http_session = attributed_session(connect_wait=0, origins="http://gateway.example")
        async with http_session, http_session.get("http://gateway.example/v1/models"):
            pass
    # What a proxy is asked for.
    assert gateway.handshakes[0].headers["Host"] == "gateway.example"


async def test_the_job_closes_it(native: NativeSide) -> None:
    callbacks: list[Callable[[], Any]] = []
    with job(rtc.Room()) as ctx:
        ctx.add_shutdown_callback = callbacks.append  # type: ignore[method-assign, assignment]
        session = attributed_session()
    assert not session.closed
    await callbacks[0]()
    assert session.closed


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"connect_wait": 9.5}, "connect_wait of 9.5 s leaves less than 1 s"),
        ({"connect_wait": 10}, "connect_wait of 10 s"),
        ({"connect_wait": 3, "client_timeout": 3.5}, "connect_wait of 3 s .*client_timeout"),
        ({"connect_wait": None}, "connect_wait is not"),
        ({"connect_wait": -1}, "connect_wait is not"),
        ({"client_timeout": 0}, "client_timeout is not"),
        ({"origins": []}, "origins is empty"),
        ({"ctx": 7}, "ctx is no JobContext"),
    ],
)
async def test_a_wrong_argument_is_refused_by_name(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        attributed_session(**arguments)


async def filled_pool(
    session: AttributedSession, gateway: Gateway
) -> weakref.ref[ConnectionPool[Any]]:
    """A pool of a plugin's own, with one idle connection, to which nothing refers."""

    class Plugin:
        async def connect(self, timeout: float) -> aiohttp.ClientWebSocketResponse:
            ws: aiohttp.ClientWebSocketResponse
            ws = await session.ws_connect(gateway.url("/v1/echo"))
            return ws

    pool = ConnectionPool(connect_cb=Plugin().connect)
    async with pool.connection(timeout=5.0):
        pass
    return weakref.ref(pool)


async def hear_nothing(session: aiohttp.ClientSession, gateway: Gateway) -> None:
    heard = inference.STT(
        "a/b", http_session=session, base_url=gateway.base_url, sample_rate=16_000, **CREDENTIALS
    )
    stream = heard.stream(conn_options=APIConnectOptions(max_retry=2, retry_interval=0.01))
    try:
        await anext(stream)
    finally:
        await stream.aclose()
        await heard.aclose()


async def until_connected(room: rtc.Room) -> None:
    async with asyncio.timeout(5):
        await room_connected(room).wait()


async def let_others_run() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
