"""What callables give for one dial: URL, token and headers, each asked once, none of it told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from helpers.support import Line, Room

from agent_conn import (
    ConnectTimeout,
    HandshakeRejected,
    InferenceConnection,
    Phase,
    StateChanged,
    TokenUnavailable,
)
from agent_conn.gateway import Reject

SECRET = "swordfish-4711"


def asked_by(calls: list[str], name: str, value: object, *, later: bool) -> Callable[[], Any]:
    """A callable, sync or async, that gives ``value`` and notes that it was asked."""

    async def give_later() -> object:
        calls.append(name)
        await asyncio.sleep(0)
        return value

    def give() -> object:
        calls.append(name)
        return value

    return give_later if later else give


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("waits", [False, True], ids=["cold", "after a wait"])
async def test_each_is_asked_once_a_dial(line: Line, room: Room, later: bool, waits: bool) -> None:
    calls: list[str] = []
    url = f"{line.gateway.url('/v1/echo')}?signature={SECRET}"
    seen: list[StateChanged] = []
    connection = InferenceConnection(
        line.session,
        asked_by(calls, "url", url, later=later),
        token=asked_by(calls, "token", "t0ken", later=later),
        headers=asked_by(calls, "headers", {"X-Api-Key": SECRET}, later=later),
        room_connected=room.connected if waits else None,
        connect_wait=0.02,
        observer=seen.append,
    )
    async with connection as ws:
        await ws.send_str("heard")
        assert await ws.receive_str() == "heard"
    assert calls == ["url", "token", "headers"]
    (handshake,) = line.gateway.handshakes
    assert "X-Api-Key" in handshake.headers
    assert SECRET not in f"{seen} {connection!r} {connection.record}"


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("url", "not a url"),
        ("url", f"ftp://host/{SECRET}"),
        ("url", None),
        ("token", f"two {SECRET}"),
        ("token", None),
        ("headers", {"X-LiveKit-Agent-ID": SECRET}),
        ("headers", {SECRET: "two\nlines"}),
        ("headers", None),
        ("headers", [SECRET]),
    ],
)
async def test_what_cannot_be_used_is_told_by_name_and_nothing_is_dialled(
    line: Line, name: str, given: object
) -> None:
    arguments: dict[str, Any] = {"url": line.gateway.url(), name: lambda: given}
    if given is None and name == "headers":
        async with InferenceConnection(line.session, **arguments):
            return
    with pytest.raises(TokenUnavailable, match=f"the {name} callable") as failed:
        await InferenceConnection(line.session, **arguments)
    assert SECRET not in str(failed.value)
    assert not failed.value.retryable
    assert line.gateway.accepted == 0


@pytest.mark.parametrize("name", ["url", "token", "headers"])
async def test_one_that_raises_is_told_without_its_text(
    line: Line, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    def fail() -> Any:
        raise LookupError(SECRET)

    arguments: dict[str, Any] = {"url": line.gateway.url(), name: fail}
    with caplog.at_level(logging.DEBUG), pytest.raises(TokenUnavailable) as failed:
        await InferenceConnection(line.session, **arguments)
    assert str(failed.value) == f"the {name} callable raised LookupError"
    assert failed.value.retryable
    assert SECRET not in caplog.text


async def test_one_that_hangs_is_bounded_by_open_timeout(line: Line) -> None:
    async def hang() -> str:
        await asyncio.Event().wait()
        return "never"

    for name in ("url", "token", "headers"):
        arguments: dict[str, Any] = {"url": line.gateway.url(), name: hang, "open_timeout": 0.02}
        with pytest.raises(ConnectTimeout) as failed:
            await InferenceConnection(line.session, **arguments)
        assert failed.value.phase is Phase.TOKEN


async def test_a_refusal_that_repeats_what_a_callable_gave_is_withheld(line: Line) -> None:
    line.gateway.inject(Reject(401, {}, f"no such key: {SECRET}".encode()))
    with pytest.raises(HandshakeRejected) as refused:
        await line.dial(headers=lambda: {"X-Api-Key": SECRET})
    assert (refused.value.body, SECRET in str(refused.value)) == ("", False)
