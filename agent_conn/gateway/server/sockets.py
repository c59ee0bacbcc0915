"""The gateway's TCP sockets, each counted from its accept to its very close."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Protocol, cast

from agent_conn.gateway.faults.kinds import Fault

LINGER_AND_RESET = struct.pack("ii", 1, 0)


class Changes:
    """Wakes whoever waits for something in the gateway to become true."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Event] = set()

    def notify(self) -> None:
        """Have every waiter look again."""
        for event in self._waiters:
            event.set()

    async def wait_for(
        self, predicate: Callable[[], bool], timeout: float, describe: Callable[[], str]
    ) -> None:
        """Return once `predicate` is true.

        Raises:
            TimeoutError: it is still false after `timeout` seconds; the text is `describe()`.
        """
        event = asyncio.Event()
        self._waiters.add(event)
        try:
            async with asyncio.timeout(timeout):
                while not predicate():
                    event.clear()
                    await event.wait()
        except TimeoutError:
            raise TimeoutError(describe()) from None
        finally:
            self._waiters.discard(event)


class PeerSocket:
    """One accepted TCP connection and what is known of it; times are `loop.time()`."""

    def __init__(self, number: int, sock: socket.socket, peer: str, accepted_at: float) -> None:
        self.number = number
        self.sock = sock
        self.peer = peer
        self.accepted_at = accepted_at
        self.secured_at: float | None = None
        self.phase = "accepted"
        self.fault: Fault | None = None
        """The fault that it met before any request."""
        self.transport: asyncio.Transport | None = None
        self.closed: asyncio.Event = asyncio.Event()
        self._silence: asyncio.TimerHandle | None = None

    @property
    def host(self) -> str:
        """The peer's address without its port."""
        return self.peer.rpartition(":")[0]

    def expect_request(self, deadline: float) -> None:
        """Abort at `deadline` unless a request has come by then."""
        self._silence = asyncio.get_running_loop().call_at(deadline, self.abort)

    def stop_expecting(self) -> None:
        """A request has come, or none can come any more. Idempotent."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def __str__(self) -> str:
        return f"#{self.number} from {self.peer} ({self.phase})"

    def linger_off(self) -> None:
        """Have the coming close send a TCP RST."""
        if self.sock.fileno() != -1:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_AND_RESET)

    def reset(self) -> None:
        """Close at once with a TCP RST."""
        self.linger_off()
        self.abort()

    def abort(self) -> None:
        """Close at once, whatever is still to be sent."""
        if self.transport is not None:
            self.transport.abort()
        else:
            self.sock.close()


class SocketObserver(Protocol):
    """Watches the accept and the close of every socket."""

    def accepted(self, peer_socket: PeerSocket) -> None:
        """It was accepted."""

    def closed(self, peer_socket: PeerSocket) -> None:
        """It was closed. May come twice."""


class SocketTable:
    """Every accepted socket that is not closed yet."""

    def __init__(
        self,
        changes: Changes,
        request_timeout: float | None,
        observer: SocketObserver | None = None,
    ) -> None:
        self.accepted: int = 0
        self._request_timeout = request_timeout
        self._changes = changes
        self._observer = observer
        self._open: dict[int, PeerSocket] = {}
        self._by_transport: dict[asyncio.BaseTransport, PeerSocket] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[PeerSocket]:
        return iter(tuple(self._open.values()))

    def add(self, sock: socket.socket, peer: str, now: float) -> PeerSocket:
        """Count a socket that was just accepted."""
        self.accepted += 1
        entry = PeerSocket(self.accepted, sock, peer, now)
        self._open[entry.number] = entry
        if self._observer is not None:
            self._observer.accepted(entry)
        self._changes.notify()
        return entry

    def attach(self, entry: PeerSocket, transport: asyncio.Transport, now: float) -> None:
        """Note the transport that carries HTTP on the socket."""
        entry.transport = transport
        entry.secured_at = now
        entry.phase = "http"
        if self._request_timeout is not None:
            entry.expect_request(entry.accepted_at + self._request_timeout)
        self._by_transport[transport] = entry
        self._changes.notify()

    def of(self, transport: asyncio.BaseTransport | None) -> PeerSocket | None:
        """Return the socket that a transport runs on, None once it is closed."""
        return None if transport is None else self._by_transport.get(transport)

    def remove(self, entry: PeerSocket) -> None:
        """Note that the socket is closed. Idempotent."""
        entry.stop_expecting()
        if entry.transport is not None:
            self._by_transport.pop(entry.transport, None)
        self._open.pop(entry.number, None)
        entry.closed.set()
        if self._observer is not None:
            self._observer.closed(entry)
        self._changes.notify()

    def describe(self) -> str:
        """Name every open socket."""
        return ", ".join(map(str, self)) or "none"


class ObservedProtocol(asyncio.Protocol):
    """Hands everything on to the HTTP server's protocol and tells the table of both ends."""

    def __init__(self, inner: asyncio.Protocol, entry: PeerSocket, table: SocketTable) -> None:
        self._inner = inner
        self._entry = entry
        self._table = table

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Attach the transport to its socket's entry."""
        now = asyncio.get_running_loop().time()
        # A stream's transport is one whatever its class says: uvloop's plain one derives from none.
        self._table.attach(self._entry, cast("asyncio.Transport", transport), now)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the socket's entry; asyncio closes the socket in this same step."""
        self._inner.connection_lost(exc)
        self._table.remove(self._entry)

    def data_received(self, data: bytes) -> None:
        """Hand on."""
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand on."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Hand on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Hand on."""
        self._inner.resume_writing()
