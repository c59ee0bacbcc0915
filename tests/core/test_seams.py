"""What a dial leans on in aiohttp, each by its name: it is there, or the first dial says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import tracing
from aiohttp.connector import Connection
from helpers.support import Line, Room

from agent_conn import DialFailed
from agent_conn._dial.seams import missing_seams
from agent_conn._dial.session_view import SessionView
from agent_conn._dial.websocket import Arrivals, InferenceWebSocket

pytestmark = pytest.mark.quick

ATTRIBUTES = [
    (aiohttp.TCPConnector, "clear_dns_cache"),
    (aiohttp.ClientRequest, "session"),
    (aiohttp.ClientResponse, "connection"),
    (Connection, "transport"),
    (Connection, "protocol"),
    (Connection, "release"),
    (tracing.Trace, "send_connection_queued_start"),
    (tracing.Trace, "send_connection_queued_end"),
    (tracing.Trace, "send_connection_create_start"),
    (tracing.Trace, "send_connection_create_end"),
]


@pytest.fixture(autouse=True)
def looked_at_anew() -> Iterator[None]:
    missing_seams.cache_clear()
    yield
    missing_seams.cache_clear()


async def refused(line: Line, seam: str, **options: Any) -> None:
    """Dial, and be told that this aiohttp lacks ``seam``, which no redial mends."""
    with pytest.raises(DialFailed) as caught:
        await line.dial(**options)
    assert str(caught.value).startswith(
        f"aiohttp {aiohttp.__version__} lacks what agent_conn dials by: {seam}. "
    )
    assert not caught.value.retryable
    await line.gateway.wait_idle()


async def test_this_aiohttp_lacks_nothing() -> None:
    assert missing_seams() == ()


@pytest.mark.parametrize(
    ("owner", "name"), ATTRIBUTES, ids=lambda part: getattr(part, "__name__", part)
)
async def test_an_attribute_that_is_gone_is_told_before_anything_is_dialled(
    line: Line, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(owner, name)
        await refused(line, f"{owner.__name__}.{name}")
    assert line.gateway.accepted == 0
    missing_seams.cache_clear()


async def test_a_request_without_middlewares_is_told(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def request(self: object, method: str, url: str, *, timeout: object = None) -> None:
        raise AssertionError("it was made")

    with monkeypatch.context() as patch:
        patch.setattr(aiohttp.ClientSession, "request", request)
        await refused(line, "ClientSession.request(middlewares=)")
    missing_seams.cache_clear()


async def test_a_connect_without_traces_is_told(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(self: object, req: object, timeout: object) -> None:
        raise AssertionError("it was called")

    with monkeypatch.context() as patch:
        patch.setattr(aiohttp.BaseConnector, "connect", connect)
        await refused(line, "BaseConnector.connect(req, traces, timeout)")
    missing_seams.cache_clear()


async def test_a_websocket_that_is_not_given_its_reader_first_is_told(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(self: object, writer: object, reader: object) -> None:
        raise AssertionError("it was made")

    with monkeypatch.context() as patch:
        patch.setattr(aiohttp.ClientWebSocketResponse, "__init__", init)
        await refused(line, "ClientWebSocketResponse(reader, ...)")
    missing_seams.cache_clear()


@pytest.mark.parametrize("waits", [False, True])
async def test_a_ws_connect_past_the_guard_is_told_and_its_websocket_is_closed(
    line: Line, monkeypatch: pytest.MonkeyPatch, room: Room, waits: bool
) -> None:
    def request(view: SessionView, method: str, url: str, **options: Any) -> Any:
        return view.caller.request(method, url, **options)

    options: dict[str, Any] = {"room_connected": room.connected} if waits else {}
    with monkeypatch.context() as patch:
        patch.setattr(SessionView, "request", request)
        await refused(line, "ClientSession.ws_connect by way of ClientSession.request", **options)
    assert len(line.gateway.handshakes) == 1


async def test_a_websocket_of_another_class_is_told_and_closed(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(SessionView, "_ws_response_class", aiohttp.ClientWebSocketResponse)
        await refused(line, "ClientSession._ws_response_class")
    assert len(line.gateway.handshakes) == 1


async def test_ws_connect_makes_a_websocket_of_the_class_that_the_session_names(line: Line) -> None:
    async with line.dial() as ws:
        assert isinstance(ws, InferenceWebSocket)


async def test_ws_connect_asks_by_request_and_the_session_by_the_middleware(line: Line) -> None:
    connection = line.dial()
    async with connection:
        assert connection.record.dials == 1


async def test_the_websocket_takes_each_message_from_the_reader_that_it_was_given(
    line: Line,
) -> None:
    async with line.dial() as ws:
        assert isinstance(ws, InferenceWebSocket)
        assert isinstance(ws.arrivals, Arrivals)
        before = asyncio.get_running_loop().time()
        await ws.send_str("hello")
        await ws.receive()
        assert ws.arrivals.last is not None
        assert ws.arrivals.last >= before
