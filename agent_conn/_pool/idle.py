"""An idle connection: read, so that pings are answered and its end is noticed; looked at."""

from __future__ import annotations

import asyncio
import contextvars
import select
from collections.abc import Callable

import aiohttp

from agent_conn._connection import InferenceConnection

LOOKS = 8
"""Turns of the event loop after which a peer that goes on sending is taken to be alive."""

_DATA = frozenset({aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY})
_GONE = 0
if hasattr(select, "poll"):
    _GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)


class IdleConnection:
    """An open connection, read by a task while nobody borrows it.

    What comes meanwhile answers nobody's question: ``on_message`` is called, and it is
    dropped. ``on_end`` is called where it ends while it is read here.
    """

    def __init__(
        self,
        connection: InferenceConnection,
        *,
        on_message: Callable[[], object],
        on_end: Callable[[], object],
    ) -> None:
        self.connection: InferenceConnection = connection
        self.ws: aiohttp.ClientWebSocketResponse = connection.ws
        self._on_message = on_message
        self._on_end = on_end
        self._reader: asyncio.Task[None] | None = None
        self._poll: select.poll | None = None
        sock = self.ws.get_extra_info("socket")
        if _GONE and sock is not None and sock.fileno() >= 0:
            self._poll = select.poll()
            self._poll.register(sock, select.POLLIN | _GONE)

    def read(self) -> asyncio.Task[None]:
        """Read from now on, until somebody asks ``is_alive``."""
        if self._reader is None:
            self._reader = asyncio.create_task(
                self._read(), name="agent_conn.pool.read", context=contextvars.Context()
            )
            self._reader.add_done_callback(self._note_end)
        return self._reader

    async def is_alive(self) -> bool:
        """Whether it is open, for all that has reached this machine. Reads no more then."""
        reader = self.read()
        for _ in range(LOOKS):
            arrived = self._poll.poll(0) if self._poll is not None and not self.is_over() else []
            # What the event loop had taken in before, the reader comes to in this turn.
            await asyncio.sleep(0)
            if reader.done() or any(events & _GONE for _, events in arrived):
                return False
            if not arrived:
                break
        await self._stop()
        self._reader = None
        return reader.cancelled() and not self.is_over()

    def is_over(self) -> bool:
        """Whether it is closed, or about to be."""
        return self.ws.closed or self.connection.is_closing()

    async def aclose(self) -> None:
        """End the reading, then close the connection within its ``close_timeout``."""
        try:
            await self._stop()
        finally:
            await self.connection.aclose()

    async def _stop(self) -> None:
        # A receive() that is cancelled loses no message.
        while self._reader is not None and not self._reader.done():
            if not self._reader.cancelling():
                self._reader.cancel()
            await asyncio.sleep(0)

    async def _read(self) -> None:
        while (await self.ws.receive()).type in _DATA:
            self._on_message()

    def _note_end(self, reader: asyncio.Task[None]) -> None:
        if not reader.cancelled():
            # It is aiohttp's RuntimeError, where its last borrower still reads it.
            reader.exception()
            self._on_end()
