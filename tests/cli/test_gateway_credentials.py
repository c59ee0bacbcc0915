"""What opens the command's gateway, and what a client must trust."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest
from helpers.gateway_process import ended, gateway_process, launch, websocket

from agent_conn.cli.gateway.credentials import DEVELOPER_KEY, DEVELOPER_SECRET
from agent_conn.gateway import mint_token

pytestmark = pytest.mark.timeout(90)
SCRIPTED = ("--engine", "scripted")
TOLD_KEY, TOLD_SECRET = "canary-key", "canary-secret-0123456789abcdef"
TOLD_TOKEN = "canary-token-0123456789"
PUBLISHED = ("--api-key", DEVELOPER_KEY, "--api-secret", DEVELOPER_SECRET)


@pytest.mark.parametrize("own", [False, True], ids=["published pair", "own pair"])
async def test_a_page_whose_name_was_rebound_cannot_use_the_published_pair(own: bool) -> None:
    pair = ("--api-key", TOLD_KEY, "--api-secret", TOLD_SECRET) if own else PUBLISHED
    token = mint_token(pair[1], pair[3])
    async with gateway_process(*SCRIPTED, *(pair if own else ())) as served:
        told = await served.environment(AGENT_CONN_API_KEY="k", AGENT_CONN_API_SECRET="s")
        headers = {"Host": "evil.example", "Authorization": f"Bearer {token}"}
        url = told["LIVEKIT_INFERENCE_URL"] + "/models"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers=headers) as response,
        ):
            assert response.status == (200 if own else 403)


async def test_credentials_of_ones_own_are_named_and_not_repeated() -> None:
    given = {"AGENT_CONN_API_KEY": TOLD_KEY, "AGENT_CONN_API_SECRET": TOLD_SECRET}
    arguments = ("--api-key", TOLD_KEY, "--api-secret", TOLD_SECRET)
    for starting in (
        gateway_process(*SCRIPTED, variables=given),
        gateway_process(*SCRIPTED, *arguments),
    ):
        async with starting as served:
            environment = await served.environment(**given)
            assert environment["LIVEKIT_INFERENCE_API_SECRET"] == TOLD_SECRET
            async with websocket(environment):
                pass
            with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                async with websocket({**environment, "LIVEKIT_INFERENCE_API_SECRET": "other"}):
                    pass
            outcome = await served.stop()
        assert "canary" not in served.exports + outcome.err
        assert "answered 401 NONE  /v1/echo" in outcome.err


async def test_a_shell_without_the_users_secret_is_told_and_exports_nothing_empty() -> None:
    async with gateway_process(
        *SCRIPTED, "--api-key", TOLD_KEY, "--api-secret", TOLD_SECRET
    ) as served:
        shell = await launch("sh", "-c", 'eval "$1"; echo done', "sh", served.exports)
        outcome = await ended(shell)
    assert outcome.status != 0
    assert outcome.out == ""
    assert "AGENT_CONN_API_KEY: set it to what --api-key was" in outcome.err


async def test_a_token_opens_it_and_is_not_repeated() -> None:
    async with gateway_process(*SCRIPTED, variables={"AGENT_CONN_TOKEN": TOLD_TOKEN}) as served:
        environment = await served.environment(AGENT_CONN_TOKEN=TOLD_TOKEN)
        url = environment["LIVEKIT_INFERENCE_URL"] + "/echo"
        headers = {"Authorization": f"Bearer {environment['LIVEKIT_INFERENCE_TOKEN']}"}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, headers=headers) as ws,
        ):
            await ws.send_str("hello")
            assert await ws.receive_str() == "hello"
        outcome = await served.stop()
    assert "canary" not in served.exports + outcome.err
    assert "--api-secret" in outcome.err


async def test_beyond_this_machine_it_says_what_to_mind() -> None:
    # In a network namespace of its own, where nobody else can reach it.
    prefix = ("unshare", "--net", "--map-root-user")
    if (await ended(await launch(*prefix, "true"))).status != 0:
        pytest.skip("this user may make no network namespace")
    arguments = (*SCRIPTED, "--host", "0.0.0.0", "--token", TOLD_TOKEN)
    async with gateway_process(*arguments, prefix=prefix) as served:
        outcome = await served.stop()
    assert outcome.status == 0
    assert "are not encrypted on the network" in outcome.err


async def test_with_tls_the_printed_file_makes_a_client_trust_it(tmp_path: Path) -> None:
    kept = tmp_path / "ca.pem"
    for arguments in ((), ("--ca-file", str(kept))):
        earlier = {"SSL_CERT_FILE": "/nowhere/of-an-earlier-gateway.pem"}
        async with gateway_process(*SCRIPTED, "--tls", *arguments, variables=earlier) as served:
            environment = await served.environment()
            file = Path(environment["SSL_CERT_FILE"])
            certificates = await asyncio.to_thread(file.read_text)
            assert environment["LIVEKIT_INFERENCE_URL"].startswith("https://")
            await _open_with_tls(environment)
            outcome = await served.stop()
        assert certificates.count("BEGIN CERTIFICATE") == 1 + await asyncio.to_thread(_machines_own)
        assert outcome.status == 0
        assert await asyncio.to_thread(file.exists) is bool(arguments)


def _machines_own() -> int:
    paths = ssl.get_default_verify_paths()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for file in (Path(paths.openssl_cafile), *Path(paths.openssl_capath).glob("*.[0-9]")):
        if file.exists():
            context.load_verify_locations(file)
    return len(context.get_ca_certs())


async def _open_with_tls(environment: dict[str, str]) -> None:
    context = ssl.create_default_context(cafile=environment["SSL_CERT_FILE"])
    url = environment["LIVEKIT_INFERENCE_URL"]
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.get(f"{url}/nothing") as response,
    ):
        assert response.status == 404
