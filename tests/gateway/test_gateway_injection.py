from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from agent_conn.errors import ConfigurationError
from agent_conn.gateway import (
    AcceptAndClose,
    BadAccept,
    CloseWith,
    ConcurrencyLimit,
    DropAfter,
    Fault,
    Gateway,
    GoSilent,
    IdleTimeout,
    IgnoreClose,
    NotWebSocket,
    Redirect,
    Reject,
    Reset,
    StallAtAccept,
    StallAtTLS,
    StopReading,
)
from agent_conn.gateway.faults.words import in_words

if TYPE_CHECKING:
    from gateway.conftest import Client

pytestmark = pytest.mark.timeout(20)

SHORT = 0.15


@pytest.mark.parametrize(
    ("fault", "close_code"),
    [(Reset("open"), 1006), (CloseWith(1012), 1012), (DropAfter(), 1006)],
)
async def test_an_open_connection_can_be_struck(
    either_client: Client, fault: Fault, close_code: int
) -> None:
    ws = await either_client.open()
    await ws.send_str("one")
    assert (await ws.receive(2)).data == "one"
    either_client.gateway.connections[0].inject(fault)
    await ws.receive(2)
    assert ws.close_code == close_code
    await either_client.gateway.wait_idle(2)


async def test_an_open_connection_can_go_silent_later(client: Client) -> None:
    ws = await client.open()
    client.gateway.connections[0].inject(GoSilent(after_messages=1))
    await ws.send_str("one")
    await ws.send_str("two")
    assert (await ws.receive(2)).data == "one"
    with pytest.raises(TimeoutError):
        await ws.receive(SHORT)


async def test_an_open_connection_can_be_read_no_more(client: Client) -> None:
    ws = await client.open()
    (connection,) = client.gateway.connections
    connection.inject(StopReading())
    with pytest.raises(TimeoutError):
        await client.flood(ws, 0.5)
    assert connection.messages_received <= 1
    await client.abort()
    await client.gateway.wait_idle(2)


@pytest.mark.parametrize(
    "fault",
    [Reject(), StallAtTLS(), StallAtAccept(), Reset("accept"), BadAccept(), NotWebSocket()],
)
async def test_an_open_connection_refuses_a_fault_of_the_handshake(
    client: Client, fault: Fault
) -> None:
    await client.open()
    with pytest.raises(ConfigurationError, match="fault"):
        client.gateway.connections[0].inject(fault)


async def test_faults_strike_in_turn_and_then_no_more(client: Client) -> None:
    rejection = client.gateway.inject(Reject(500), times=2)
    client.gateway.inject(Reject(503))
    statuses = []
    for _ in range(4):
        async with client.session.get(client.gateway.base_url + "/stt") as response:
            statuses.append(response.status)
    assert statuses == [500, 500, 503, 426]
    assert (rejection.struck, rejection.remaining) == (2, 0)


async def test_a_withdrawn_fault_strikes_no_more(client: Client) -> None:
    statuses = []
    with client.gateway.inject(Reject(500), times=None):
        for _ in range(2):
            async with client.session.get(client.gateway.base_url + "/stt") as response:
                statuses.append(response.status)
    client.gateway.inject(Reject(503))
    client.gateway.withdraw_faults()
    async with client.session.get(client.gateway.base_url + "/stt") as response:
        statuses.append(response.status)
    assert statuses == [500, 500, 426]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reset("later"),  # type: ignore[arg-type]
        lambda: Reject(42),
        lambda: Redirect("/", 200),
        lambda: IgnoreClose(0),
    ],
)
def test_a_fault_checks_its_fields(make: Callable[[], Fault]) -> None:
    with pytest.raises(ConfigurationError):
        make()


async def test_inject_checks_its_arguments(gateway: Gateway) -> None:
    with pytest.raises(ConfigurationError, match="times"):
        gateway.inject(Reject(), times=0)
    with pytest.raises(ConfigurationError, match="fault"):
        gateway.inject("Reject")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        (CloseWith, {"code": 65_536}, "code"),
        (CloseWith, {"code": 1000, "reason": "é" * 62}, "reason"),
        (CloseWith, {"code": 1000, "reason": "\ud800"}, "reason"),
        (CloseWith, {"code": 1000, "after_messages": -1}, "after_messages"),
        (Reject, {"headers": {"X": "a\r\nY: b"}}, "headers: X"),
        (Reject, {"headers": {"a b": "c"}}, "headers"),
        (Reject, {"body": "text"}, "body"),
        (Redirect, {"location": "/\n"}, "location"),
        (DropAfter, {"messages": 0.5}, "messages"),
        (IgnoreClose, {"interval": float("nan")}, "interval"),
    ],
)
def test_a_fault_that_could_not_strike_is_refused_when_it_is_made(
    kind: Callable[..., Fault], values: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{named} "):
        kind(**values)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Reset(), "reset"),
        (Reset("tls"), "reset in TLS"),
        (Reject(429), "reject with 429"),
        (CloseWith(1012), "close with 1012"),
        (AcceptAndClose(1013), "accept and close with 1013"),
        (CloseWith(1012, after_messages=2), "close with 1012 after 2 messages"),
        (DropAfter(1), "drop after 1 message"),
        (DropAfter(reset=True), "reset"),
        (StallAtTLS(), "stall at TLS"),
        (NotWebSocket(), "not websocket"),
        (IdleTimeout(2.5), "idle timeout of 2.5 s"),
        (ConcurrencyLimit(3), "concurrency limit of 3"),
    ],
    ids=repr,
)
def test_a_fault_is_told_in_words(fault: Fault, words: str) -> None:
    assert in_words(fault) == words
