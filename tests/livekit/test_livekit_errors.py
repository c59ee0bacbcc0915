"""Our errors as LiveKit's, and what its own retries make of them."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

from livekit import rtc
from livekit.agents import (
    APIConnectionError,
    APIConnectOptions,
    APIError,
    APIStatusError,
    APITimeoutError,
    stt,
)
from livekit_plugin import GatewaySTT

from agent_conn import (
    AgentConnError,
    AttributionUnavailable,
    ConfigurationError,
    ConnectionLost,
    ConnectTimeout,
    DialFailed,
    HandshakeInvalid,
    HandshakeRejected,
    InferenceConnection,
    OpenHookFailed,
    StateError,
    TokenUnavailable,
)
from agent_conn.gateway import Fault, Gateway, Redirect, Reject, Reset
from agent_conn.integrations.livekit import to_api_error

FINAL = stt.SpeechEventType.FINAL_TRANSCRIPT
AUDIO = rtc.AudioFrame(bytes(3200), 16_000, 1, 1600)
QUOTA = b'{"type": "inference_quota_exceeded", "category": "MaxGatewayCredits"}'


def mapped_stt(session: aiohttp.ClientSession, gateway: Gateway) -> GatewaySTT:
    return GatewaySTT(session=session, base_url=gateway.base_url, token="token")


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (ConnectTimeout("late"), APITimeoutError, True),
        (DialFailed("reset"), APIConnectionError, True),
        (DialFailed("bad certificate", retryable=False), APIConnectionError, False),
        (HandshakeInvalid("redirects"), APIConnectionError, False),
        (TokenUnavailable("no token", retryable=True), APIConnectionError, True),
        (OpenHookFailed("hook"), APIConnectionError, False),
        (AttributionUnavailable("none", retryable=True), APIConnectionError, True),
        (ConnectionLost("lost", code=1006), APIConnectionError, True),
        (ConnectionLost("restarting", code=1012), APIConnectionError, True),
        (ConnectionLost("policy", code=1008), APIConnectionError, False),
        (StateError("twice"), APIConnectionError, False),
        (ConfigurationError("url"), APIConnectionError, False),
    ],
    ids=str,
)
def test_each_error_has_the_class_and_the_retry_that_livekit_acts_on(
    error: AgentConnError, kind: type[APIError], retryable: bool
) -> None:
    mapped = to_api_error(error)
    assert type(mapped) is kind
    assert mapped.retryable is retryable
    assert mapped.message == str(error)


@pytest.mark.parametrize("wrong", [None, "text", ValueError("other")])
def test_what_is_no_error_of_ours_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="exc must be an"):
        to_api_error(wrong)


@pytest.mark.parametrize(
    ("fault", "status", "retryable", "body"),
    [
        (Reject(401, body=b"who?"), 401, False, "who?"),
        (
            Reject(429, body=QUOTA),
            429,
            False,
            {"type": "inference_quota_exceeded", "category": "MaxGatewayCredits"},
        ),
        (Reject(429), 429, True, None),
        (Reject(503), 503, True, None),
    ],
    ids=["401", "quota", "429", "503"],
)
async def test_a_rejection_keeps_its_status_and_body(
    session: aiohttp.ClientSession,
    gateway: Gateway,
    fault: Reject,
    status: int,
    retryable: bool,
    body: object,
) -> None:
    gateway.inject(fault)
    with pytest.raises(HandshakeRejected) as rejected:
        await InferenceConnection(session, gateway.url())
    mapped = to_api_error(rejected.value)
    assert isinstance(mapped, APIStatusError)
    assert (mapped.status_code, mapped.retryable) == (status, retryable)
    assert mapped.request_id is not None
    assert mapped.request_id.startswith("request_")
    assert mapped.body == body


@pytest.mark.parametrize(
    ("fault", "dials"),
    [
        (Reset("handshake"), 3),
        (Reject(503), 3),
        (Reject(401), 1),
        (Reject(429, body=QUOTA), 1),
        (Redirect("http://127.0.0.1:1/"), 1),
    ],
    ids=["reset", "503", "401", "quota", "redirect"],
)
async def test_a_recognize_stream_retries_what_may_pass_and_nothing_else(
    session: aiohttp.ClientSession, gateway: Gateway, fault: Fault, dials: int
) -> None:
    gateway.inject(fault, times=None)
    recognizer = mapped_stt(session, gateway)
    options = APIConnectOptions(max_retry=2, retry_interval=0.01)
    stream = recognizer.stream(conn_options=options)
    with pytest.raises(APIError):
        await anext(stream)
    await stream.aclose()
    assert len(gateway.handshakes) == dials


async def test_a_recognize_stream_survives_one_reset_handshake(
    session: aiohttp.ClientSession, gateway: Gateway
) -> None:
    gateway.inject(Reset("handshake"))
    options = APIConnectOptions(max_retry=1, retry_interval=0.01)
    stream = mapped_stt(session, gateway).stream(conn_options=options)
    stream.push_frame(AUDIO)
    stream.end_input()
    finals = [event async for event in stream if event.type is FINAL]
    assert [final.alternatives[0].text for final in finals] == ["hello world"]
    await stream.aclose()
    assert len(gateway.handshakes) == 2


async def test_a_fallback_adapter_goes_on_to_the_next(
    session: aiohttp.ClientSession, gateway: Gateway
) -> None:
    async with Gateway() as other:
        gateway.inject(Reject(401), times=None)
        first, second = mapped_stt(session, gateway), mapped_stt(session, other)
        adapter = stt.FallbackAdapter([first, second], max_retry_per_stt=2)
        stream = adapter.stream()
        await other.wait_until(lambda: bool(other.connections))
        stream.push_frame(AUDIO)
        stream.end_input()
        async with asyncio.timeout(10):
            finals = [event async for event in stream if event.type is FINAL]
        assert [final.alternatives[0].text for final in finals] == ["hello world"]
        await stream.aclose()
        await adapter.aclose()
