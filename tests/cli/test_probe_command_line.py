"""The probe's options, credentials and exit statuses."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys

import pytest
from helpers.canary import QUERY, TOKEN
from helpers.gateway_process import run
from helpers.probing import KEY, SECRET, WITH_TOKEN, Probe
from yarl import URL

from agent_conn import AttributionLevel, ConfigurationError
from agent_conn.cli.probe.target import find_credentials, make_identity, shown, websocket_url
from agent_conn.gateway import Gateway, Reject, StallInHandshake

NOWHERE = "wss://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    "arguments",
    [
        ["ftp://127.0.0.1/"],
        ["not a url"],
        [f"wss://user:{TOKEN}@127.0.0.1/"],
        [NOWHERE, "--count", "0"],
        [NOWHERE, "--timeout", "0"],
        [NOWHERE, "--timeout", "nan"],
        [NOWHERE, "--api-key", KEY],
        [NOWHERE, "--api-secret", SECRET],
        [NOWHERE, *WITH_TOKEN, "--api-key", KEY, "--api-secret", SECRET],
        [NOWHERE, "--token", f"{TOKEN}\n"],
        [NOWHERE, "--room", "\u00e9"],
        [NOWHERE, "--ca", "/nonexistent.pem"],
        [NOWHERE, "--ca", os.devnull],
        ["ws://127.0.0.1:1/v1", "--ca", os.devnull],
        ["ws://gateway.example/v1", *WITH_TOKEN],
        [*WITH_TOKEN],
        ["--insecure"],
        [NOWHERE, TOKEN],
        [NOWHERE, f"--no-such-option={TOKEN}"],
    ],
    ids=lambda arguments: " ".join(arguments[-2:]).replace(TOKEN, "token")[:40],
)
async def test_a_wrong_command_line_is_told_before_anything_is_dialled(
    probe: Probe, arguments: list[str]
) -> None:
    ended = await probe(*arguments)
    assert ended.status == 64
    assert ended.out == ""
    assert "Error" in ended.err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("https://host.example/v1", "wss://host.example/v1/stt?model=auto"),
        ("https://host.example/v1/", "wss://host.example/v1/stt?model=auto"),
        ("http://localhost:8080/v1", "ws://localhost:8080/v1/stt?model=auto"),
        ("https://host.example/v1?model=x", "wss://host.example/v1/stt?model=x"),
        ("wss://host.example/v1/tts?model=x", "wss://host.example/v1/tts?model=x"),
        ("wss://host.example", "wss://host.example/v1/stt?model=auto"),
        ("http://localhost:8080/?model=x", "ws://localhost:8080/v1/stt?model=x"),
        ("wss://host.example/tts", "wss://host.example/v1/tts"),
        ("wss://host.example/stt?model=x", "wss://host.example/v1/stt?model=x"),
        ("wss://host.example/other", "wss://host.example/other"),
        ("wss://host.example/v1/echo#part", "wss://host.example/v1/echo"),
    ],
)
def test_a_base_url_means_its_speech_to_text(given: str, meant: str) -> None:
    assert str(websocket_url(given)) == meant


def test_a_url_is_shown_without_its_query_and_without_controls() -> None:
    url = URL(f"wss://host.example/a%1b%5b31m?key={QUERY}")
    assert shown(url) == "wss://host.example/a%1B%5B31m"


@pytest.mark.parametrize(
    ("options", "environment", "source"),
    [
        ({}, {}, None),
        ({"token": "t"}, {"LIVEKIT_INFERENCE_TOKEN": "e"}, "--token"),
        ({}, {"LIVEKIT_INFERENCE_TOKEN": "e"}, "LIVEKIT_INFERENCE_TOKEN"),
        (
            {"api_key": "k", "api_secret": "s"},
            {"LIVEKIT_INFERENCE_TOKEN": "e", "LIVEKIT_API_KEY": "e"},
            "--api-key, --api-secret",
        ),
        (
            {},
            {
                "LIVEKIT_INFERENCE_API_KEY": "k",
                "LIVEKIT_INFERENCE_API_SECRET": "s",
                "LIVEKIT_API_KEY": "k2",
                "LIVEKIT_API_SECRET": "s2",
            },
            "LIVEKIT_INFERENCE_API_KEY, LIVEKIT_INFERENCE_API_SECRET",
        ),
        (
            {},
            {"LIVEKIT_API_KEY": "k", "LIVEKIT_API_SECRET": "s"},
            "LIVEKIT_API_KEY, LIVEKIT_API_SECRET",
        ),
        (
            {"api_key": "k"},
            {"LIVEKIT_API_SECRET": "s"},
            "--api-key, LIVEKIT_API_SECRET",
        ),
    ],
)
def test_options_win_over_the_environment(
    options: dict[str, str], environment: dict[str, str], source: str | None
) -> None:
    given = {"token": None, "api_key": None, "api_secret": None} | options
    found = find_credentials(**given, environment=environment)
    assert found.source == source
    assert set(filter(None, (found.token, found.api_key, found.api_secret))) <= {"t", "e", "k", "s"}


def test_credentials_are_not_in_their_repr() -> None:
    found = find_credentials(token=None, api_key=KEY, api_secret=SECRET, environment={})
    assert repr(found) == "<Credentials --api-key, --api-secret>"


def test_an_id_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(ConfigurationError, match="--agent cannot be sent: is blank"):
        make_identity("AJ_1", None, " ")
    assert make_identity("AJ_1", "RM_1", None).level is AttributionLevel.ROOM


async def test_credentials_come_from_the_environment_and_are_named(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEKIT_API_KEY", KEY)
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)
    async with Gateway(api_key=KEY, api_secret=SECRET) as gateway:
        ended, page = await probe.both(gateway.base_url)
    assert ended.status == 0
    assert ended.found["credentials"] == "LIVEKIT_API_KEY, LIVEKIT_API_SECRET"
    assert "LIVEKIT_API_KEY, LIVEKIT_API_SECRET" in page


async def test_ids_are_sent(probe: Probe, gateway: Gateway) -> None:
    ids = ("--job", "AJ_1", "--room", "RM_1", "--agent", "PA_1")
    ended = await probe(gateway.base_url, *ids, "--json")
    assert ended.found["attribution"] == "AGENT"
    assert gateway.handshakes[0].level is AttributionLevel.AGENT


async def test_each_of_several_is_a_connection_of_its_own(probe: Probe, gateway: Gateway) -> None:
    ended, page = await probe.both(gateway.base_url, "--count", "3")
    found = ended.found
    assert gateway.accepted == 6
    assert found["open"] == found["steps"]["tcp"]["count"] == len(found["connections"]) == 3
    tcp = sorted(connection["tcp_seconds"] for connection in found["connections"])
    spread = [found["steps"]["tcp"][f"{name}_seconds"] for name in ("min", "median", "max")]
    assert spread == tcp
    assert "median" in page
    assert "3 of 3 open" in page


async def test_one_that_fails_among_several_decides_the_status(
    probe: Probe, gateway: Gateway
) -> None:
    gateway.inject(Reject(503))
    ended = await probe(gateway.base_url, "--count", "3", "--json")
    assert ended.status == 1
    assert (ended.found["open"], ended.found["rejected"]) == (2, 1)
    assert ended.found["rejection"]["status"] == 503


async def test_a_final_answer_is_not_asked_for_again(probe: Probe, gateway: Gateway) -> None:
    ended, page = await probe.both(gateway.url("/v1/none"), "--count", "5")
    assert ended.found["requested"] == 5
    assert ended.found["made"] == 1
    assert gateway.accepted == 2
    assert "ended early after 1 of 5" in page


async def interrupted(gateway: Gateway, *arguments: str, after: int) -> tuple[bytes, bytes]:
    """What a probe of ``gateway`` says that gets Ctrl-C after so many handshakes."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent_conn", "probe", gateway.base_url, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await gateway.wait_until(lambda: len(gateway.handshakes) >= after, 30.0)
    running.send_signal(signal.SIGINT)
    out, err = await running.communicate()
    assert running.returncode == 130
    assert b"Traceback" not in err
    await gateway.wait_idle(2.0)
    return out, err


async def test_ctrl_c_ends_a_long_run_with_what_was_found(gateway: Gateway) -> None:
    out, _ = await interrupted(gateway, "--count", "100000", "--json", after=2)
    found = json.loads(out)
    assert found["interrupted"] is True
    assert found["exit_status"] == 130
    assert 1 <= found["made"] == found["open"] < 100_000


async def test_ctrl_c_ends_a_connection_that_stalls(gateway: Gateway) -> None:
    gateway.inject(StallInHandshake())
    out, _ = await interrupted(gateway, "--timeout", "500", after=1)
    assert b"interrupted after 0 of 1" in out


async def test_without_a_url_it_takes_the_environments_and_says_so(
    probe: Probe, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEKIT_INFERENCE_URL", gateway.base_url)
    ended, page = await probe.both()
    assert ended.status == 0
    assert len(gateway.handshakes) == 2
    assert f"{gateway.url('/v1/stt')}, from LIVEKIT_INFERENCE_URL" in page


async def test_a_wrong_url_of_the_environment_is_named(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEKIT_INFERENCE_URL", f"gateway.example?key={QUERY}")
    ended = await probe()
    assert ended.status == 64
    assert "LIVEKIT_INFERENCE_URL: URL" in " ".join(ended.err.split())


async def test_loopback_in_the_clear_is_no_reason_to_warn(probe: Probe, gateway: Gateway) -> None:
    ended = await probe(gateway.base_url)
    assert ended.status == 0
    assert "can be read on the way" not in ended.out


@pytest.mark.parametrize("arguments", [["gateway"], ["probe"], []], ids=str)
async def test_help_shows_every_name_whole_at_80_columns(arguments: list[str]) -> None:
    told = await run(*arguments, "--help", variables={"COLUMNS": "80"})
    assert told.status == 0
    assert "…" not in told.out.replace("…/v1", "").replace("wss://…", "").replace(" … kill", "")
    assert max(map(len, told.out.splitlines())) <= 80
    names = re.findall(r"--[a-z-]+|[A-Z]+_[A-Z_]+", told.out)
    assert {"gateway": "AGENT_CONN_INSPECTOR_TOKEN", "probe": "LIVEKIT_INFERENCE_URL"}.get(
        "".join(arguments), "--version"
    ) in names


@pytest.mark.parametrize("arguments", [[TOKEN], [TOKEN, "--json"], ["gateways", TOKEN]], ids=str)
async def test_a_secret_in_the_place_of_a_command_is_not_repeated(arguments: list[str]) -> None:
    told = await run(*arguments)
    assert told.status == 64
    assert "there is no such command: write one of gateway, probe" in told.err
    assert TOKEN not in told.out + told.err
    assert "Traceback" not in told.err
