"""The listening socket: accepts, or leaves connects unanswered."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable

# Those of thousands that dial at once and find no place dial again after 1 s, 3 s, 7 s, ...
BACKLOG = 4096
ACCEPTS_PER_WAKE = 64
EXHAUSTED_PAUSE = 0.2
MAX_FILLERS = 64

log: logging.Logger = logging.getLogger("agent_conn.gateway")


class Listener:
    """Accepts TCP connections on the running loop and hands over each, non-blocking."""

    def __init__(
        self, sock: socket.socket, on_accept: Callable[[socket.socket, str], None]
    ) -> None:
        self._sock = sock
        self._on_accept = on_accept
        self._fillers: dict[str, socket.socket] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._accepting = False

    @classmethod
    async def open(
        cls, host: str, port: int, on_accept: Callable[[socket.socket, str], None]
    ) -> Listener:
        """Listen on `host` and `port`, 0 for a free one.

        Raises:
            OSError: the address cannot be resolved or bound.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        listener = cls(sock, on_accept)
        listener._resume()
        return listener

    @property
    def port(self) -> int:
        """The port that is listened on."""
        port: int = self._sock.getsockname()[1]
        return port

    def stall(self) -> None:
        """Leave coming connects unanswered: fill the backlog and accept no more. Idempotent."""
        if self._fillers:
            return
        self._pause()
        self._sock.listen(0)
        # A connect to oneself completes at once; the first that does not finds the queue full.
        for _ in range(MAX_FILLERS):
            filler = socket.socket(self._sock.family, socket.SOCK_STREAM)
            filler.settimeout(0)
            filler.connect_ex(self._own_address())
            try:
                filler.getpeername()
            except OSError:
                filler.close()
                return
            self._fillers[_format(filler.getsockname())] = filler

    def unstall(self) -> None:
        """Answer connects again, those that are still retried included. Idempotent."""
        if not self._fillers:
            return
        for filler in self._fillers.values():
            filler.close()
        self._sock.listen(BACKLOG)
        self._resume()

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._pause()
        for filler in self._fillers.values():
            filler.close()
        self._fillers.clear()
        self._sock.close()

    def _own_address(self) -> tuple[object, ...]:
        host, *rest = self._sock.getsockname()
        return (connectable(host), *rest)

    def _resume(self) -> None:
        self._timer = None
        self._accepting = True
        asyncio.get_running_loop().add_reader(self._sock.fileno(), self._accept)

    def _pause(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._accepting:
            self._accepting = False
            asyncio.get_running_loop().remove_reader(self._sock.fileno())

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as failure:
                self._wait_for_descriptors(failure)
                return
            sock.settimeout(0)
            peer = _format(address)
            if self._fillers.pop(peer, None) is not None:
                sock.close()
                continue
            self._on_accept(sock, peer)
            if not self._accepting:
                return

    def _wait_for_descriptors(self, failure: OSError) -> None:
        code = errno.errorcode.get(failure.errno or 0, "unknown")
        log.warning("gateway.accept_failed: %s", code, extra={"error": code})
        # The pending connect keeps the socket readable: without a pause the loop would spin.
        self._pause()
        self._timer = asyncio.get_running_loop().call_later(EXHAUSTED_PAUSE, self._resume)


def connectable(host: str) -> str:
    """Return the address to connect to where `host` is listened on; it may mean any address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or "localhost"
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _format(address: tuple[object, ...]) -> str:
    return f"{address[0]}:{address[1]}"
