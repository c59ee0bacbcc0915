"""The socket beneath aiohttp: how the death of its network and its peer's end are found."""

from __future__ import annotations

import asyncio
import select
import socket
from contextlib import suppress

_HUNG_UP = 0
if hasattr(select, "poll"):
    _HUNG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)

_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
_USER_TIMEOUT_SHARE = 0.8
"""Linux counts TCP_USER_TIMEOUT from a retransmission on, and so ends a connection later than it
says: over a line of 80 ms, 6.3 s after the network died with 5 s, and 5.2 s after it with 4 s."""
_KEEP_IDLE: int = getattr(socket, "TCP_KEEPIDLE", 0) or getattr(socket, "TCP_KEEPALIVE", 0)
"""The second is its name on macOS."""


def watch_network(transport: asyncio.BaseTransport, seconds: float) -> None:
    """Have the kernel end the connection where its network or host is gone for ``seconds``.

    Linux bounds what is unacknowledged by TCP_USER_TIMEOUT, and probes an idle connection from
    half of ``seconds`` on. macOS and Windows have the probes alone: there a write to a dead
    network lasts until the system's own retransmissions end.
    """
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    idle = max(1, round(seconds / 2))
    # OSError: the socket is not TCP, or the peer has hung up already, as the next read shows.
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, _KEEP_IDLE, idle)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        if _USER_TIMEOUT is None:
            probes = max(1, round(seconds) - idle)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)
        else:
            unacknowledged = round(seconds * _USER_TIMEOUT_SHARE * 1000)
            sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, unacknowledged)


def hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the end of the connection has reached this machine, read or not.

    Where the system has no ``poll``, only what the event loop has read is known.
    """
    if transport.is_closing():
        return True
    sock = transport.get_extra_info("socket")
    if not _HUNG_UP or sock is None or sock.fileno() < 0:
        return False
    poller = select.poll()
    poller.register(sock.fileno(), _HUNG_UP)
    return bool(poller.poll(0))


class Link:
    """The transport beneath one connection, with its socket, to be dropped at any time."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport: asyncio.Transport = transport
        self.errno: int | None = None
        """The system's number for how the connection ended, where it gave one."""
        # Taken now, since a closed TLS transport tells it no more.
        self._socket: socket.socket | None = transport.get_extra_info("socket")

    def is_behind(self) -> bool:
        """Whether something is still to be sent, so that a sender may be blocked."""
        # A TLS transport that is closed cannot be asked for its buffer.
        return not self.transport.is_closing() and self.transport.get_write_buffer_size() > 0

    def note_end(self, closed: asyncio.Future[None]) -> None:
        """Note why the connection ended, from the future that aiohttp sets at its end."""
        error = None if closed.cancelled() else closed.exception()
        cause = error and error.__cause__
        self.errno = cause.errno if isinstance(cause, OSError) else None

    def abort(self) -> None:
        """Drop the connection now, which frees whoever is blocked in sending on it.

        aiohttp's own close waits 30 s for a TLS peer's close_notify.
        """
        self.transport.abort()

    def shut_down(self) -> None:
        """Drop the connection, also where aiohttp has closed it twice.

        asyncio's TLS transport has then forgotten what to abort.
        """
        self.transport.abort()
        if self._socket is not None:
            # uvloop's sockets take no shutdown, and say so by a TypeError.
            with suppress(OSError, TypeError):
                self._socket.shutdown(socket.SHUT_RDWR)
