"""The gateway among strangers: floods, silence, guesses, other names, and secrets in any header."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from agent_conn.errors import ConfigurationError
from agent_conn.gateway import Gateway, Inspector, Reject, StallInHandshake, mint_token
from agent_conn.gateway.inspector.journal import Journal
from agent_conn.gateway.server.guesses import BURST, MAX_ADDRESSES, SECONDS_PER_GUESS, GuessLimit

pytestmark = pytest.mark.timeout(50)
SECRET = "s" * 32
SHORT = 0.2
MOST_MIB = 64

FLOOD = """
import asyncio
from agent_conn.gateway import Gateway, Inspector

FIELDS = "".join(f"X-{number:03}-{'n' * 4000}: {'v' * 4000}\\r\\n" for number in range(100))
HEAD = f"GET /v1/{'p' * 4000} HTTP/1.1\\r\\nHost: h\\r\\n{FIELDS}\\r\\n".encode()

def resident() -> float:
    with open("/proc/self/statm") as memory:
        return int(memory.read().split()[1]) * 4096 / 2**20

async def ask(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD)
    assert (await reader.readline()).split()[1] in (b"404", b"401")
    writer.close()
    await writer.wait_closed()

async def main() -> None:
    async with Gateway(token="t" * 16, inspector=Inspector()) as gateway:
        for _ in range(20):
            await ask(gateway.port)
        before = resident()
        for _ in range(250):
            await asyncio.gather(*(ask(gateway.port) for _ in range(10)))
        print(resident() - before, gateway.accepted)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory in use from /proc")
async def test_a_flood_of_refused_requests_takes_little_memory() -> None:
    """2,500 heads of 800 kB each; a process of its own, whose memory nothing else has grown."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FLOOD, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    grown, accepted = out.split()
    assert int(accepted) == 2_520
    assert float(grown) < MOST_MIB


async def test_the_last_handshakes_that_fit_are_kept(session: aiohttp.ClientSession) -> None:
    async with Gateway() as gateway:
        long = {f"X-{'n' * 3_000}-{number}": "" for number in range(100)}
        for number in range(90):
            await session.get(f"{gateway.base_url}/{number}", headers=long)
        paths = [handshake.path for handshake in gateway.handshakes]
    assert 50 <= len(paths) < 90
    assert paths == [f"/v1/{number}" for number in range(90 - len(paths), 90)]


async def test_the_inspector_gives_up_what_has_ended_when_its_memory_is_full() -> None:
    async with (
        Gateway(inspector=Inspector()) as gateway,
        aiohttp.ClientSession() as session,
        session.ws_connect(gateway.url("/v1/echo")),
    ):
        long = {f"X-{'n' * 3_000}-{number}": "" for number in range(100)}
        for _ in range(70):
            await session.get(f"{gateway.base_url}/nowhere", headers=long)
        details = f"{gateway.inspector_url}inspector/connections"
        async with session.get(f"{details}/1") as response:
            assert (await response.json())["row"]["state"] == "open"
        async with session.get(f"{details}/2") as response:
            assert response.status == 404


def test_a_journal_of_no_size_keeps_the_last() -> None:
    class Socket:
        number, peer, accepted_at, secured_at = 1, "127.0.0.1:1", 0.0, None
        fault = None

    async def add() -> int:
        journal = Journal(max_bytes=1)
        for _ in range(3):
            journal.accepted(Socket())  # type: ignore[arg-type]
            journal.closed(Socket())  # type: ignore[arg-type]
        return len(journal.changed_since(-1))

    assert asyncio.run(add()) == 1


@contextlib.asynccontextmanager
async def raw(
    gateway: Gateway, **options: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    "sent", [b"", b"GET /v1/stt HTTP/1.1\r\nHost: h\r\n"], ids=["none", "half"]
)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_who_sends_no_whole_request_is_hung_up_on(sent: bytes, tls: bool) -> None:
    async with Gateway(tls=tls, request_timeout=SHORT) as gateway:
        async with raw(gateway, ssl=gateway.client_ssl) as (reader, writer):
            writer.write(sent)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(5):
                    assert await reader.read() == b""
            await gateway.wait_idle(2)
        assert gateway.handshakes == []


async def test_who_never_begins_tls_is_hung_up_on() -> None:
    async with Gateway(tls=True, request_timeout=SHORT) as gateway, raw(gateway) as (reader, _):
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                assert await reader.read() == b""
        await gateway.wait_idle(2)


async def test_a_connection_that_was_served_is_not_kept_for_ever() -> None:
    async with Gateway(request_timeout=SHORT) as gateway, raw(gateway) as (reader, writer):
        writer.write(b"GET /v1/nowhere HTTP/1.1\r\nHost: h\r\n\r\n")
        async with asyncio.timeout(5):
            assert b"404" in await reader.read()
        await gateway.wait_idle(2)


async def test_a_websocket_may_be_silent_and_an_answer_may_be_late(
    session: aiohttp.ClientSession,
) -> None:
    async with (
        Gateway(request_timeout=SHORT) as gateway,
        session.ws_connect(gateway.url("/v1/echo")) as ws,
    ):
        gateway.inject(StallInHandshake())
        stalled = asyncio.ensure_future(session.get(f"{gateway.base_url}/echo"))
        with pytest.raises(TimeoutError):
            await ws.receive(3 * SHORT)
        await ws.send_str("still there")
        assert (await ws.receive()).data == "still there"
        assert not stalled.done()
        stalled.cancel()
        await asyncio.gather(stalled, return_exceptions=True)


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), True, "15"])
def test_a_request_timeout_is_seconds(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="request_timeout"):
        Gateway(request_timeout=wrong)


async def bearer(session: aiohttp.ClientSession, gateway: Gateway, token: str) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"}
    async with session.get(f"{gateway.base_url}/models", headers=headers) as response:
        return response.status, response.headers.get("Retry-After", "")


async def test_after_many_wrong_tokens_an_address_has_to_wait(
    session: aiohttp.ClientSession,
) -> None:
    async with Gateway(token="right") as gateway:
        answers = [(await bearer(session, gateway, str(number)))[0] for number in range(BURST + 3)]
        assert answers == [401] * BURST + [429] * 3
        status, wait = await bearer(session, gateway, "right")
        assert status == 429
        assert 1 <= int(wait) <= SECONDS_PER_GUESS


async def test_a_secret_that_is_guessed_counts_and_an_expired_token_does_not(
    session: aiohttp.ClientSession,
) -> None:
    async with Gateway(api_key="key", api_secret=SECRET) as gateway:
        expired = mint_token("key", SECRET, ttl=-100)
        for _ in range(BURST + 3):
            assert (await bearer(session, gateway, expired))[0] == 401
            assert (await bearer(session, gateway, ""))[0] == 401
        for number in range(BURST):
            guess = mint_token("key", f"{number:032}")
            assert (await bearer(session, gateway, guess))[0] == 401
        assert (await bearer(session, gateway, mint_token("key", SECRET)))[0] == 429


def test_guesses_are_forgiven_one_by_one() -> None:
    limit = GuessLimit()
    for _ in range(BURST):
        assert limit.wait("a", 100.0) == 0
        limit.wrong("a", 100.0)
    assert limit.wait("a", 100.0) == SECONDS_PER_GUESS
    assert limit.wait("b", 100.0) == 0
    assert limit.wait("a", 101.5) == 2
    assert limit.wait("a", 100.0 + SECONDS_PER_GUESS) == 0
    limit.wrong("a", 100.0 + SECONDS_PER_GUESS)
    assert limit.wait("a", 100.0 + SECONDS_PER_GUESS) == SECONDS_PER_GUESS


def test_the_addresses_that_guess_are_remembered_up_to_a_number() -> None:
    limit = GuessLimit()
    for number in range(MAX_ADDRESSES + 1):
        for _ in range(BURST):
            limit.wrong(str(number), 0.0)
    assert limit.wait("0", 0.0) == 0
    assert limit.wait("1", 0.0) > 0


async def status_under(session: aiohttp.ClientSession, gateway: Gateway, host: str) -> int:
    headers = {"Host": f"{host}:{gateway.port}"}
    async with session.get(f"{gateway.base_url}/models", headers=headers) as response:
        return response.status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost", 200),
        ("LOCALHOST", 200),
        ("[::1]", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("10.0.0.1", 403),
        ("", 403),
    ],
)
async def test_with_a_host_check_a_name_rebound_to_loopback_is_refused_on_all_paths(
    session: aiohttp.ClientSession, host: str, status: int
) -> None:
    async with Gateway(check_host=True) as gateway:
        assert await status_under(session, gateway, host) == status


async def test_without_it_any_name_will_do(
    gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    assert await status_under(session, gateway, "evil.example") == 200


async def test_a_request_under_another_name_uses_up_no_fault(
    session: aiohttp.ClientSession,
) -> None:
    async with Gateway(check_host=True) as gateway:
        injection = gateway.inject(Reject(418))
        assert await status_under(session, gateway, "evil.example") == 403
        assert injection.struck == 0
        assert await status_under(session, gateway, "127.0.0.1") == 418


@pytest.mark.parametrize(
    "header",
    [
        {"X-Tenant-Key": "tell-no-one"},
        {"X-Amz-Security-Token": "tell-no-one"},
        {"Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.tell-no-one"},
        {"User-Agent": "Bearer tell-no-one"},
        {"Referer": "https://app.example/?token=tell-no-one"},
        {"Anything": "tell-no-one"},
    ],
    ids=str,
)
async def test_a_header_that_nobody_listed_is_recorded_by_its_name_alone(
    session: aiohttp.ClientSession, header: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Gateway() as gateway:
        await session.get(f"{gateway.base_url}/nowhere", headers=header)
        (handshake,) = gateway.handshakes
    assert "<redacted>" in handshake.headers[next(iter(header))]
    assert "tell-no-one" not in repr(handshake)
    assert "tell-no-one" not in " ".join(str(vars(record)) for record in caplog.records)


async def test_a_header_can_be_listed(session: aiohttp.ClientSession) -> None:
    async with Gateway(shown_headers=["X-Tenant"]) as gateway:
        await session.get(f"{gateway.base_url}/nowhere", headers={"x-tenant": "blue"})
        assert gateway.handshakes[0].headers["X-Tenant"] == "blue"


@pytest.mark.parametrize("wrong", [["X Tenant"], [7], [""]])
def test_a_listed_header_is_a_header_name(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="shown_headers must be header names, got"):
        Gateway(shown_headers=wrong)


async def test_a_handshake_is_plain_data(gateway: Gateway, session: aiohttp.ClientSession) -> None:
    async with session.ws_connect(gateway.url("/v1/echo"), protocols=["a"]):
        (handshake,) = gateway.handshakes
    assert pickle.loads(pickle.dumps(handshake)) == copy.deepcopy(handshake) == handshake
