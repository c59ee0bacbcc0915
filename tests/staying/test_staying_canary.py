"""Credentials appear in nothing that a loop leaves behind."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import aiohttp
import pytest
from helpers.canary import COOKIE, ECHO, QUERY, TOKEN, WORKER_TOKEN, assert_clean, told_by
from helpers.support import Line, Room

from agent_conn import (
    AgentConnError,
    ConfigurationError,
    InferenceConnection,
    RetriesExhausted,
    RetryPolicy,
    UpgradePolicy,
    reconnect,
)
from agent_conn.gateway import (
    AcceptAndClose,
    CloseWith,
    DropHandshake,
    Fault,
    Redirect,
    Reject,
    Reset,
    StallInHandshake,
)

FAST = RetryPolicy(attempts=3, initial=0.0)


def secret(line: Line, **options: Any) -> partial[InferenceConnection]:
    line.session.cookie_jar.update_cookies({"session": COOKIE})
    return partial(
        InferenceConnection,
        line.session,
        line.gateway.url(f"/v1/echo?key={QUERY}"),
        token=TOKEN,
        headers={"X-LiveKit-Worker-Token": WORKER_TOKEN},
        open_timeout=0.2,
        close_timeout=0.1,
        **options,
    )


@pytest.mark.parametrize(
    "fault",
    [
        Reject(401, {"X-Echo": TOKEN}, ECHO),
        Reject(503, {"X-Echo": TOKEN}, ECHO),
        Redirect(f"http://127.0.0.1:1/?key={QUERY}"),
        DropHandshake(),
        StallInHandshake(),
        Reset("handshake"),
        AcceptAndClose(),
        CloseWith(1008, reason=TOKEN),
    ],
    ids=lambda fault: f"{type(fault).__name__} {getattr(fault, 'status', '')}",
)
async def test_a_loop_that_ends_tells_no_credential(
    line: Line, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    caplog.set_level(logging.DEBUG)
    line.gateway.inject(fault, times=None)
    loop = reconnect(secret(line), retry=FAST)
    with pytest.raises(AgentConnError) as caught:
        await _follow(loop)
    await loop.aclose()
    errors = [caught.value]
    if isinstance(caught.value, RetriesExhausted):
        errors += caught.value.attempts
    for error in errors:
        assert_clean(told_by(error))
    assert_clean([repr(loop), repr(loop.statistics), repr(loop.connections)])
    for record in caplog.records:
        assert_clean([record.getMessage(), repr(vars(record))])


@pytest.mark.parametrize("wrong", [{"retry": 1}, {"upgrade": 1}, {"random": 1}], ids=repr)
def test_a_refused_argument_tells_no_credential(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        reconnect(partial(InferenceConnection, token=TOKEN), **wrong)
    assert_clean(told_by(caught.value))


async def test_a_failed_upgrade_tells_no_credential(
    session: aiohttp.ClientSession, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    room = Room()

    async def fail(_: InferenceConnection) -> None:
        raise ValueError(TOKEN)

    make = secret(Line(line.gateway, session), identity=room.identity)
    fails = False

    def dial() -> InferenceConnection:
        if fails:
            raise ValueError(TOKEN)
        return make()

    loop = reconnect(dial, retry=FAST, upgrade=UpgradePolicy(drain=fail))
    async for connection in loop:
        if loop.statistics.upgraded:
            break
        room.connected.set()
        line.gateway.inject(Reject(503, {"X-Echo": TOKEN}, ECHO))
        assert not await loop.upgrade()
        fails = True
        assert not await loop.upgrade()
        fails = False
        assert await loop.upgrade()
        assert loop.last_error is not None
        assert_clean([*told_by(loop.last_error), repr(loop.statistics)])
        await connection.ws.send_str("still here")
    await loop.aclose()
    assert loop.statistics.drains_cut == 1
    for record in caplog.records:
        assert_clean([record.getMessage(), repr(vars(record))])


async def _follow(loop: Any) -> None:
    async for connection in loop:
        async for _ in connection.ws:
            pass
