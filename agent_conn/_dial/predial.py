"""The TCP and TLS connection of one request, opened before there is anything to send on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp.connector import Connection
from multidict import CIMultiDict

from agent_conn._dial.network import Link, hung_up, watch_network
from agent_conn._log import log
from agent_conn._record import RecordBuilder

Hold = Callable[["PreDial | None"], Awaitable[None]]
"""Awaited with the pre-dial of a spare, or None where it can have none, before its request."""
NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
"""What bounds a dial is ``open_timeout``, and the wait for what runs beside it."""


class PreDial:
    """One connection for ``request``, dialled through its session's connector and held.

    It is held, not parked in the connector's pool, until the request goes out: nobody else
    can take it, ``keepalive_timeout`` does not end it, and giving up closes this one.

    Args:
        request: what the connection is for, proxy and TLS settings included.
        record: counts each dial.
        network_timeout: seconds after which the kernel gives a dead network up, or None.
    """

    def __init__(
        self,
        request: aiohttp.ClientRequest,
        record: RecordBuilder,
        network_timeout: float | None = None,
    ) -> None:
        self.link: Link | None = None
        """What is beneath the connection, once there is one."""
        self.events: ConnectEvents = ConnectEvents(record)
        self.handed_over: bool = False
        """Whether the connection is the request's."""
        self._request = request
        self._record = record
        self._network_timeout = network_timeout
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        if request.proxy_headers is not None:
            # aiohttp adds it as it connects, and then no longer knows the connection by its key.
            host = {"Host": request.headers["Host"]}
            request.proxy_headers = CIMultiDict({**request.proxy_headers, **host})

    def start(self) -> None:
        """Begin to dial, in a task of its own."""
        self._record.pre_dial_started_at = self._now()
        self._task = asyncio.create_task(self._dial_ahead(), name="agent_conn.pre_dial")

    async def finish(self) -> None:
        """Wait until the dial that was begun has ended, well or not."""
        # asyncio.wait() takes a turn for a task that is done too.
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    def is_ready(self) -> bool:
        """Whether there is a connection that its peer has not ended."""
        if self._connection is None or self.link is None:
            return False
        if hung_up(self.link.transport):
            self._close()
            return False
        return True

    async def connect(self) -> None:
        """Dial, or take what the connector has idle.

        Raises:
            Exception: aiohttp's own, where that failed.
        """
        connector = self._request.session.connector
        assert connector is not None
        dialed = False
        while not dialed and not self.is_ready():
            before = self._record.dials
            try:
                self._connection = await connector.connect(
                    self._request,
                    [self.events],  # type: ignore[list-item]
                    NO_TIMEOUT,
                )
            except Exception:
                self._forget_address(connector)
                raise
            dialed = self._record.dials > before
            assert self._connection.transport is not None
            self.link = Link(self._connection.transport)
        if self.link is not None and self._network_timeout is not None:
            watch_network(self.link.transport, self._network_timeout)

    def hand_over(self) -> None:
        """Give the connection to the request that follows at once, without an await between."""
        if self._connection is not None:
            self._connection.release()
            self._connection = None
            self.handed_over = True

    async def discard(self) -> None:
        """Close what was not handed over. Safe to call at any time."""
        if self._task is not None:
            self._task.cancel()
        try:
            await self.finish()
        finally:
            self._close()

    async def _dial_ahead(self) -> None:
        try:
            await self.connect()
        except Exception as error:
            log(logging.DEBUG, "pre_dial_failed", error=type(error).__name__)
        finally:
            self._record.pre_dial_ended_at = self._now()

    def _forget_address(self, connector: aiohttp.BaseConnector) -> None:
        """Have the next dial ask DNS again: the address may be that of a host that is gone."""
        url = self._request.proxy or self._request.url
        if isinstance(connector, aiohttp.TCPConnector) and url.raw_host and url.port:
            connector.clear_dns_cache(url.raw_host, url.port)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            if self.link is not None:
                self.link.shut_down()
            connection.close()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class ConnectEvents:
    """What aiohttp's connector tells of one connect, as it tells the traces of a session."""

    def __init__(self, record: RecordBuilder) -> None:
        self.queued: bool = False
        """Whether it waits for one of the connector's connections to become free."""
        self._record = record

    async def send_connection_queued_start(self) -> None:
        """All connections that the connector may have are taken."""
        self.queued = True

    async def send_connection_queued_end(self) -> None:
        """One has become free."""
        self.queued = False

    async def send_connection_create_start(self) -> None:
        """A dial begins."""
        self._record.dials += 1

    async def send_connection_create_end(self) -> None:
        """It ended well."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[None]]:
        """The other events, which are not needed."""
        if not name.startswith("send_"):
            raise AttributeError(name)
        return _ignore


async def _ignore(*_: object) -> None:
    return
