"""What LiveKit's own clients find at the gateway beside speech and chat."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit import rtc
from livekit.agents import inference, llm
from livekit.agents.inference.interruption import (
    AdaptiveInterruptionDetector,
    InterruptionWSDetectedMessage,
    InterruptionWSErrorMessage,
    InterruptionWSInferenceDoneMessage,
    InterruptionWSMessage,
    InterruptionWSSessionClosedMessage,
    InterruptionWSSessionCloseMessage,
    InterruptionWSSessionCreatedMessage,
    InterruptionWSSessionCreateMessage,
    InterruptionWSSessionCreateSettings,
)
from livekit.protocol.agent_pb.agent_inference import (
    ClientMessage,
    InferenceStart,
    InferenceStop,
    InputAudio,
    ServerMessage,
    SessionClose,
    SessionCreate,
    SessionFlush,
)

from agent_conn.errors import ConfigurationError
from agent_conn.gateway import Gateway
from agent_conn.gateway.sessions.eot import parse_eot_message
from agent_conn.gateway.sessions.protocol import ProtocolError

pytestmark = pytest.mark.timeout(20)
KEY, SECRET = "key", "s" * 32
RATE = 16_000


@pytest.fixture
async def served(loop_reports: list[dict[str, Any]]) -> AsyncIterator[Gateway]:
    async with Gateway(api_key=KEY, api_secret=SECRET) as gateway:
        yield gateway


def access(gateway: Gateway, session: aiohttp.ClientSession) -> dict[str, Any]:
    return {
        "base_url": gateway.base_url,
        "api_key": KEY,
        "api_secret": SECRET,
        "http_session": session,
    }


def speech(seconds: float) -> rtc.AudioFrame:
    samples = int(RATE * seconds)
    return rtc.AudioFrame(b"\x10\x20" * samples, RATE, 1, samples)


async def test_livekits_turn_detector_is_told_that_the_turn_has_ended(
    served: Gateway, session: aiohttp.ClientSession
) -> None:
    detector = inference.TurnDetector(version="v1", local_fallback=False, **access(served, session))
    stream = detector.stream()
    try:
        await served.wait_until(lambda: len(served.connections) == 1)
        (connection,) = served.connections
        # The first answer brings the thresholds, without which the client gives up.
        await served.wait_until(lambda: connection.messages_sent == 1)
        stream.push_audio(speech(0.2))
        async with asyncio.timeout(5):
            event = await stream.predict()
        assert event.end_of_turn_probability == pytest.approx(0.9)
        assert event.backchannel_probability == 0.0
        assert event.detection_delay is not None
        assert abs(event.detection_delay) < 5
        assert await stream.unlikely_threshold(None) == 0.5
        assert not stream.is_fallback
        assert not stream.is_degraded
        stream.end_input()
        await served.wait_until(lambda: connection.close_code == 1000)
    finally:
        await stream.aclose()


async def test_livekits_interruption_detector_opens_and_ends_without_an_error(
    served: Gateway, session: aiohttp.ClientSession
) -> None:
    if asyncio.get_running_loop().get_task_factory() is not None:
        pytest.skip("LiveKit's detector makes its task before what an eager one needs at once")
    detector = AdaptiveInterruptionDetector(**access(served, session))
    errors: list[Any] = []
    detector.on("error", errors.append)
    stream = detector.stream()
    try:
        await served.wait_until(lambda: len(served.connections) == 1)
        (connection,) = served.connections
        await served.wait_until(lambda: connection.messages_sent == 1)
        stream.push_frame(speech(0.2))
        stream.end_input()
        await served.wait_until(lambda: connection.close_code == 1000)
        assert [event async for event in stream] == []
    finally:
        await stream.aclose()
    assert errors == []


async def send(ws: aiohttp.ClientWebSocketResponse, message: str | bytes) -> None:
    if isinstance(message, bytes):
        await ws.send_bytes(message)
    else:
        await ws.send_str(message)


async def bargein(gateway: Gateway, *messages: str | bytes, **settings: Any) -> list[Any]:
    """Send `session.create` and `messages`, then close; return what came, as LiveKit reads it."""
    create = InterruptionWSSessionCreateMessage(
        settings=InterruptionWSSessionCreateSettings(
            sample_rate=RATE, num_channels=1, min_frames=2, encoding="s16le", **settings
        )
    )
    close = InterruptionWSSessionCloseMessage().model_dump_json()
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(gateway.url("/v1/bargein")) as ws,
    ):
        for message in (create.model_dump_json(exclude_none=True), *messages, close):
            await send(ws, message)
        answers = [json.loads(message.data) async for message in ws]
        assert ws.close_code == 1000
    return [InterruptionWSMessage.validate_python(answer) for answer in answers]


def overlap(created_at: int, seconds: float = 0.2) -> bytes:
    return created_at.to_bytes(8, "little") + bytes(2 * int(RATE * seconds))


async def test_speech_over_the_agent_is_an_interruption(gateway: Gateway) -> None:
    created, detected, closed = await bargein(gateway, overlap(2**40 + 7))
    assert isinstance(created, InterruptionWSSessionCreatedMessage)
    assert created.default_threshold == 0.5
    assert isinstance(detected, InterruptionWSDetectedMessage)
    # One probability for each 25 ms, and the clock of the request as it came.
    assert (detected.created_at, detected.probabilities) == (2**40 + 7, [0.9] * 8)
    assert isinstance(closed, InterruptionWSSessionClosedMessage)


async def test_below_the_clients_threshold_it_is_none(gateway: Gateway) -> None:
    _, done, _ = await bargein(gateway, overlap(1), threshold=0.95)
    assert isinstance(done, InterruptionWSInferenceDoneMessage)
    assert done.probabilities == [0.9] * 8


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"short", "eight bytes"),
        (bytes(9), "whole samples"),
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ('{"type": "session.create", "settings": {"sample_rate": 16000}}', "exists"),
    ],
)
async def test_a_broken_message_about_interruptions_is_answered_by_an_error(
    gateway: Gateway, message: str | bytes, complaint: str
) -> None:
    _, error, _ = await bargein(gateway, message)
    assert isinstance(error, InterruptionWSErrorMessage)
    assert complaint in error.message
    assert error.code == 400


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (None, "settings"),
        ({"sample_rate": "fast"}, "sample_rate"),
        ({"sample_rate": True}, "sample_rate"),
        ({"sample_rate": 100}, "sample_rate"),
        ({"sample_rate": RATE, "threshold": "high"}, "threshold"),
    ],
)
async def test_wrong_settings_for_interruptions_are_named(
    gateway: Gateway, session: aiohttp.ClientSession, settings: Any, complaint: str
) -> None:
    async with session.ws_connect(gateway.url("/v1/bargein")) as ws:
        await ws.send_json({"type": "session.create", "settings": settings})
        assert complaint in (await ws.receive_json())["message"]
        await ws.send_bytes(overlap(1))
        assert "session.create must come first" in (await ws.receive_json())["message"]


async def end_of_turn(gateway: Gateway, *messages: bytes | str) -> list[ServerMessage]:
    """Send `messages` and then close; return what came, as LiveKit reads it."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(gateway.url("/v1/eot")) as ws,
    ):
        close = ClientMessage(session_close=SessionClose()).SerializeToString()
        for message in (*messages, close):
            await send(ws, message)
        answers = [ServerMessage.FromString(message.data) async for message in ws]
        assert ws.close_code == 1000
    return answers


def eot_message(seconds: int = 0, **content: Any) -> bytes:
    message = ClientMessage(**content)
    message.created_at.FromSeconds(seconds)
    return message.SerializeToString()


CREATE = eot_message(session_create=SessionCreate())


async def test_an_end_of_turn_session_answers_each_request_under_its_id() -> None:
    async with Gateway(end_of_turn=0.25) as gateway:
        created, started, first, _, second, stopped, closed = await end_of_turn(
            gateway,
            CREATE,
            eot_message(1_000, input_audio=InputAudio(audio=bytes(640), num_samples=320)),
            eot_message(2_000, inference_start=InferenceStart(request_id="turn_1")),
            eot_message(session_flush=SessionFlush()),
            eot_message(3_000, inference_start=InferenceStart(request_id="turn_2")),
            eot_message(inference_stop=InferenceStop(request_id="turn_2")),
        )
    assert created.session_created.default_thresholds == {"en": 0.5}
    assert created.session_created.default_backchannel_thresholds == {"en": 0.5}
    assert (started.WhichOneof("message"), started.request_id) == ("inference_started", "turn_1")
    assert [one.request_id for one in (first, second)] == ["turn_1", "turn_2"]
    assert first.eot_prediction.probability == 0.25
    assert first.client_created_at.ToSeconds() == 2_000
    stats = first.eot_prediction.inference_stats
    assert stats.latest_client_created_at.ToSeconds() == 1_000
    assert stopped.WhichOneof("message") == "inference_stopped"
    assert closed.WhichOneof("message") == "session_closed"


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("text", "binary"),
        (b"\xff", "number"),
        (b"\x0b", "wire type"),
        (b"\x12\x05x", "ends within"),
        (b"\x10\x01", "in the place of"),
        (CREATE, "exists"),
    ],
)
async def test_a_broken_message_about_a_turn_is_answered_by_an_error(
    gateway: Gateway, message: str | bytes, complaint: str
) -> None:
    created, error, closed = await end_of_turn(gateway, CREATE, message)
    assert created.HasField("session_created")
    assert complaint in error.error.message
    assert error.error.code == 400
    assert closed.HasField("session_closed")


@given(st.binary() | st.binary(min_size=1).map(lambda data: b"\x1a" + data))
def test_any_bytes_are_a_message_about_a_turn_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert len(parse_eot_message(data).payload) <= len(data)


async def test_a_turn_cannot_be_judged_before_its_session(gateway: Gateway) -> None:
    start = eot_message(inference_start=InferenceStart(request_id="early"))
    error, _ = await end_of_turn(gateway, start)
    assert "session_create must come first" in error.error.message


@pytest.mark.parametrize("wrong", [-0.1, 1.5, True, "0.5", float("nan")])
@pytest.mark.parametrize("name", ["end_of_turn", "interruption"])
def test_a_probability_is_from_0_to_1(name: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be .* got"):
        Gateway(**{name: wrong})


@pytest.mark.skipif(not hasattr(inference, "DecisionModel"), reason="this LiveKit has none")
async def test_livekits_decision_model_is_answered_by_the_first_possibility(
    served: Gateway, session: aiohttp.ClientSession
) -> None:
    model = inference.DecisionModel("a/b", **access(served, session))
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="A person, please.")
    response = await model.evaluate(
        input=context,
        decisions={
            "handoff": llm.Probability("The caller wants a person."),
            "topic": llm.Choice("What is it about?", {"bill": "Money.", "fault": "Repair."}),
            "mood": llm.Score("How is the caller?", ["calm", "cross"]),
        },
    )
    assert response.errors == {}
    assert [response.results[name].value for name in ("handoff", "topic", "mood")] == [1, "bill", 0]
    assert response.model == "a/b"
    assert response.request_id == served.handshakes[0].request_id


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("{", "JSON"),
        ({"state": "", "questions": {}}, "model"),
        ({"model": "m", "questions": {}}, "state"),
        ({"model": "m", "state": ""}, "questions"),
        ({"model": "m", "state": "", "questions": {"q": 1}}, "'q' must be an object"),
        ({"model": "m", "state": "", "questions": {"q": {"type": "choice"}}}, "criteria"),
    ],
)
async def test_a_wrong_decision_request_is_named(
    gateway: Gateway, session: aiohttp.ClientSession, body: Any, complaint: str
) -> None:
    data = body if isinstance(body, str) else json.dumps(body)
    async with session.post(f"{gateway.base_url}/decisions", data=data) as response:
        assert response.status == 400
        assert complaint in (await response.json())["error"]


async def test_the_models_are_listed_to_whoever_has_a_token(
    served: Gateway, session: aiohttp.ClientSession
) -> None:
    url = f"{served.base_url}/models"
    async with session.get(url) as response:
        assert response.status == 401
    model = inference.LLM("a/b", base_url=served.base_url, api_key=KEY, api_secret=SECRET)
    try:
        model.prewarm()
        await served.wait_until(lambda: len(served.handshakes) == 2)
        await served.wait_until(lambda: served.handshakes[1].status == 200)
    finally:
        await model.aclose()
    assert served.handshakes[1].path == "/v1/models"


@pytest.mark.parametrize(
    "path", ["/realtime", "/live/sessions", "/avatar/sessions", "/avatar/sessions/terminate"]
)
async def test_what_the_gateway_does_not_have_is_a_501_and_one_line_of_the_log(
    gateway: Gateway,
    session: aiohttp.ClientSession,
    path: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "agent_conn.gateway")
    caplog.clear()
    async with session.post(gateway.base_url + path, json={}) as response:
        assert response.status == 501
        assert "does not have" in (await response.json())["message"]
    (record,) = caplog.records
    assert (record.levelname, vars(record)["path"]) == ("WARNING", f"/v1{path}")


async def test_each_answer_names_its_request(
    gateway: Gateway, loop_reports: list[dict[str, Any]]
) -> None:
    named: list[str] = []

    async def note(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        named.append(response.headers["X-LiveKit-Request-Id"])
        return response

    async with aiohttp.ClientSession(middlewares=(note,)) as session:
        async with session.ws_connect(gateway.url("/v1/echo")):
            pass
        for path in ("/models", "/nowhere"):
            await session.get(gateway.base_url + path)
    assert len(set(named)) == 3
    assert named == [handshake.request_id for handshake in gateway.handshakes]
