"""Headers and rejections, with aioresponses in the place of the gateway.

aioresponses cannot play a websocket, so every handshake here is rejected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partialmethod
from inspect import signature
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aioresponses import aioresponses
from helpers.support import Room
from yarl import URL

from agent_conn import (
    AgentConnError,
    AgentIdentity,
    AttributionLevel,
    DialFailed,
    HandshakeRejected,
    HeaderNames,
    InferenceConnection,
)

GATEWAY = URL("wss://gateway.example/v1/stt?model=auto")
AGENT = AgentIdentity(job_id="AJ_1", room_id="RM_1", agent_id="PA_1")


class MockedResponse(aiohttp.ClientResponse):
    """aiohttp 3.14 asks for a stream_writer, which aioresponses 0.7.9 does not give."""

    if "stream_writer" in signature(aiohttp.ClientResponse).parameters:
        __init__ = partialmethod(aiohttp.ClientResponse.__init__, stream_writer=Mock())


@pytest.fixture
def mocked() -> Iterator[aioresponses]:
    with aioresponses() as mock:
        yield mock


async def rejection(
    mocked: aioresponses, connection: InferenceConnection, **answer: Any
) -> HandshakeRejected:
    mocked.get(GATEWAY, response_class=MockedResponse, **answer)
    with pytest.raises(HandshakeRejected) as rejected:
        await connection
    return rejected.value


def sent_headers(mocked: aioresponses) -> Mapping[str, str]:
    (call,) = mocked.requests["GET", GATEWAY]
    headers: Mapping[str, str] = call.kwargs["headers"]
    return headers


async def test_every_known_id_goes_out_with_the_token(
    session: aiohttp.ClientSession, mocked: aioresponses
) -> None:
    connection = InferenceConnection(
        session, GATEWAY, identity=AGENT, token="t0ken", headers={"X-Mine": "1"}
    )
    await rejection(mocked, connection, status=503)
    headers = sent_headers(mocked)
    assert headers["X-LiveKit-Job-ID"] == "AJ_1"
    assert headers["X-LiveKit-Room-ID"] == "RM_1"
    assert headers["X-LiveKit-Agent-ID"] == "PA_1"
    assert headers["X-LiveKit-Session-ID"] == connection.record.session_id
    assert headers["Authorization"] == "Bearer t0ken"
    assert headers["X-Mine"] == "1"


async def test_an_unconnected_room_leaves_out_the_agent_alone(
    session: aiohttp.ClientSession, mocked: aioresponses, room: Room
) -> None:
    connection = InferenceConnection(
        session,
        GATEWAY,
        identity=room.identity,
        room_connected=room.connected,
        connect_wait=0,
    )
    await rejection(mocked, connection, status=503)
    headers = sent_headers(mocked)
    assert headers["X-LiveKit-Room-ID"] == "RM_1"
    assert "X-LiveKit-Agent-ID" not in headers
    assert "Authorization" not in headers
    assert connection.attribution is AttributionLevel.ROOM


async def test_the_ids_go_out_under_the_names_of_another_gateway(
    session: aiohttp.ClientSession, mocked: aioresponses
) -> None:
    connection = InferenceConnection(
        session, GATEWAY, identity=AGENT, header_names=HeaderNames(agent_id="X-Acme-Agent")
    )
    await rejection(mocked, connection, status=503)
    assert sent_headers(mocked)["X-Acme-Agent"] == "PA_1"
    assert "X-LiveKit-Agent-ID" not in sent_headers(mocked)


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(400, False), (401, False), (403, False), (404, False), (408, True), (429, True)]
    + [(status, True) for status in (500, 502, 503, 504)],
)
async def test_a_rejection_has_its_status_and_whether_to_try_again(
    session: aiohttp.ClientSession, mocked: aioresponses, status: int, retryable: bool
) -> None:
    rejected = await rejection(mocked, InferenceConnection(session, GATEWAY), status=status)
    assert (rejected.status, rejected.retryable) == (status, retryable)
    assert str(status) in str(rejected)
    assert (rejected.__cause__, rejected.__context__) == (None, None)


async def test_a_429_has_what_its_headers_say_of_the_wait_and_the_quota(
    session: aiohttp.ClientSession, mocked: aioresponses
) -> None:
    headers = {
        "Retry-After": "7",
        "X-LiveKit-Inference-RPM-Limit": "60",
        "X-LiveKit-Inference-RPM-Used": "61",
    }
    rejected = await rejection(
        mocked, InferenceConnection(session, GATEWAY), status=429, headers=headers
    )
    assert rejected.retry_after == 7.0
    assert rejected.quota is not None
    assert dict(rejected.quota.limits) == {"RPM-Limit": "60", "RPM-Used": "61"}


async def test_a_dial_that_fails_is_told_without_the_url(
    session: aiohttp.ClientSession, mocked: aioresponses
) -> None:
    mocked.get(GATEWAY, exception=aiohttp.ClientConnectionError(f"text with {GATEWAY}"))
    with pytest.raises(DialFailed) as failed:
        await InferenceConnection(session, GATEWAY)
    assert "model=auto" not in str(failed.value)
    assert (failed.value.__cause__, failed.value.__context__) == (None, None)


async def test_what_aiohttp_raises_unexpectedly_is_one_of_our_errors(
    session: aiohttp.ClientSession, mocked: aioresponses
) -> None:
    for error in (RuntimeError("empty answer"), ValueError("odd"), TypeError("odd"), OSError(113)):
        mocked.get(GATEWAY, exception=error)
        with pytest.raises(AgentConnError) as failed:
            await InferenceConnection(session, GATEWAY)
        assert type(failed.value) is DialFailed
