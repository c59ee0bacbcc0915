"""What the probe says of each peer: the step, the exit status and the advice."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers.canary import ECHO, TOKEN
from helpers.probing import KEY, SECRET, WITH_TOKEN, Probe, authority_file, with_query

from agent_conn.cli.probe import greeting
from agent_conn.gateway import (
    AcceptAndClose,
    BadAccept,
    DropHandshake,
    Fault,
    Garbage,
    Gateway,
    GoSilent,
    NotWebSocket,
    Redirect,
    Reject,
    Reset,
    StallAtAccept,
    StallAtTLS,
    StallInHandshake,
)

QUOTA = {
    "type": "inference_quota_exceeded",
    "hint": "upgrade \x1b[31myour plan[/bold]",
    "quota_type": "requests per minute",
    "category": "stt",
    "remaining_limit": 0,
    "documentation_url": "https://docs.example/quota",
}
QUOTA_HEADERS = {
    "X-LiveKit-Inference-RPM-Limit": "60",
    "X-LiveKit-Inference-RPM-Used": "61",
    "Retry-After": "30",
}


async def test_without_a_url_it_probes_a_gateway_of_its_own(probe: Probe) -> None:
    ended, page = await probe.both()
    found = ended.found
    assert ended.status == 0
    assert found["own_gateway"] is True
    assert found["open"] == found["made"] == 1
    assert found["connections"][0]["first_message_type"] == "session.created"
    assert found["steps"]["dns"] is None
    for step in ("tcp", "tls", "upgrade", "first_message"):
        assert found["steps"][step]["median_seconds"] > 0
    assert found["tls"]["version"] == "TLSv1.3"
    assert found["tls"]["verified"] is True
    assert "127.0.0.1" in found["tls"]["certificate"]["names"]
    assert found["advice"] == []
    assert ended.err == ""
    for text in ("TCP", "TLS", "upgrade", "first message", "verified       yes", "open"):
        assert text in page


async def test_the_steps_of_a_connection_fit_into_its_total(probe: Probe) -> None:
    found = (await probe("--json")).found
    connection = found["connections"][0]
    steps = [connection[f"{step}_seconds"] or 0.0 for step in found["steps"]]
    assert sum(steps) <= connection["total_seconds"]


async def test_a_closed_port(probe: Probe) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    ended, page = await probe.both(with_query(f"ws://127.0.0.1:{port}/v1"), *WITH_TOKEN)
    assert ended.status == 2
    assert ended.failure["step"] == "tcp"
    assert ended.failure["error"] == "DialFailed"
    assert ended.advice == f"Nothing listens on 127.0.0.1:{port}: start it, or check the port."
    assert ended.advice in page


async def test_a_name_that_does_not_resolve(probe: Probe) -> None:
    ended, page = await probe.both("wss://nothing.invalid/v1/stt", *WITH_TOKEN)
    assert ended.status == 2
    assert ended.failure["step"] == "dns"
    assert "has no address" in ended.advice
    assert "in DNS" in page


async def test_a_name_server_that_does_not_answer(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    daemons: list[bool] = []

    def hang(*_: object, **__: object) -> list[object]:
        daemons.append(threading.current_thread().daemon)
        answered.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        ended = await probe("wss://slow.example/v1", "--timeout", "0.2", "--json")
    finally:
        answered.set()
    assert ended.status == 2
    assert ended.failure["step"] == "dns"
    assert "name server does not answer" in ended.advice
    # Python waits for any other thread when it ends.
    assert daemons == [True]


async def test_a_name_that_resolves_shows_what_dns_took(probe: Probe, gateway: Gateway) -> None:
    ended = await probe(f"http://localhost:{gateway.port}/v1", "--json")
    assert ended.status == 0
    assert ended.found["steps"]["dns"]["median_seconds"] > 0
    assert ended.found["tls"] is None


async def test_a_certificate_of_an_unknown_authority(probe: Probe, tmp_path: Path) -> None:
    async with Gateway(tls=True) as gateway:
        ended, page = await probe.both(with_query(gateway.base_url), *WITH_TOKEN)
        assert ended.status == 2
        assert ended.failure["step"] == "tls"
        assert ended.found["tls"]["verified"] is False
        assert "unable to get local issuer" in ended.found["tls"]["verify_error"]
        certificate = ended.found["tls"]["certificate"]
        assert "Testing cert" in certificate["subject"]
        assert "Testing CA" in certificate["issuer"]
        assert certificate["days_left"] > 0
        assert "--ca FILE" in ended.advice
        assert certificate["subject"] in page
        # The second look at the certificate sent nothing.
        assert gateway.handshakes == []
        trusted = await probe(gateway.base_url, "--ca", authority_file(gateway, tmp_path), "--json")
        assert trusted.status == 0
        assert trusted.found["tls"]["verified"] is True
        await gateway.wait_idle(2.0)


async def test_insecure_dials_what_is_not_trusted_and_says_so(probe: Probe) -> None:
    async with Gateway(tls=True, token=TOKEN) as gateway:
        ended, page = await probe.both(gateway.base_url, "--insecure", *WITH_TOKEN)
    assert ended.status == 0
    assert ended.found["tls"]["verified"] is None
    assert "not checked" in page
    assert "anyone on the way" in ended.advice


async def test_a_token_that_is_refused(probe: Probe) -> None:
    async with Gateway(token="another") as gateway:
        ended, page = await probe.both(with_query(gateway.base_url), *WITH_TOKEN)
    assert ended.status == 1
    assert ended.failure["step"] == "upgrade"
    assert ended.failure["status"] == ended.found["rejection"]["status"] == 401
    assert "token refused" in ended.found["rejection"]["body"]
    assert "does not take the token of --token" in ended.advice
    assert "401 Unauthorized" in page


async def test_a_key_with_the_wrong_secret(probe: Probe) -> None:
    async with Gateway(api_key=KEY, api_secret="another-secret-of-more-than-32-bytes") as gateway:
        ended = await probe(gateway.base_url, "--api-key", KEY, "--api-secret", SECRET, "--json")
    assert ended.status == 1
    assert "belong together" in ended.advice


async def test_a_gateway_that_wants_a_token_and_gets_none(probe: Probe) -> None:
    async with Gateway(token="another") as gateway:
        ended = await probe(gateway.base_url, "--json")
    assert ended.status == 1
    assert "wants a token" in ended.advice


async def test_a_clock_that_is_off_is_named_where_tokens_are_minted(
    probe: Probe, gateway: Gateway
) -> None:
    gateway.inject(Reject(401, {"Date": "Sun, 22 Nov 2020 12:00:00 GMT"}))
    ended = await probe(gateway.base_url, "--api-key", KEY, "--api-secret", SECRET, "--json")
    assert "s ahead of the gateway's" in ended.advice


async def test_a_quota_that_is_used_up(probe: Probe, gateway: Gateway) -> None:
    fault = Reject(429, QUOTA_HEADERS, json.dumps(QUOTA).encode())
    with gateway.inject(fault, times=None):
        ended, page = await probe.both(gateway.base_url, "--count", "5", *WITH_TOKEN)
    assert ended.status == 1
    # More of them would only use up more.
    assert ended.found["made"] == 1
    rejection = ended.found["rejection"]
    assert rejection["status"] == 429
    assert rejection["retry_after_seconds"] == 30
    assert rejection["quota"]["remaining_limit"] == "0"
    assert rejection["quota"]["limits"] == {"RPM-Limit": "60", "RPM-Used": "61"}
    for text in ("stt requests per minute quota", "RPM-Limit 60", "30 s", "docs.example/quota"):
        assert text in ended.advice
    # What the gateway says is shown, and does nothing to the terminal.
    assert r"\x1b[31myour plan[/bold]" in page
    assert "\x1b" not in page


async def test_an_answer_that_repeats_the_token_is_withheld(probe: Probe, gateway: Gateway) -> None:
    answer = json.dumps(QUOTA | {"echo": TOKEN}).encode()
    with gateway.inject(Reject(429, QUOTA_HEADERS, answer), times=None):
        ended, page = await probe.both(gateway.base_url, *WITH_TOKEN)
    assert ended.status == 1
    assert TOKEN not in page + json.dumps(ended.found)


async def test_a_path_that_does_not_exist(probe: Probe, gateway: Gateway) -> None:
    ended = await probe(gateway.url("/v1/sst"), "--json")
    assert ended.status == 1
    assert ended.failure["status"] == 404
    assert "/v1/stt" in ended.advice


@pytest.mark.parametrize(
    ("fault", "step", "advice"),
    [
        (StallAtAccept(), "tcp", "are dropped"),
        (StallAtTLS(), "tls", "accepts TCP and says nothing in TLS"),
        (Reset("tls"), "tls", "ended the connection in TLS"),
        (StallInHandshake(), "upgrade", "never answers the request"),
        (Reset("handshake"), "upgrade", "hung up on the request"),
        (DropHandshake(), "upgrade", "hung up on the request"),
        (Garbage(ECHO), "upgrade", "does not serve a websocket here"),
        (NotWebSocket(ECHO), "upgrade", "does not serve a websocket here"),
        (Redirect("http://127.0.0.1:1/on?x=1"), "upgrade", "redirects to http://127.0.0.1:1/on:"),
        (Redirect("/elsewhere", 307), "upgrade", "/elsewhere: pass that URL"),
        (Redirect("http://[", 307), "upgrade", "redirects to an invalid URL"),
        (BadAccept(), "upgrade", "does not serve a websocket here"),
        (GoSilent(), "first_message", "no session.created came"),
        (Reset("open"), "first_message", "cut without a Close frame"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_a_peer_that_gives_no_answer(
    probe: Probe, fault: Fault, step: str, advice: str
) -> None:
    async with Gateway(tls=True) as gateway:
        injection = gateway.inject(fault, times=None)
        ended, page = await probe.both(
            with_query(gateway.base_url), "--insecure", "--timeout", "1", *WITH_TOKEN
        )
        injection.withdraw()
        await gateway.wait_idle(2.0)
    assert ended.status == 2
    assert ended.failure["step"] == step
    assert ended.failure["after_seconds"] >= 0
    assert advice in ended.advice
    assert advice.split(maxsplit=1)[0] in page


async def test_a_peer_that_closes_instead_of_a_first_message_has_rejected(
    probe: Probe, gateway: Gateway
) -> None:
    gateway.inject(AcceptAndClose(4001), times=None)
    ended, page = await probe.both(gateway.base_url, *WITH_TOKEN)
    assert ended.status == 1
    assert ended.failure["step"] == "first_message"
    assert ended.found["rejection"]["code"] == 4001
    assert "with code 4001" in page


async def test_a_plain_port_dialled_with_tls(probe: Probe, gateway: Gateway) -> None:
    ended = await probe(f"wss://127.0.0.1:{gateway.port}/v1/stt", "--json")
    assert ended.status == 2
    assert ended.failure["step"] == "tls"
    assert "does not speak TLS" in ended.advice


@pytest.mark.parametrize("path", ["/v1/echo", "/v1/tts"])
async def test_other_services_are_probed_too(probe: Probe, gateway: Gateway, path: str) -> None:
    ended, page = await probe.both(gateway.url(path))
    assert ended.status == 0
    kind: Any = ended.found["connections"][0]["first_message_type"]
    asked = path == "/v1/tts"
    assert kind == ("session.created" if asked else None)
    assert (ended.found["steps"]["first_message"] is None) is not asked
    assert ("none came" in page) is not asked


async def test_the_wait_for_a_message_that_nobody_asked_for_is_no_part_of_the_opening(
    probe: Probe, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greeting, "LISTEN_SECONDS", 2.0)
    ended = await probe(gateway.url("/v1/echo"), "--json")
    assert ended.found["total"]["median_seconds"] < 2.0
