"""Whether a pooled connection is alive: it is read while idle, looked at, and kept alive."""

from __future__ import annotations

import asyncio
import contextvars
import select
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from agent_conn._checks import told
from agent_conn._connection import InferenceConnection
from agent_conn._options import check_seconds
from agent_conn.errors import ConfigurationError

LOOKS = 8
"""Turns of the event loop after which a peer that goes on sending is taken to be alive."""

_DATA = frozenset({aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY})
_GONE = 0
if hasattr(select, "poll"):
    _GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """What to send after a silence. Providers close sessions without a message for 8 to 30 s.

    Raises:
        ConfigurationError: a value is wrong; the message names it.
    """

    message: str | bytes = field(repr=False)
    """Sent as a text or a binary message; pings do not count for providers."""
    every: float = 5.0
    """Seconds without a message to the peer. Choose half of what the provider waits, or less."""

    def __post_init__(self) -> None:
        message: object = self.message
        if not isinstance(message, str | bytes):
            raise ConfigurationError(f"message must be str or bytes, got {told(message)}")
        check_seconds("every", self.every)


class PooledConnection:
    """An open connection of a pool: read while idle, so that pings are answered.

    What comes meanwhile answers nobody's question: ``on_message`` is called, and it is
    dropped. ``on_end`` is called where it ends while it is read here.
    """

    def __init__(
        self,
        connection: InferenceConnection,
        keepalive: Keepalive | None,
        *,
        on_message: Callable[[], object],
        on_end: Callable[[], object],
    ) -> None:
        self.connection: InferenceConnection = connection
        self.ws: aiohttp.ClientWebSocketResponse = connection.ws
        self._on_message = on_message
        self._on_end = on_end
        self._reader: asyncio.Task[None] | None = None
        self._keepalive: asyncio.Task[None] | None = None
        if keepalive is not None:
            self._keepalive = asyncio.create_task(
                _keep_alive(self.ws, keepalive),
                name="agent_conn.pool.keepalive",
                context=contextvars.Context(),
            )
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
        await _stop(reader)
        self._reader = None
        return reader.cancelled() and not self.is_over()

    def is_over(self) -> bool:
        """Whether it is closed, or about to be."""
        return self.ws.closed or self.connection.is_closing()

    async def aclose(self) -> None:
        """End the tasks here, then close the connection within its ``close_timeout``."""
        try:
            await _stop(self._reader)
            await _stop(self._keepalive)
        finally:
            await self.connection.aclose()

    async def _read(self) -> None:
        while (await self.ws.receive()).type in _DATA:
            self._on_message()

    def _note_end(self, reader: asyncio.Task[None]) -> None:
        if not reader.cancelled():
            # It is aiohttp's RuntimeError, where its last borrower still reads it.
            reader.exception()
            self._on_end()


async def _stop(task: asyncio.Task[None] | None) -> None:
    # A receive() that is cancelled loses no message.
    while task is not None and not task.done():
        if not task.cancelling():
            task.cancel()
        await asyncio.sleep(0)


async def _keep_alive(ws: aiohttp.ClientWebSocketResponse, keepalive: Keepalive) -> None:
    """Send ``keepalive.message`` whenever it is due, until the websocket ends."""
    time, message = asyncio.get_running_loop().time, keepalive.message
    sent = time()
    while not ws.closed:
        # Without ``last_sent`` it is sent as often as if nobody else sent anything.
        due = max(sent, getattr(ws, "last_sent", None) or sent) + keepalive.every
        if due > time():
            await asyncio.sleep(due - time())
            continue
        sent = time()
        try:
            await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
        except (OSError, aiohttp.ClientError):
            # Whoever reads the websocket is told of its end.
            return
