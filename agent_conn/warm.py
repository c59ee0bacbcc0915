"""One open connection of a pool: read while it is idle, and looked at before it is lent."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

import aiohttp

from agent_conn.connection import InferenceConnection
from agent_conn.idle_reader import IdleReader

LOOKS = 4
"""Times that a peer which goes on sending is looked at before it is taken to be alive."""

_GONE = 0
if hasattr(select, "poll"):
    _GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
_ARRIVAL = 0
if hasattr(select, "epoll"):
    # An edge is told for whatever the socket is ready for by then. What has come may have been
    # read since, but it can be written to.
    _ARRIVAL = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLOUT | select.EPOLLET
# Where the system cannot tell, anything might have come.
_ANYTHING = [(-1, 0)]


class WarmConnection:
    """An open connection, whose life can be told without a round trip.

    Args:
        connection: open.
        on_end: called where it ends, or has said too much, while it is read here.
    """

    __slots__ = (
        "_arrivals",
        "_fileno",
        "_poller",
        "_unread",
        "connection",
        "hurried",
        "reader",
        "ws",
    )

    def __init__(self, connection: InferenceConnection, on_end: Callable[[], object]) -> None:
        self.connection: InferenceConnection = connection
        self.ws: aiohttp.ClientWebSocketResponse = connection.ws
        self.reader: IdleReader = IdleReader(self.ws, on_end)
        self.hurried: bool = False
        """Whether it was idle for a moment only when it was last lent, for its owner to keep."""
        self._arrivals: select.epoll | None = None
        self._unread = False
        """Whether nobody has read it since it was found alive, and ``_arrivals`` asked."""
        sock = self.ws.get_extra_info("socket")
        self._fileno: int = -1 if sock is None else sock.fileno()
        self._poller: select.poll | None = None
        if _GONE and self._fileno >= 0:
            self._poller = select.poll()
            self._poller.register(self._fileno, select.POLLIN | _GONE)

    def unchanged(self) -> bool:
        """Whether nothing at all has come since ``look`` was to remember. Costs half a microsecond.

        False says only that ``look`` has to.
        """
        if not self._unread or self._arrivals is None:
            return False
        # A socket that is closed here has no arrivals.
        self._unread = not (
            self._arrivals.poll(0, 1) or self.ws.closed or self.connection.is_closing()
        )
        return self._unread

    def look(self, *, remember: bool = False) -> bool | None:
        """Whether it is open, for all that has reached this machine. If so, nobody reads it.

        None: something has come that the event loop has yet to read. With ``remember``,
        ``unchanged`` may tell the next time.
        """
        if remember:
            self._forget_arrivals()
        reader = self.reader
        reader.start()
        if not reader.catch_up() or self.connection.is_closing():
            return False
        # What the event loop has read is known by now. This is what it has not.
        for _, events in _ANYTHING if self._poller is None else self._poller.poll(0):
            return False if events & _GONE else None
        reader.stop()
        self._unread = remember
        return True

    async def is_alive(self) -> bool:
        """What ``look`` tells, with as many turns of the event loop as it takes."""
        for _ in range(LOOKS):
            alive = self.look()
            if alive is not None:
                return alive
            # In the first turn this task comes before the socket, in the second after it.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return self._stop_reading()

    def park(self) -> None:
        """Read until somebody borrows it. Does nothing where it is being read, or has ended."""
        self._unread = False
        self.reader.start()

    async def aclose(self) -> None:
        """End the reading, then close the connection within its ``close_timeout``."""
        self._stop_reading()
        if self._arrivals is not None:
            self._arrivals.close()
            self._arrivals = None
        await self.connection.aclose()

    def _stop_reading(self) -> bool:
        waits = self.reader.catch_up()
        self.reader.stop()
        return waits

    def _forget_arrivals(self) -> None:
        if self._arrivals is not None:
            self._arrivals.poll(0, 1)
        elif _ARRIVAL and self._fileno >= 0 and not self.connection.is_closing():
            self._arrivals = select.epoll()
            self._arrivals.register(self._fileno, _ARRIVAL)
            self._arrivals.poll(0, 1)
