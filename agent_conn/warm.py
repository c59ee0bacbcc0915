"""One open connection of a pool: read while it is idle, and looked at before it is lent."""

from __future__ import annotations

import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable

import aiohttp

from agent_conn.connection import InferenceConnection

EARLY_LIMIT = 16
"""Messages taken from an idle connection. One with more to say than that is closed."""
LOOKS = 4
"""Times that a peer which goes on sending is looked at before it is taken to be alive."""

_TCP = socket.IPPROTO_TCP
_TCP_INFO: int = getattr(socket, "TCP_INFO", 0)
# struct tcp_info of Linux 4.1: the state is the first byte, tcpi_bytes_received ends at 136.
_INFO_SIZE = 136
_ESTABLISHED = 1
_DATA = frozenset({aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY})


class WarmConnection:
    """An open connection, whose life can be told without a round trip.

    Args:
        connection: open.
        on_end: called where it ends, or has said too much, while it is read here.
    """

    __slots__ = (
        "_can_tell",
        "_heard_before",
        "_on_end",
        "_options",
        "_poll",
        "_reader",
        "checked_in",
        "connection",
        "early",
        "ws",
    )

    def __init__(self, connection: InferenceConnection, on_end: Callable[[], object]) -> None:
        self.connection: InferenceConnection = connection
        self.ws: aiohttp.ClientWebSocketResponse = connection.ws
        self.early: deque[aiohttp.WSMessage] = deque()
        """What came while nobody had borrowed the connection."""
        self._on_end = on_end
        self._reader: asyncio.Task[None] | None = None
        self.checked_in: int = -1
        """The turn in which ``unchanged`` was last true, for its owner to keep."""
        self._options: Callable[[int, int, int], bytes] | None = None
        self._poll: Callable[[int], object] = _always
        sock = self.ws.get_extra_info("socket")
        if sock is not None and _TCP_INFO:
            self._options = sock.getsockopt
            poller = select.poll()
            poller.register(sock.fileno(), select.POLLIN)
            self._poll = poller.poll
        self._heard_before: bytes | None = None
        """Its mark when it was last found alive; None since it is read here."""
        self._can_tell = self._heard() != b""

    def unchanged(self) -> bool:
        """Whether nothing at all has come since it was last found alive. Costs a microsecond.

        False says only that ``is_alive`` has to look.
        """
        known = self._heard_before
        if known is None or self._options is None or self.ws.closed:
            return False
        try:
            # As _heard(), written out: this line is most of the cost of a hit.
            info = self._options(_TCP, _TCP_INFO, _INFO_SIZE)
        except OSError:
            return False
        return info[128:] == known and info[0] == _ESTABLISHED

    def is_quiet(self) -> bool:
        """Whether nothing waits to be read. Cheaper than ``unchanged``.

        It tells as much in the turn of the event loop in which that was true, since the loop
        itself has read nothing in between.
        """
        return not self._poll(0) and not self.ws.closed

    async def is_alive(self) -> bool:
        """Whether it is open, for all that has reached this machine. Nothing reads it after.

        Takes a few turns of the event loop, in which data, pings and Close frames that have
        come are read.
        """
        for _look in range(LOOKS):
            before = self._heard()
            self.park()
            # In the first turn the loop reads the socket, in the second the reader runs, in the
            # third it is this task's turn again.
            for _ in range(3):
                await asyncio.sleep(0)
            if not await self._unpark() or self._heard() is None:
                return False
            if before == self._heard():
                self._heard_before = before if self._can_tell else None
                break
        return True

    def park(self) -> None:
        """Read until somebody borrows it. Does nothing where it is being read."""
        if self._reader is None or self._reader.cancelled():
            self._heard_before = None
            self._reader = asyncio.create_task(self._read(), name="agent_conn.pool.idle")
            self._reader.add_done_callback(self._note_end)

    async def aclose(self) -> None:
        """End the reading, then close the connection within its ``close_timeout``."""
        try:
            if self._reader is not None:
                await self._unpark()
        finally:
            await self.connection.aclose()

    async def _read(self) -> None:
        while len(self.early) < EARLY_LIMIT:
            message = await self.ws.receive()
            if message.type not in _DATA:
                return
            self.early.append(message)

    async def _unpark(self) -> bool:
        """End the reading; whether the connection was still open then."""
        reader = self._reader
        if reader is None:
            return not self.ws.closed
        reader.cancel()
        await asyncio.wait({reader})
        if not reader.cancelled():
            # Left in place, so that a connection found dead stays dead.
            return False
        self._reader = None
        return not self.ws.closed

    def _heard(self) -> bytes | None:
        """A mark that changes whenever anything comes from the peer.

        None once the peer has ended the connection, empty where the system cannot tell.
        """
        if self._options is None:
            return None if self.ws.get_extra_info("peername") is None else b""
        try:
            info = self._options(_TCP, _TCP_INFO, _INFO_SIZE)
        except OSError:
            # Closed, or no TCP.
            return None if self.ws.get_extra_info("peername") is None else b""
        if info[0] != _ESTABLISHED:
            return None
        return info[128:]

    def _note_end(self, reader: asyncio.Task[None]) -> None:
        if not reader.cancelled():
            # Looked at, so that it is not reported: a borrower who still reads causes one.
            reader.exception()
            self._on_end()


def _always(_: int) -> bool:
    return True
