"""Credentials are in nothing that is exported."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import pytest
from helpers.canary import COOKIE, ECHO, QUERY, TOKEN, WORKER_TOKEN, assert_clean
from helpers.exported import Exported
from helpers.support import Line

from agent_conn import AgentConnError, AgentIdentity
from agent_conn.gateway import (
    BadAccept,
    CloseWith,
    DropAfter,
    DropHandshake,
    Fault,
    Garbage,
    NotWebSocket,
    Redirect,
    Reject,
)

FAULTS: list[Fault | None] = [
    None,
    Garbage(ECHO + b"\r\n\r\n"),
    Reject(401, {"X-Echo": TOKEN, "Set-Cookie": f"session={COOKIE}"}, ECHO),
    Reject(429, {"X-LiveKit-Inference-RPM-Limit": "1"}, ECHO),
    Redirect(f"http://127.0.0.1:1/?key={QUERY}"),
    BadAccept(),
    NotWebSocket(ECHO),
    DropHandshake(),
    DropAfter(),
    CloseWith(1011, reason=f"{TOKEN} {QUERY}"),
]


async def leak(*_: object) -> Any:
    raise LookupError(f"{TOKEN} {COOKIE} {QUERY}")


def leaking_identity() -> AgentIdentity:
    raise LookupError(f"{TOKEN} {COOKIE} {QUERY}")


@pytest.mark.parametrize(
    "options",
    [{}, {"on_open": leak}, {"token": leak}, {"identity": leaking_identity}],
    ids=["plain", "on_open", "token", "identity"],
)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_no_credential_is_exported(
    line: Line,
    exported: Exported,
    caplog: pytest.LogCaptureFixture,
    fault: Fault | None,
    options: dict[str, Any],
) -> None:
    line.session.cookie_jar.update_cookies({"session": COOKIE})
    if fault is not None:
        line.gateway.inject(fault)
    defaults: dict[str, Any] = {
        "token": TOKEN,
        "headers": {"X-LiveKit-Worker-Token": WORKER_TOKEN},
    }
    connection = line.dial(
        f"/v1/echo?key={QUERY}#{QUERY}", **{**defaults, **options, **exported.options()}
    )
    with caplog.at_level(logging.DEBUG), suppress(AgentConnError):
        async with connection as ws:
            await ws.send_str("?")
            await ws.receive()
    assert len(exported.spans()) == 1
    logged = [repr(vars(record)) for record in caplog.records if record.name == "agent_conn"]
    assert_clean([*exported.texts(), *logged])
