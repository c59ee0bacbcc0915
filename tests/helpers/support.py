"""What several tests need: a line to a local gateway, and a room to wait for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import aiohttp
import pytest

from agent_conn import AgentIdentity, InferenceConnection
from agent_conn.gateway import Gateway

SHOWN = ("X-Mine", "X-Session")
"""Headers of the tests' own, which a gateway shows by value."""


@dataclass
class Room:
    """A room as LiveKit's: the agent's id cannot be read before it is connected."""

    connected: asyncio.Event = field(default_factory=asyncio.Event)

    def agent_sid(self) -> str:
        if not self.connected.is_set():
            raise Exception("cannot access local participant before connecting")  # noqa: TRY002
        return "PA_1"

    def identity(self) -> AgentIdentity:
        return AgentIdentity.best_effort(
            job_id="AJ_1", room_id=lambda: "RM_1", agent_id=self.agent_sid
        )


@dataclass
class Line:
    """A gateway, a session to reach it, a room to wait for, and what was dialled."""

    gateway: Gateway
    session: aiohttp.ClientSession
    room: Room = field(default_factory=Room)
    made: list[InferenceConnection] = field(default_factory=list)

    def dial(self, path: str = "/v1/echo", **options: Any) -> InferenceConnection:
        connection = InferenceConnection(self.session, self.gateway.url(path), **options)
        self.made.append(connection)
        return connection

    async def assert_nothing_left(self) -> None:
        """No socket at the gateway, and a slot of the connector's is free."""
        await self.gateway.wait_idle(2.0)
        self.gateway.withdraw_faults()
        async with self.dial() as ws:
            await ws.send_str("still usable")
            assert (await ws.receive_str()) == "still usable"
        await self.gateway.wait_idle(2.0)


L = TypeVar("L", bound=Line)


@asynccontextmanager
async def line_of(kind: type[L], *, limit: int = 0, **options: Any) -> AsyncIterator[L]:
    """A line of this class: to a gateway made with ``options``, in ``limit`` sockets; 0: any."""
    async with Gateway(**options) as gateway:
        connector = aiohttp.TCPConnector(limit=limit, ssl=gateway.client_ssl or True)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield kind(gateway, session)


@asynccontextmanager
async def open_line(*, tls: bool, **options: Any) -> AsyncIterator[Line]:
    """A line of one socket to a gateway made with ``options``; on leaving, nothing may be left."""
    async with line_of(Line, limit=1, tls=tls, shown_headers=SHOWN, **options) as line:
        yield line
        await line.assert_nothing_left()


class Stopwatch:
    """Measures a stretch of time, less what the machine itself was late by.

    A bound holds for the code; a ticker beside it tells how late this loop ran anything.
    """

    INTERVAL = 0.01

    def __init__(self) -> None:
        self.elapsed = 0.0

    async def __aenter__(self) -> Self:
        self._late = 0.0
        self._started = asyncio.get_running_loop().time()
        self._due = self._started + self.INTERVAL
        self._ticker = asyncio.create_task(self._tick(), name="ticker")
        return self

    async def __aexit__(self, *_: object) -> None:
        now = asyncio.get_running_loop().time()
        # The tick under way may be late too: the loop can come to this before it comes to that.
        self.elapsed = now - self._started - max(self._late, now - self._due)
        self._ticker.cancel()
        await asyncio.wait({self._ticker})

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._due = loop.time() + self.INTERVAL
            await asyncio.sleep(self.INTERVAL)
            self._late = max(self._late, loop.time() - self._due)


def own_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the client's side logged, in order, without the gateway's own lines."""
    return [record for record in caplog.records if record.name == "agent_conn"]


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The names of the events that the client's side logged, in order."""
    return [record.getMessage().partition(":")[0] for record in own_records(caplog)]
