"""What the gateway's tests share: gateways that close, and clients whose transport is known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from agent_conn.gateway import Gateway


@dataclass
class Client:
    """An aiohttp session for one gateway; `transports` holds one for each answer it got."""

    session: aiohttp.ClientSession
    gateway: Gateway
    transports: list[asyncio.Transport]
    websockets: list[aiohttp.ClientWebSocketResponse]

    async def open(self, path: str = "/v1/echo", **options: Any) -> aiohttp.ClientWebSocketResponse:
        ws: aiohttp.ClientWebSocketResponse = await self.session.ws_connect(
            self.gateway.url(path), **options
        )
        self.websockets.append(ws)
        return ws

    async def flood(self, ws: aiohttp.ClientWebSocketResponse, seconds: float) -> None:
        """Send until a send blocks past the deadline, which is a TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                await ws.send_bytes(bytes(256 * 1024))

    async def abort(self) -> None:
        for transport in self.transports:
            transport.abort()
        for ws in self.websockets:
            await ws.close()


@contextlib.asynccontextmanager
async def client_of(gateway: Gateway) -> AsyncIterator[Client]:
    transports: list[asyncio.Transport] = []

    async def keep_transport(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        if response.connection is not None and response.connection.transport is not None:
            transports.append(response.connection.transport)
        return response

    connector = aiohttp.TCPConnector(ssl=gateway.client_ssl or True)
    async with aiohttp.ClientSession(connector=connector, middlewares=(keep_transport,)) as session:
        client = Client(session, gateway, transports, [])
        try:
            yield client
        finally:
            await client.abort()


@pytest.fixture
def connect_to() -> Callable[[Gateway], contextlib.AbstractAsyncContextManager[Client]]:
    return client_of


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway() as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[Client]:
    async with client_of(gateway) as opened:
        yield opened


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
async def either_gateway(request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    async with Gateway(tls=request.param) as running:
        yield running


@pytest.fixture
async def either_client(either_gateway: Gateway) -> AsyncIterator[Client]:
    async with client_of(either_gateway) as opened:
        yield opened
