"""What the gateway's command tells: text of others, a port's holder, credentials."""

from __future__ import annotations

import errno
import logging
import os
import socket

import aiohttp
import pytest
import yarl
from rich.console import Console

from agent_conn import Usage
from agent_conn.cli.gateway.activity import line_of, shown_activity
from agent_conn.cli.gateway.credentials import Credentials
from agent_conn.cli.gateway.port_holder import explain, holders
from agent_conn.cli.gateway.used import used_lines
from agent_conn.cli.plain import plain
from agent_conn.gateway import CloseWith, Gateway


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/v1/stt", "/v1/stt"),
        ("[red]é [/red]", "[red]é [/red]"),
        ("\x1b[2J\r\n\x9b", r"\x1b[2J\r\n\x9b"),
        ("a\u202eb\udc80", r"a\u202eb\udc80"),
    ],
)
def test_what_does_not_print_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"), [("x" * 10, "x" * 10), ("x" * 11, "x" * 9 + "…"), ("\n" * 9, r"\n\n\n\n\…")]
)
def test_what_is_long_is_cut(text: str, shown: str) -> None:
    assert plain(text, 10) == shown


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (OSError(errno.EACCES, "Permission denied"), "port 80 needs more rights"),
        (OSError(errno.EADDRNOTAVAIL, "?"), "--host must be an address of this machine, got h"),
        (
            socket.gaierror(-2, "not known"),
            "--host must be an address of this machine, got h: not known",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "cannot listen on h, port 80: Too many"),
    ],
)
def test_a_failure_to_listen_is_told_in_its_own_words(failure: OSError, told: str) -> None:
    assert explain("h", 80, failure).startswith(told)


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_the_holder_of_a_port_is_found_while_it_listens(
    family: socket.AddressFamily, host: str
) -> None:
    with socket.create_server((host, 0), family=family) as taken:
        port = taken.getsockname()[1]
        (holder,) = holders(port)
        assert (holder.pid, holder.is_gateway) == (os.getpid(), False)
    assert holders(port) == []


def test_a_holder_that_cannot_be_seen_is_told_as_such() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        told = explain("127.0.0.1", port, OSError(errno.EADDRINUSE, "in use"))
    assert f"port {port} is taken by a process that cannot be seen from here" in told


def test_credentials_show_nothing_of_themselves() -> None:
    for credentials in (Credentials("canary"), Credentials(None, "canary-key", "canary")):
        assert "canary" not in repr(credentials)
        assert "canary" not in str(credentials.exports())


def test_the_last_callers_are_told_what_they_used_as_text() -> None:
    used = Usage("AJ_1", "RM_\n", "[red]", audio_in=61.26, characters=40, audio_out=2.5)
    assert list(used_lines([used, Usage(characters=3)])) == [
        r"agent=[red] room=RM_\n job=AJ_1: heard 61.3 s, spoke 2.5 s of 40 characters",
        "callers without ids: heard 0.0 s, spoke 0.0 s of 3 characters",
    ]
    *shown, others = used_lines([Usage(f"AJ_{number}") for number in range(25)])
    assert others == "5 callers before them are not shown"
    assert [line.partition(":")[0] for line in shown] == [f"job=AJ_{n}" for n in range(5, 25)]


def test_a_warning_is_shown_even_when_quiet_and_nothing_else_is() -> None:
    console = Console(force_terminal=True, color_system=None, width=20, record=True)
    log = logging.getLogger("agent_conn.gateway")
    with shown_activity(console, quiet=True), console.capture() as shown:
        log.info("gateway.started", extra={"host": "h", "port": 1})
        log.warning("gateway.engine_failed", extra={"error": "SpeechFailed"})
    assert shown.get().endswith("gateway.engine_failed SpeechFailed\n")
    assert shown.get().count("\n") == 1
    assert not log.isEnabledFor(logging.INFO)


@pytest.mark.parametrize("level", ["NONE", "JOB", "ROOM", "AGENT"])
def test_each_level_has_a_colour_and_its_word(level: str) -> None:
    record = logging.LogRecord("n", logging.INFO, "p", 1, "gateway.connection_opened", None, None)
    vars(record).update(
        {"number": 7, "attribution": level, "path": "/v1/stt", "model": None},
        agent_id=None,
        room_id=None,
        job_id=None,
    )
    line = line_of(record)
    assert line is not None
    ((start, end, style),) = line.spans
    assert line.plain[start:end].strip() == level
    assert style
    assert line.plain.endswith("/v1/stt")


def test_a_warning_of_the_http_server_is_told_with_its_facts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logging.getLogger("agent_conn.gateway.http")
    failure = KeyError("what a peer sent")
    log.error("Error handling request from %s", "127.0.0.1\x1b[2J", exc_info=failure)
    line = line_of(caplog.records[0])
    assert line is not None
    told = line.plain.partition(" ")[2]
    assert told == r"Error handling request from 127.0.0.1\x1b[2J KeyError"


async def test_refusals_and_losses_are_warnings_with_their_facts_in_the_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Gateway() as gateway, aiohttp.ClientSession() as session:
        await session.get(gateway.base_url + "/realtime")
        gateway.inject(CloseWith(1011))
        headers = {"X-LiveKit-Job-Id": "AJ_1"}
        async with session.ws_connect(gateway.url("/v1/echo"), headers=headers) as ws:
            await ws.receive(5)
        await gateway.wait_until(lambda: not gateway.connections)
    refused, lost = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert refused.getMessage() == (
        "gateway.request_answered: #1 /v1/realtime NONE status 501 "
        "(this gateway does not have this service)"
    )
    told = "gateway.connection_closed: #2 /v1/echo JOB job=AJ_1 status 101, code 1011 after "
    assert lost.getMessage().startswith(told)
    for record, number in ((refused, 1), (lost, 2)):
        line = line_of(record)
        assert line is not None
        assert f" #{number} " in line.plain


async def test_what_a_client_sends_makes_no_second_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Gateway() as gateway, aiohttp.ClientSession() as session:
        await session.get(yarl.URL(gateway.base_url + "/a%0Ab", encoded=True))
    assert r"/v1/a\nb" in caplog.text
    assert all("\n" not in one for one in caplog.messages)
