"""The limits that providers have: idle timeouts, session limits and concurrency limits."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import aiohttp
import pytest

from agent_conn.gateway import ConcurrencyLimit, Fault, IdleTimeout, SessionLimit

if TYPE_CHECKING:
    from gateway.conftest import Client

pytestmark = pytest.mark.timeout(20)
SHORT = 0.15


async def talk_until_closed(ws: aiohttp.ClientWebSocketResponse, interval: float) -> float:
    """Say a word every `interval` seconds until a Close comes; return how long that took."""
    clock = asyncio.get_running_loop().time
    started = clock()
    while True:
        await ws.send_str("word")
        with contextlib.suppress(TimeoutError):
            # The Close may come in the place of an answer.
            while (message := await ws.receive(interval)).type is aiohttp.WSMsgType.TEXT:
                assert message.data == "word"
            assert message.type is aiohttp.WSMsgType.CLOSE
            return clock() - started


async def test_an_idle_timeout_closes_a_session_that_is_silent_for_its_time(
    either_client: Client,
) -> None:
    gateway = either_client.gateway
    gateway.inject(IdleTimeout(SHORT, code=4408, reason="no audio"))
    ws = await either_client.open()
    started = asyncio.get_running_loop().time()
    message = await ws.receive(5)
    assert asyncio.get_running_loop().time() - started >= SHORT - 0.02
    assert (message.type, message.data, message.extra) == (
        aiohttp.WSMsgType.CLOSE,
        4408,
        "no audio",
    )
    await gateway.wait_idle(2)


async def test_an_idle_timeout_spares_a_session_that_talks(either_client: Client) -> None:
    gateway = either_client.gateway
    gateway.inject(IdleTimeout(1.0))
    ws = await either_client.open()
    clock = asyncio.get_running_loop().time
    until = clock() + 1.5
    while clock() < until:
        await ws.send_str("word")
        assert (await ws.receive(2)).data == "word"
        with pytest.raises(TimeoutError):
            await ws.receive(0.1)
    assert (await ws.receive(5)).data == 1011


async def test_a_session_limit_closes_a_session_however_busy_it_is(either_client: Client) -> None:
    gateway = either_client.gateway
    gateway.inject(SessionLimit(2 * SHORT))
    ws = await either_client.open()
    assert await talk_until_closed(ws, SHORT / 10) >= 2 * SHORT - 0.02
    assert ws.close_code == 1001
    await gateway.wait_idle(2)


@pytest.mark.parametrize("fault", [IdleTimeout(SHORT), SessionLimit(SHORT)], ids=repr)
async def test_a_limit_can_be_put_on_a_live_connection(client: Client, fault: Fault) -> None:
    ws = await client.open()
    (connection,) = client.gateway.connections
    connection.inject(fault)
    assert (await ws.receive(5)).type is aiohttp.WSMsgType.CLOSE


async def test_a_concurrency_limit_refuses_what_is_too_many_and_nothing_else(
    client: Client,
) -> None:
    gateway = client.gateway
    limit = gateway.inject(ConcurrencyLimit(2), times=None)
    first, second = await client.open("/v1/stt"), await client.open("/v1/tts")
    async with client.session.get(gateway.base_url + "/stt") as response:
        assert response.status == 429
        quota = await response.json()
    assert (quota["type"], quota["category"], quota["remaining_limit"]) == (
        "inference_quota_exceeded",
        "MaxConcurrentGatewaySTT",
        "0",
    )
    assert limit.struck == 1
    await first.close()
    await gateway.wait_until(lambda: len(gateway.connections) == 1)
    third = await client.open("/v1/stt")
    assert limit.struck == 1
    assert not second.closed
    assert not third.closed
