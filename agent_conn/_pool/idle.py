"""One open connection of a pool: read while it is idle, and looked at before it is lent."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

import aiohttp

from agent_conn._connection import InferenceConnection
from agent_conn._pool.reader import IdleReader

LOOKS = 4
"""Times that a peer which goes on sending is looked at before it is taken to be alive."""

_GONE = 0
if hasattr(select, "poll"):
    _GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
_ARRIVAL = 0
if hasattr(select, "epoll"):
    _ARRIVAL = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
# Where the system cannot tell, anything might have come.
_ANYTHING = [(-1, 0)]


class WarmConnection:
    """An open connection, whose life can be told without a round trip.

    While it is idle the event loop watches it through an epoll of its own, and it is read as
    soon as something comes. To be lent it then need not be stopped from reading, which costs as
    much as all the rest. Where there is no epoll it is read all the time.

    Args:
        connection: open.
        on_end: called where it ends, or has said too much, while it is idle.
    """

    __slots__ = ("_arrivals", "_fileno", "_poller", "_quiet", "connection", "lent", "reader", "ws")

    def __init__(self, connection: InferenceConnection, on_end: Callable[[], object]) -> None:
        self.connection: InferenceConnection = connection
        self.ws: aiohttp.ClientWebSocketResponse = connection.ws
        self.reader: IdleReader = IdleReader(self.ws, on_end)
        self.lent: bool = False
        """Whether it is somebody else's to read, for its owner to say."""
        self._quiet = False
        """Whether nothing has come since all that had come was read."""
        sock = self.ws.get_extra_info("socket")
        self._fileno: int = -1 if sock is None else sock.fileno()
        self._poller: select.poll | None = None
        self._arrivals: select.epoll | None = None
        if _GONE and self._fileno >= 0:
            self._poller = select.poll()
            self._poller.register(self._fileno, select.POLLIN | _GONE)
        if _ARRIVAL and self._fileno >= 0:
            self._arrivals = select.epoll()
            self._arrivals.register(self._fileno, 0)
            asyncio.get_running_loop().add_reader(self._arrivals.fileno(), self._note_arrival)

    def is_quiet(self) -> bool:
        """Whether it is open and nothing has come that is not read. Costs half a microsecond.

        False says only that ``look`` has to.
        """
        if not self._quiet or self._arrivals is None:
            return False
        # What the event loop has read is noted by now. This is what it has not.
        self._quiet = not (
            self._arrivals.poll(0, 1) or self.ws.closed or self.connection.is_closing()
        )
        return self._quiet

    def look(self) -> bool | None:
        """Whether it is open, for all that has reached this machine. If so, nobody reads it.

        None: something has come that the event loop has yet to read.
        """
        reader = self.reader
        reader.start()
        if not reader.catch_up() or self.connection.is_closing():
            return False
        for _, events in _ANYTHING if self._poller is None else self._poller.poll(0):
            return False if events & _GONE else None
        reader.stop()
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

    def settle(self) -> None:
        """Read what has come, and from now on whatever comes, until somebody borrows it."""
        if self._quiet or self.lent or self.reader.ended:
            return
        self.reader.start()
        if self._arrivals is None or not self.reader.catch_up() or self.connection.is_closing():
            return
        self._watch(_ARRIVAL)
        if self._arrivals.poll(0, 1):
            # The loop may read this before it looks for arrivals again, and find none.
            asyncio.get_running_loop().call_soon(self.settle)
        else:
            self.reader.stop()
            self._quiet = True

    async def aclose(self) -> None:
        """End the reading, then close the connection within its ``close_timeout``."""
        self.lent, self._quiet = True, False
        self._stop_reading()
        if self._arrivals is not None:
            asyncio.get_running_loop().remove_reader(self._arrivals.fileno())
            self._arrivals.close()
            self._arrivals = None
        await self.connection.aclose()

    def _note_arrival(self) -> None:
        self._quiet = False
        if self._arrivals is not None:
            self._arrivals.poll(0, 1)
        if self.lent:
            # It is its borrower's to read, and told no more until it is idle again.
            self._watch(0)
        else:
            self.settle()

    def _watch(self, events: int) -> None:
        if self._arrivals is not None:
            try:
                self._arrivals.modify(self._fileno, events)
            except OSError:
                # Closed, which reading it tells.
                return

    def _stop_reading(self) -> bool:
        waits = self.reader.catch_up()
        self.reader.stop()
        return waits
