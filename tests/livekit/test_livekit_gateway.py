"""``inference_token`` and ``inference_connection``: what goes out for a job and without one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import jwt
import pytest

pytest.importorskip("livekit.agents", exc_type=ImportError)

from helpers.livekit_support import CREDENTIALS, NativeSide, fake_job, job, livekit_headers
from livekit import rtc
from livekit.agents.utils import http_context

from agent_conn import AgentIdentity, ConfigurationError, InferenceConnection, WaitOutcome
from agent_conn.gateway import Gateway
from agent_conn.integrations.livekit import inference_connection, inference_token

SECRET = "a canary secret that is long enough for HS256"
VARIABLES = ["URL", "API_KEY", "API_SECRET"]


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"LIVEKIT_{name}", raising=False)
        monkeypatch.delenv(f"LIVEKIT_INFERENCE_{name}", raising=False)
    monkeypatch.delenv("LIVEKIT_WORKER_TOKEN", raising=False)


@pytest.fixture
def native() -> Iterator[NativeSide]:
    with NativeSide(hold=True).installed() as side:
        yield side


def test_a_token_is_minted_afresh_with_livekits_claims() -> None:
    mint = inference_token("key", SECRET, ttl=60)
    claims = jwt.decode(mint(), SECRET, algorithms=["HS256"])
    assert claims["iss"] == "key"
    assert claims["sub"] == "agent"
    assert claims["inference"] == {"perform": True}
    assert claims["exp"] - claims["nbf"] == 60
    assert SECRET not in repr(mint)


@pytest.mark.parametrize("prefixes", [["LIVEKIT"], ["LIVEKIT", "LIVEKIT_INFERENCE"]])
def test_credentials_come_from_the_environment_as_livekit_reads_it(
    monkeypatch: pytest.MonkeyPatch, prefixes: list[str]
) -> None:
    for prefix in prefixes:
        monkeypatch.setenv(f"{prefix}_API_KEY", prefix)
        monkeypatch.setenv(f"{prefix}_API_SECRET", SECRET)
    assert jwt.decode(inference_token()(), SECRET, algorithms=["HS256"])["iss"] == prefixes[-1]


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [({"api_secret": SECRET}, "api_key"), ({"api_key": "canary-key"}, "api_secret")],
)
def test_missing_credentials_are_told_with_both_ways_to_give_them(
    arguments: dict[str, Any], missing: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        inference_token(**arguments)
    message = str(refused.value)
    for way in (
        f"{missing}=",
        f"LIVEKIT_INFERENCE_{missing.upper()}",
        f"LIVEKIT_{missing.upper()}",
    ):
        assert way in message
    traceback = refused.tb
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    assert "canary" not in message + repr(traceback.tb_frame.f_locals)


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), "600"])
def test_a_ttl_that_is_no_time_is_refused(ttl: Any) -> None:
    with pytest.raises(ConfigurationError, match="ttl must be"):
        inference_token("key", SECRET, ttl)


async def test_a_connection_waits_for_its_jobs_room_and_sends_what_livekit_would(
    native: NativeSide, gateway: Gateway, session: aiohttp.ClientSession, monkeypatch: Any
) -> None:
    monkeypatch.setenv("LIVEKIT_WORKER_TOKEN", "worker-token")
    room = rtc.Room()
    with job(room) as ctx:
        connection = inference_connection(
            "stt",
            model="a/b",
            session=session,
            connect_wait=None,
            base_url=gateway.base_url,
            inference_class="priority",
            provider="azure",
            headers={"X-Mine": "1"},
            **CREDENTIALS,
        )
        theirs = livekit_headers(inference_class="priority")
    opening = asyncio.create_task(_open(connection))
    await gateway.wait_until(lambda: gateway.accepted == 1)
    connecting = asyncio.create_task(room.connect("ws://unused", "one"))
    await asyncio.sleep(0)
    native.release()
    await opening
    await connection.aclose()
    await connecting
    await room.disconnect()
    (handshake,) = gateway.handshakes
    assert handshake.identity == AgentIdentity("AJ_1", ctx.job.room.sid, "PA_one")
    assert (handshake.path, handshake.model) == ("/v1/stt", "a/b")
    assert connection.record.wait_outcome is WaitOutcome.CONNECTED
    assert connection.record.pre_dialed
    sent = handshake.headers
    del theirs["X-LiveKit-Session-ID"]
    assert theirs.pop("X-LiveKit-Worker-Token") == "worker-token"
    assert {name: sent[name] for name in theirs} == theirs
    assert (sent["X-Mine"], sent["X-LiveKit-Worker-Token"]) == ("1", "<redacted>")


async def test_a_token_is_minted_for_the_dial_that_the_gateway_takes(
    session: aiohttp.ClientSession,
) -> None:
    async with Gateway(api_key="key", api_secret=SECRET) as gateway:
        connection = inference_connection(
            "/tts/",
            model="m",
            session=session,
            base_url=f"{gateway.base_url}/",
            api_key="key",
            api_secret=SECRET,
        )
        async with connection:
            assert gateway.handshakes[0].path == "/v1/tts"
            assert gateway.handshakes[0].identity == AgentIdentity()


async def test_by_default_it_dials_where_livekit_would_on_its_session(
    monkeypatch: pytest.MonkeyPatch, gateway: Gateway
) -> None:
    def dialled() -> str:
        return repr(inference_connection("stt", model="m", **CREDENTIALS))

    async with http_context.open():
        assert "https://agent-gateway.livekit.cloud/v1/stt" in dialled()
        monkeypatch.setenv("LIVEKIT_URL", "wss://project.staging.livekit.cloud")
        assert "https://agent-gateway.staging.livekit.cloud/v1/stt" in dialled()
        monkeypatch.setenv("LIVEKIT_INFERENCE_URL", gateway.base_url)
        async with inference_connection("stt", model="m", **CREDENTIALS):
            assert gateway.handshakes[0].path == "/v1/stt"
    await gateway.wait_idle(2.0)


async def test_a_fake_job_is_not_waited_for(
    native: NativeSide, gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    with fake_job(rtc.Room()):
        connection = inference_connection(
            "stt",
            model="m",
            session=session,
            connect_wait=None,
            base_url=gateway.base_url,
            token="token",
        )
    async with connection:
        assert connection.record.wait_outcome is WaitOutcome.TIMED_OUT
        assert connection.record.waited is not None
        assert connection.record.waited < 0.1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"path": "//"}, "path must be"),
        ({"path": None}, "path must be"),
        ({"model": " "}, "model must be"),
        ({"model": 7}, "model must be"),
        ({"provider": ""}, "provider must be"),
        ({"base_url": "gateway.example"}, "base_url needs a scheme"),
        ({"base_url": ""}, "base_url needs a scheme"),
        ({"ctx": 7}, "ctx must be"),
        ({"session": 7}, "session must be"),
        ({"session": None}, "session must be given outside a job"),
        ({"connect_wait": -1}, "connect_wait must be"),
        (
            {"headers": {"x-livekit-agent-id": "PA_forged"}},
            "headers must not have x-livekit-agent-id",
        ),
        ({"heartbeat": -1}, "heartbeat must be"),
        ({"token": None}, "api_key is missing"),
    ],
)
async def test_a_wrong_argument_is_refused_by_name(
    session: aiohttp.ClientSession, arguments: dict[str, Any], told: str
) -> None:
    given = {"model": "m", "session": session, "token": "token", **arguments}
    path = given.pop("path", "stt")
    with pytest.raises(ConfigurationError, match=told) as refused:
        inference_connection(path, **given)
    assert refused.value.__context__ is None


async def _open(connection: InferenceConnection) -> aiohttp.ClientWebSocketResponse:
    return await connection
