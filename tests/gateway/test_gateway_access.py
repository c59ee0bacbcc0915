from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
import pytest

from agent_conn._identity import AttributionLevel, HeaderNames
from agent_conn.errors import ConfigurationError, StateError
from agent_conn.gateway import CloseWith, Gateway, InvalidToken, mint_token, verify_token

if TYPE_CHECKING:
    from gateway.conftest import Client

pytestmark = pytest.mark.timeout(10)
SECRET = "s" * 32


async def status_with(gateway: Gateway, authorization: str | None) -> int:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with aiohttp.ClientSession() as session:
        try:
            async with session.ws_connect(gateway.url("/v1/stt"), headers=headers):
                return 101
        except aiohttp.WSServerHandshakeError as refused:
            return refused.status


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer open", 101),
        ("bearer open", 101),
        ("Bearer shut", 401),
        ("Bearer ü", 401),
        ("Basic open", 401),
        ("open", 401),
        (None, 401),
    ],
)
async def test_a_static_token_opens(authorization: str | None, status: int) -> None:
    async with Gateway(token="open") as gateway:
        assert await status_with(gateway, authorization) == status
        assert gateway.handshakes[0].status == status


async def test_without_a_token_anyone_may_enter(gateway: Gateway) -> None:
    assert await status_with(gateway, None) == 101
    assert await status_with(gateway, "Bearer anything") == 101


async def test_an_inference_token_opens_and_anothers_does_not() -> None:
    async with Gateway(api_key="key", api_secret=SECRET) as gateway:
        assert await status_with(gateway, f"Bearer {mint_token('key', SECRET)}") == 101
        assert await status_with(gateway, f"Bearer {mint_token('key', 't' * 32)}") == 401
        assert await status_with(gateway, f"Bearer {mint_token('other', SECRET)}") == 401
        assert await status_with(gateway, None) == 401


def test_a_clock_may_differ_by_a_minute() -> None:
    verify_token(mint_token("key", SECRET, ttl=-50), "key", SECRET)
    early = {
        "iss": "key",
        "nbf": int(time.time()) + 50,
        "exp": int(time.time()) + 600,
        "inference": {"perform": True},
    }
    verify_token(jwt.encode(early, SECRET, algorithm="HS256"), "key", SECRET)
    early["nbf"] = int(time.time()) + 70
    with pytest.raises(InvalidToken, match="it is not valid yet"):
        verify_token(jwt.encode(early, SECRET, algorithm="HS256"), "key", SECRET)


def test_an_expired_token_is_refused_without_quoting_it() -> None:
    token = mint_token("key", SECRET, ttl=-70)
    with pytest.raises(InvalidToken, match="it has expired") as refused:
        verify_token(token, "key", SECRET)
    assert token not in repr(refused.value)
    assert refused.value.__cause__ is None


def test_a_short_secret_is_its_issuers_choice_and_warns_nobody() -> None:
    verify_token(mint_token("devkey", "secret"), "devkey", "secret")
    with pytest.raises(InvalidToken):
        verify_token(mint_token("devkey", "secret"), "devkey", "another")


def test_a_token_without_the_inference_grant_is_refused() -> None:
    claims = {"iss": "key", "exp": int(time.time()) + 60, "inference": {"perform": "true"}}
    with pytest.raises(InvalidToken, match="grant"):
        verify_token(jwt.encode(claims, SECRET, algorithm="HS256"), "key", SECRET)


def test_a_token_without_expiry_is_refused() -> None:
    claims = {"iss": "key", "inference": {"perform": True}}
    with pytest.raises(InvalidToken):
        verify_token(jwt.encode(claims, SECRET, algorithm="HS256"), "key", SECRET)


async def test_a_refusal_has_a_json_body() -> None:
    async with (
        Gateway(token="open") as gateway,
        aiohttp.ClientSession() as session,
        session.get(gateway.base_url + "/stt") as response,
    ):
        assert response.status == 401
        assert (await response.json())["type"] == "error"


async def test_a_plain_request_and_an_unknown_path_are_refused(client: Client) -> None:
    async with client.session.get(client.gateway.base_url + "/stt") as response:
        assert response.status == 426
    async with client.session.get(client.gateway.base_url + "/llm") as response:
        assert response.status == 404
    assert [handshake.status for handshake in client.gateway.handshakes] == [426, 404]


async def test_a_handshake_is_recorded_without_credentials(
    either_gateway: Gateway, either_client: Client
) -> None:
    headers = {
        "Authorization": "Bearer tell-no-one",
        "Cookie": "id=tell-no-one",
        "X-LiveKit-Job-ID": "AJ_1",
        "X-LiveKit-Room-ID": "RM_1",
        "X-LiveKit-Agent-ID": "PA_1",
        "X-LiveKit-Session-ID": "S_1",
    }
    ws = await either_client.open("/v1/stt?model=auto&key=tell-no-one", headers=headers)
    await ws.close()
    (handshake,) = either_gateway.handshakes
    assert handshake.path == "/v1/stt"
    assert handshake.model == "auto"
    assert handshake.level is AttributionLevel.AGENT
    assert handshake.identity.room_id == "RM_1"
    assert handshake.session_id == "S_1"
    assert handshake.status == 101
    assert handshake.secured_at is not None
    assert handshake.answered_at is not None
    assert (
        handshake.accepted_at
        <= handshake.secured_at
        <= handshake.request_at
        <= handshake.answered_at
    )
    assert handshake.headers["Authorization"] == handshake.headers["Cookie"] == "<redacted>"
    assert "tell-no-one" not in repr(handshake)


async def test_headers_are_found_in_any_case_and_each_of_those_that_are_repeated() -> None:
    sent = [("LOCATION", ""), ("X-Hop", "1 "), ("X-Hop", "2"), ("COOKIE", "id=tell-no-one")]
    async with (
        Gateway(shown_headers=["Location", "x-hop"]) as gateway,
        aiohttp.ClientSession() as session,
        session.ws_connect(gateway.url("/v1/echo"), headers=sent),
    ):
        headers = gateway.handshakes[0].headers
    assert headers["LOCATION"] == headers["location"] == ""
    assert headers.getall("x-hop") == ["1", "2"]
    assert headers["cookie"] == "<redacted>"


async def test_no_credential_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Gateway(api_key="key", api_secret=SECRET) as gateway:
        token = mint_token("key", SECRET)
        assert await status_with(gateway, f"Bearer {token}") == 101
        assert await status_with(gateway, f"Bearer {token[:-2]}") == 401
    logged = " ".join(str(vars(record)) for record in caplog.records)
    assert "gateway.started: 127.0.0.1" in logged
    assert token[:-2] not in logged
    assert SECRET not in logged


async def test_other_header_names_carry_the_identity() -> None:
    names = HeaderNames(job_id="X-Job", session_id="X-Session")
    async with Gateway(header_names=names) as gateway, aiohttp.ClientSession() as session:
        headers = {"x-job": "j", "x-session": "s"}
        async with session.ws_connect(gateway.url("/v1/echo"), headers=headers):
            (connection,) = gateway.connections
            assert connection.level is AttributionLevel.JOB
            assert connection.handshake.session_id == "s"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"api_key": "key"}, "api_key"),
        ({"token": "t", "api_key": "key", "api_secret": SECRET}, "token"),
        ({"port": -1}, "port must be a whole number of at least 0 and at most 65535, got -1"),
        ({"port": 65_536}, "port must be .* got 65536"),
        ({"port": True}, "port must be .* got True"),
        ({"heartbeat": 0}, "heartbeat"),
        ({"max_msg_size": 0}, "max_msg_size must be a whole number of at least 1, got 0"),
        ({"keep_handshakes": "2"}, "keep_handshakes must be .* got str"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Gateway(**arguments)


def test_a_token_is_not_minted_without_a_secret() -> None:
    with pytest.raises(ConfigurationError, match="api_secret"):
        mint_token("key", "")


async def test_a_gateway_is_started_once(gateway: Gateway) -> None:
    with pytest.raises(StateError):
        await gateway.start()
    assert gateway.url() == f"ws://127.0.0.1:{gateway.port}/v1/stt"


async def test_a_port_in_use_leaves_nothing_behind(gateway: Gateway) -> None:
    second = Gateway(port=gateway.port)
    with pytest.raises(OSError, match="in use"):
        await second.start()
    await second.aclose()
    assert second.accepted == 0


def test_an_unstarted_gateway_has_no_port() -> None:
    with pytest.raises(StateError, match="must be started first"):
        _ = Gateway().port


async def test_a_token_of_other_bytes_than_text_is_refused() -> None:
    async with Gateway(api_key="key", api_secret=SECRET) as gateway:
        assert await status_with(gateway, "Bearer \udcff") == 401


async def test_a_header_that_cannot_be_read_is_not_repeated_in_a_log(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    with caplog.at_level(logging.DEBUG):
        writer.write(b"GET /v1/stt HTTP/1.1\r\nAuthorization: Bearer secret\0\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
    writer.close()
    assert "gateway.bad_request: BadHttpMessage" in caplog.messages
    assert "secret" not in caplog.text


async def test_only_the_last_handshakes_are_kept_when_told_so() -> None:
    async with Gateway(keep_handshakes=2) as gateway:
        for path in ("one", "two", "three"):
            async with aiohttp.ClientSession() as session:
                await session.get(f"{gateway.base_url}/{path}")
        assert [handshake.path for handshake in gateway.handshakes] == ["/v1/two", "/v1/three"]
    with pytest.raises(ConfigurationError, match="keep_handshakes"):
        Gateway(keep_handshakes=-1)


async def test_a_path_with_a_line_break_is_recorded_as_any_other(gateway: Gateway) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.base_url}/a%0Ab") as response,
    ):
        assert response.status == 404
    assert [handshake.path for handshake in gateway.handshakes] == ["/v1/a\nb"]


async def test_a_gateway_says_where_it_is_and_whether_it_runs() -> None:
    gateway = Gateway()
    assert repr(gateway) == "<Gateway, not started>"
    async with gateway:
        where = gateway.base_url
        assert repr(gateway) == f"<Gateway {where}, 0 open>"
        injection = gateway.inject(CloseWith(1011), times=None)
        assert repr(injection).endswith(", 0 struck, any number to go>")
    assert repr(gateway) == f"<Gateway {where}, closed>"
