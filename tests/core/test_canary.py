"""Credentials appear in nothing that a failure leaves behind."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

import aiohttp
import pytest
from helpers.canary import COOKIE, ECHO, QUERY, TOKEN, WORKER_TOKEN, assert_clean, told_by
from helpers.support import Line

from agent_conn import (
    AgentConnError,
    AgentIdentity,
    AttributionLevel,
    ConfigurationError,
    HandshakeRejected,
    InferenceConnection,
    StateChanged,
)
from agent_conn.gateway import (
    AcceptAndClose,
    BadAccept,
    DropHandshake,
    Fault,
    Garbage,
    GoSilent,
    IgnoreClose,
    NotWebSocket,
    Redirect,
    Reject,
    Reset,
    StallAtTLS,
    StallInHandshake,
    StopReading,
    UnaskedExtension,
    UnaskedSubprotocol,
)

FAULTS: list[Fault] = [
    StallAtTLS(),
    StallInHandshake(),
    Reset("accept"),
    Reset("tls"),
    Reset("handshake"),
    DropHandshake(),
    Garbage(ECHO + b"\r\n\r\n"),
    Reject(401, {"X-Echo": TOKEN, "Set-Cookie": f"session={COOKIE}"}, ECHO),
    Reject(429, {"X-LiveKit-Inference-RPM-Limit": "1"}, ECHO),
    Redirect(f"http://127.0.0.1:1/?key={QUERY}"),
    BadAccept(),
    UnaskedExtension(),
    UnaskedSubprotocol(),
    NotWebSocket(ECHO),
    AcceptAndClose(),
    GoSilent(),
    IgnoreClose(),
    StopReading(),
]


class Ear:
    """Hears everything that a connection tells anyone."""

    def __init__(self, line: Line, caplog: pytest.LogCaptureFixture) -> None:
        self.heard: list[str] = []
        self._line = line
        self._caplog = caplog
        line.session.cookie_jar.update_cookies({"session": COOKIE})

    def dial(self, **options: Any) -> InferenceConnection:
        defaults: dict[str, Any] = {
            "token": TOKEN,
            "headers": {"X-LiveKit-Worker-Token": WORKER_TOKEN},
            "open_timeout": 0.2,
            "close_timeout": 0.1,
            "observer": self.hear,
        }
        return self._line.dial(f"/v1/echo?key={QUERY}", **(defaults | options))

    def hear(self, change: StateChanged) -> None:
        self.heard.append(repr(change))

    async def follow(self, connection: InferenceConnection) -> BaseException | None:
        """Open and close ``connection``; the error that it ended with."""
        task = asyncio.create_task(_open(connection), name="pump")
        await asyncio.wait({task})
        self.heard.append(repr(task))
        await connection.aclose()
        self.heard += [repr(connection), repr(connection.record), repr(connection.loss)]
        return None if task.cancelled() else task.exception()

    def assert_clean(self, error: BaseException | None) -> None:
        if error is not None:
            assert_clean(told_by(error))
        assert_clean(self.heard)
        for record in self._caplog.records:
            assert_clean([record.getMessage(), repr(vars(record))])


@pytest.fixture
def ear(any_line: Line, caplog: pytest.LogCaptureFixture) -> Ear:
    caplog.set_level(logging.DEBUG)
    return Ear(any_line, caplog)


@pytest.mark.parametrize("waits", [False, True], ids=["cold", "after a wait"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_a_fault_tells_no_credential(
    any_line: Line, ear: Ear, fault: Fault, waits: bool
) -> None:
    injection = any_line.gateway.inject(fault, times=None)
    room = asyncio.Event() if waits else None
    error = await ear.follow(ear.dial(room_connected=room, connect_wait=0.02))
    assert isinstance(error, AgentConnError) or error is None
    ear.assert_clean(error)
    injection.withdraw()


async def test_a_body_that_repeats_what_was_sent_is_withheld(any_line: Line, ear: Ear) -> None:
    any_line.gateway.inject(Reject(403, {}, ECHO))
    error = await ear.follow(ear.dial())
    assert isinstance(error, HandshakeRejected)
    assert error.body == ""
    assert "withheld" in str(error)
    ear.assert_clean(error)


async def test_a_secret_cut_in_two_by_the_bound_of_the_body_is_not_kept(
    any_line: Line, ear: Ear
) -> None:
    any_line.gateway.inject(Reject(403, {}, b"x" * 2040 + TOKEN.encode()))
    error = await ear.follow(ear.dial())
    assert isinstance(error, HandshakeRejected)
    assert TOKEN[:8] not in error.body


async def test_a_token_callable_that_raises_its_secret_tells_none(ear: Ear) -> None:
    def mint() -> str:
        raise ValueError(TOKEN)

    ear.assert_clean(await ear.follow(ear.dial(token=mint)))


async def test_a_token_callable_that_gives_a_bad_token_does_not_tell_it(ear: Ear) -> None:
    error = await ear.follow(ear.dial(token=lambda: f"{TOKEN}\r\n"))
    assert error is not None
    ear.assert_clean(error)


async def test_an_attribution_below_the_required_tells_no_credential(ear: Ear) -> None:
    error = await ear.follow(ear.dial(require=AttributionLevel.AGENT))
    assert error is not None
    ear.assert_clean(error)


async def test_an_on_open_that_raises_tells_no_credential(ear: Ear) -> None:
    async def fail(ws: aiohttp.ClientWebSocketResponse) -> None:
        raise LookupError

    error = await ear.follow(ear.dial(on_open=fail))
    assert isinstance(error, AgentConnError)
    ear.assert_clean(error)


@pytest.mark.parametrize("turns", range(0, 60, 4))
async def test_a_cancellation_tells_no_credential(ear: Ear, turns: int) -> None:
    connection = ear.dial(identity=AgentIdentity("AJ_1"), open_timeout=5.0)
    cancelled: list[BaseException] = []

    async def pump() -> None:
        try:
            await connection
        except asyncio.CancelledError as error:
            cancelled.append(error)
            raise

    task = asyncio.create_task(pump())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await connection.aclose()
    ear.assert_clean(cancelled[0] if cancelled else None)
    assert_clean([repr(task)])


@pytest.mark.parametrize("waits", [False, True], ids=["cold", "after a wait"])
@pytest.mark.parametrize(
    "fault", [StallAtTLS(), StallInHandshake(), GoSilent()], ids=lambda fault: type(fault).__name__
)
async def test_a_timeout_of_the_callers_own_tells_no_credential(
    any_line: Line, ear: Ear, fault: Fault, waits: bool
) -> None:
    """Its traceback has the frames that the cancellation went through."""
    injection = any_line.gateway.inject(fault, times=None)

    async def stay(ws: aiohttp.ClientWebSocketResponse) -> None:
        await ws.receive()

    room = asyncio.Event() if waits else None
    connection = ear.dial(room_connected=room, connect_wait=0.01, open_timeout=5.0, on_open=stay)
    with pytest.raises(TimeoutError) as expired:
        async with asyncio.timeout(0.1):
            await connection
    ear.assert_clean(expired.value)
    frames = [
        frame.filename
        for link in (expired.value, expired.value.__cause__)
        for frame in traceback.extract_tb(link.__traceback__ if link else None)
    ]
    assert [name for name in frames if "aiohttp" in name] == []
    injection.withdraw()


@pytest.mark.parametrize(
    "wrong",
    [
        {"heartbeat": -1, "protocols": [TOKEN], "proxy_headers": {"X-Key": TOKEN}},
        {"token": f"{TOKEN} {TOKEN}"},
        {"headers": {"X-Mine": f"{WORKER_TOKEN}\n"}},
        {"headers": {"Authorization": TOKEN}},
        {"open_timeout": -1},
        {"connect_wait": float("nan")},
        {"proxy": f"http://[{TOKEN}"},
        {"require": 3},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_a_configuration_error_tells_no_credential(ear: Ear, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ear.dial(**wrong)
    ear.assert_clean(refused.value)


async def _open(connection: InferenceConnection) -> None:
    await connection
