"""Two gateways, a session that reaches both, and ``Endpoints`` of the two."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from agent_conn import AgentConnError, Endpoints, InferenceConnection
from agent_conn.gateway import Gateway
from helpers.canary import QUERY

SLOTS = 2
"""Connections that the session's connector may have: one to each gateway."""


@dataclass
class Pair:
    """Two gateways, the near one preferred."""

    near: Gateway
    far: Gateway
    session: aiohttp.ClientSession
    endpoints: Endpoints = field(init=False)

    def __post_init__(self) -> None:
        self.endpoints = self.make_endpoints()

    def make_endpoints(self, path: str = "/v1/echo") -> Endpoints:
        """Endpoints about which nothing is known yet."""
        return Endpoints([f"{one.url(path)}?key={QUERY}" for one in (self.near, self.far)])

    def dial(self, **options: Any) -> InferenceConnection:
        return InferenceConnection(self.session, self.endpoints, **options)

    async def idle(self) -> None:
        """Wait until neither gateway has a socket."""
        await self.near.wait_idle(2.0)
        await self.far.wait_idle(2.0)

    async def assert_nothing_left(self) -> None:
        """No task, no socket at either gateway, and every slot of the connector is free."""
        assert {task.get_name() for task in asyncio.all_tasks()} & {
            "agent_conn.endpoint",
            "agent_conn.prepare",
            "agent_conn.pre_dial",
        } == set()
        self.near.withdraw_faults()
        self.far.withdraw_faults()
        await self.idle()
        async with asyncio.timeout(2.0):
            for gateway in (self.near, self.far):
                async with InferenceConnection(self.session, gateway.url("/v1/echo")) as ws:
                    await ws.send_str("still usable")
                    assert (await ws.receive_str()) == "still usable"
        await self.idle()


@asynccontextmanager
async def open_pair(*, tls: bool, **options: Any) -> AsyncIterator[Pair]:
    """A pair with a connector made with ``options``; on leaving, nothing may be left."""
    async with Gateway(tls=tls) as near, Gateway(tls=tls) as far:
        context = trusting(near, far) if tls else True
        connector = aiohttp.TCPConnector(ssl=context, **{"limit": SLOTS, **options})
        async with aiohttp.ClientSession(connector=connector) as session:
            pair = Pair(near, far, session)
            yield pair
            await pair.assert_nothing_left()


def trusting(*gateways: Gateway) -> ssl.SSLContext:
    """A context that trusts the authority of each."""
    context = ssl.create_default_context()
    for gateway in gateways:
        assert gateway.client_ssl is not None
        for der in gateway.client_ssl.get_ca_certs(binary_form=True):
            context.load_verify_locations(cadata=der)
    return context


async def echoed(connection: InferenceConnection) -> str:
    """Open it, use it, close it. Returns the endpoint that served."""
    async with connection as ws:
        await ws.send_str("?")
        assert await ws.receive_str() == "?"
        assert connection.record.endpoint == str(connection.url)
    assert connection.record.endpoint is not None
    return connection.record.endpoint


async def failed(connection: InferenceConnection) -> AgentConnError:
    with pytest.raises(AgentConnError) as failing:
        await connection
    return failing.value
