"""Open TCP and TLS to an endpoint before there is anything to send on it."""

from __future__ import annotations

import asyncio
import logging

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from agent_conn._options import Handler, TlsSetting

logger: logging.Logger = logging.getLogger("agent_conn")


class Progress:
    """How far one attempt has come. Times are of the loop's clock, in seconds."""

    def __init__(self) -> None:
        self.dials: int = 0
        self.pre_dial_started: float | None = None
        self.pre_dial_ended: float | None = None
        self.pre_dialed: bool = False
        self.dialed: bool = False
        self.connected: float | None = None
        self.answered: float | None = None


class PreDial:
    """One connection to ``origin``, being dialled or held ready.

    It is held, not parked in the connector's pool, until the request goes out: nobody else
    can take it, ``keepalive_timeout`` does not end it, and giving up closes this one.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        origin: URL,
        *,
        ssl: TlsSetting,
        proxy: URL | None,
        progress: Progress,
    ) -> None:
        self._session = session
        self._progress = progress
        self._connection: Connection | None = None
        self._task = asyncio.create_task(self._dial(origin, ssl, proxy), name="agent_conn.pre_dial")

    async def finish(self) -> None:
        """Wait until the dial has ended, well or not."""
        if not self._task.done():
            await asyncio.wait({self._task})

    def park(self) -> bool:
        """Hand the connection to the connector's pool for a request that follows at once.

        Returns False where there is none, or it has died: then that request dials.
        """
        if self._connection is None:
            return False
        if self._connection.closed:
            # Gives back its slot, which may be the last one and the one to dial in.
            self._connection.close()
            return False
        self._connection.release()
        return True

    async def discard(self) -> None:
        """Close what was not handed over. Safe to call at any time."""
        self._task.cancel()
        try:
            await self.finish()
        finally:
            self._close()

    async def _dial(self, origin: URL, ssl: TlsSetting, proxy: URL | None) -> None:
        progress, time = self._progress, asyncio.get_running_loop().time

        # A middleware is the public way to a request, which the connector asks for. No method:
        # mocks deep-copy what a request is given, and with a method all that it belongs to.
        async def connect(request: aiohttp.ClientRequest, _: Handler) -> aiohttp.ClientResponse:
            connector = request.session.connector
            assert connector is not None
            self._connection = await connector.connect(request, [], request.session.timeout)
            raise _Connected

        progress.dials += 1
        progress.pre_dial_started = time()
        try:
            await self._session.get(origin, ssl=ssl, proxy=proxy, middlewares=(connect,))
        except _Connected:
            pass
        except Exception as error:
            logger.debug("pre_dial_failed", extra={"error": type(error).__name__})
        finally:
            progress.pre_dial_ended = time()

    def _close(self) -> None:
        if self._connection is None:
            return
        if self._connection.transport is not None:
            # Not left to close(): that would wait 30 s for a TLS peer's close_notify.
            self._connection.transport.abort()
        self._connection.close()


class _Connected(Exception):
    """Ends a request that was only made to connect, before anything is sent."""
