from __future__ import annotations

import math
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest
from yarl import URL

from agent_conn import AgentIdentity, ConfigurationError, InferenceConnection
from agent_conn.gateway import Gateway

pytestmark = pytest.mark.quick

SECRET = "canary-secret-value"


async def _identify() -> AgentIdentity:
    return AgentIdentity()


@pytest.fixture
async def untouched(gateway: Gateway) -> AsyncIterator[Gateway]:
    yield gateway
    assert gateway.accepted == 0


async def refusal(
    session: aiohttp.ClientSession, url: str | URL, arguments: Mapping[str, Any]
) -> str:
    """The message of the error that ``arguments`` are refused with."""
    with pytest.raises(ConfigurationError) as refused:
        InferenceConnection(session, url, **arguments)
    assert SECRET not in str(refused.value)
    assert refused.value.__context__ is None
    return str(refused.value)


async def test_arguments_that_equal_good_ones_are_checked_all_the_same(
    session: aiohttp.ClientSession, untouched: Gateway
) -> None:
    InferenceConnection(session, untouched.url(), open_timeout=1.0)
    message = await refusal(session, untouched.url(), {"open_timeout": True})
    assert message.startswith("open_timeout ")


@pytest.mark.parametrize(
    "name", ["open_timeout", "close_timeout", "heartbeat", "network_timeout", "connect_wait"]
)
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, 10**400, "2", True, [1]])
async def test_a_time_that_is_no_time_is_refused_by_name(
    session: aiohttp.ClientSession, untouched: Gateway, name: str, value: object
) -> None:
    message = await refusal(session, untouched.url(), {name: value})
    assert message.startswith(f"{name} must be a finite number of seconds")


@pytest.mark.parametrize("name", ["open_timeout", "close_timeout", "heartbeat", "network_timeout"])
async def test_a_bound_of_zero_is_refused(session: aiohttp.ClientSession, name: str) -> None:
    assert "above 0" in await refusal(session, "ws://127.0.0.1/", {name: 0})


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"ftp://host/{SECRET}", "scheme"),
        (f"//host/?key={SECRET}", "scheme"),
        (f"/v1/stt?key={SECRET}", "scheme"),
        ("ws://", "host"),
        (f"wss://user:{SECRET}@host/", "user or password"),
        (f"wss://{SECRET}@host/", "user or password"),
        (f"wss://host:port/{SECRET}", "must be a valid URL"),
        (f"wss://host:99999/{SECRET}", "must be a valid URL"),
        (f"wss://[::1/{SECRET}", "must be a valid URL"),
        (f"wss://[]@/{SECRET}", "must be a valid URL"),
        (None, "must be a str or yarl.URL, got "),
        (b"wss://host/", "must be a str or yarl.URL, got "),
    ],
)
async def test_a_url_that_cannot_be_dialled_is_refused_without_repeating_it(
    session: aiohttp.ClientSession, url: Any, told: str
) -> None:
    message = await refusal(session, url, {})
    assert message.startswith("url ")
    assert told in message


@pytest.mark.parametrize("scheme", ["ws", "wss", "http", "https"])
async def test_the_four_schemes_of_a_websocket_are_taken(
    session: aiohttp.ClientSession, scheme: str
) -> None:
    connection = InferenceConnection(session, URL(f"{scheme}://host/v1?key={SECRET}"))
    assert repr(connection).startswith(f"<InferenceConnection {scheme}://host/v1 idle ")
    assert SECRET not in repr(connection)


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"X-Mine": 7}, "X-Mine"),
        ({"X-Mine": None}, "X-Mine"),
        ({"X-Mine": b"bytes"}, "X-Mine"),
        ({"X-Mine": f"{SECRET}\r\nX-Evil: 1"}, "X-Mine"),
        ({"X-Mine": f"{SECRET}\x00"}, "X-Mine"),
        ({"X-Mine": f"{SECRET}é"}, "X-Mine"),
        ({"X-Mine": SECRET * 1000}, "X-Mine"),
        ({"X Mine": "1"}, "must have HTTP field names"),
        ({"": "1"}, "must have HTTP field names"),
        ({7: "1"}, "must have HTTP field names"),
        ({"X-Mine": "1", "x-mine": "2"}, "twice"),
        ([("X-Mine", "1")], "must be a mapping"),
    ],
)
async def test_a_header_that_cannot_be_sent_is_refused_without_its_value(
    session: aiohttp.ClientSession, headers: Any, told: str
) -> None:
    message = await refusal(session, "wss://host/", {"headers": headers})
    assert message.startswith("headers ")
    assert told in message


@pytest.mark.parametrize(
    "name",
    [
        "X-LiveKit-Job-ID",
        "X-LiveKit-Room-ID",
        "X-LiveKit-Agent-ID",
        "X-LiveKit-Session-ID",
        "Authorization",
        "Host",
        "Connection",
        "Upgrade",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Anything",
        "Content-Length",
        "Transfer-Encoding",
    ],
)
@pytest.mark.parametrize("change", [str, str.lower, str.upper])
async def test_a_reserved_name_is_refused_in_any_case(
    session: aiohttp.ClientSession, name: str, change: Any
) -> None:
    arguments = {"headers": {change(name): SECRET}, "token": "t0ken"}
    assert change(name) in await refusal(session, "wss://host/", arguments)


async def test_authorization_is_the_callers_where_no_token_is_given(
    session: aiohttp.ClientSession,
) -> None:
    connection = InferenceConnection(session, "wss://host/", headers={"authorization": "Basic x"})
    assert connection.state == "idle"


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "é", 7, b"bytes", "x" * 9000])
async def test_a_token_that_cannot_be_sent_is_refused(
    session: aiohttp.ClientSession, token: object
) -> None:
    assert (await refusal(session, "wss://host/", {"token": token})).startswith("token ")


@pytest.mark.parametrize(
    "arguments", [{"token": SECRET}, {"headers": {"AUTHORIZATION": f"Bearer {SECRET}"}}]
)
@pytest.mark.parametrize("url", ["ws://gateway.example/", "http://10.0.0.1/", "ws://127.0.0.1.x/"])
async def test_a_token_over_plain_ws_to_another_host_is_refused(
    session: aiohttp.ClientSession, arguments: Mapping[str, Any], url: str
) -> None:
    assert (await refusal(session, url, arguments)).startswith("url must be encrypted")
    allowed = InferenceConnection(session, url, allow_insecure=True, **arguments)
    assert allowed.state == "idle"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "[::1]"])
async def test_a_token_over_plain_ws_to_loopback_is_allowed(
    session: aiohttp.ClientSession, host: str
) -> None:
    assert InferenceConnection(session, f"ws://{host}/", token=SECRET).state == "idle"


async def test_tls_without_verification_is_refused(session: aiohttp.ClientSession) -> None:
    assert (await refusal(session, "wss://host/", {"ssl": False})).startswith(
        "ssl must not be False"
    )
    allowed = InferenceConnection(session, "wss://host/", ssl=False, allow_insecure=True)
    assert allowed.state == "idle"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("identity", "PA_1"),
        ("identity", {"agent_id": "PA_1"}),
        ("room_connected", True),
        ("room_connected", lambda: True),
        ("room_connected", threading.Event()),
        ("identity", _identify),
        ("on_open", "hook"),
        ("observer", _identify),
        ("server_hostname", 7),
        ("server_hostname", ""),
        ("proxy_headers", {"X": "two\nlines"}),
        ("proxy", "socks5://127.0.0.1:1080"),
        ("observer", "hook"),
        ("trace_headers", {"traceparent": "00"}),
        ("require", 3),
        ("require", "AGENT"),
        ("header_names", {"job_id": "X"}),
        ("protocols", "chat"),
        ("protocols", ["two words"]),
        ("protocols", [7]),
        ("max_msg_size", 0),
        ("max_msg_size", -1),
        ("max_msg_size", 1.5),
        ("max_msg_size", True),
        ("ssl", "yes"),
        ("ssl", None),
        ("proxy", 7),
        ("proxy", "http://[::1"),
    ],
)
async def test_an_argument_of_the_wrong_kind_is_refused_by_name(
    session: aiohttp.ClientSession, name: str, value: object
) -> None:
    assert (await refusal(session, "wss://host/", {name: value})).startswith(f"{name} ")


@pytest.mark.parametrize("value", [None, "session", object(), aiohttp.ClientSession])
async def test_a_session_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^session must be of ClientSession, got "):
        InferenceConnection(value, "wss://host/")


async def test_a_token_with_its_scheme_is_told_to_leave_that_out(
    session: aiohttp.ClientSession,
) -> None:
    assert "leave that out" in await refusal(session, "wss://host/", {"token": f"Bearer {SECRET}"})


async def test_an_identity_may_be_a_value_or_a_callable(session: aiohttp.ClientSession) -> None:
    for identity in (AgentIdentity(), AgentIdentity):
        assert InferenceConnection(session, "wss://host/", identity=identity).state == "idle"
