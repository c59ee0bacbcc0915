"""Carries each accepted TCP connection to the HTTP server, or into a fault before it."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from agent_conn.gateway.faults.kinds import Fault, Reset, Stage, StallAtTLS
from agent_conn.gateway.faults.plan import FaultPlan
from agent_conn.gateway.server.sockets import ObservedProtocol, PeerSocket, SocketTable

READ_BYTES = 65_536
TLS_SHUTDOWN_SECONDS = 0.5
# A transport closes within a few steps of the loop once its handshake has failed.
CLOSING_STEPS = 50

log: logging.Logger = logging.getLogger("agent_conn.gateway")


class Acceptor:
    """Owns every accepted socket until the HTTP server's transport has it."""

    def __init__(
        self,
        sockets: SocketTable,
        plan: FaultPlan,
        make_protocol: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
        request_timeout: float | None,
    ) -> None:
        self._sockets = sockets
        self._plan = plan
        self._make_protocol = make_protocol
        self._context = context
        self._request_timeout = request_timeout
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, sock: socket.socket, peer: str) -> None:
        """Take over a socket that was just accepted."""
        entry = self._sockets.add(sock, peer, asyncio.get_running_loop().time())
        fault = entry.fault = self._plan.take(Stage.ACCEPT)
        if isinstance(fault, Reset) and fault.phase == "accept":
            entry.reset()
            self._sockets.remove(entry)
            return
        task = asyncio.create_task(self._carry(entry, fault), name=f"gateway-socket-{entry.number}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Abort every socket, and wait until the tasks that carry them have ended."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        for entry in self._sockets:
            if entry.transport is not None:
                entry.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        for entry in self._sockets:
            if entry.transport is None:
                # Its task was cancelled before its first step, so that nobody closed it.
                entry.sock.close()
                self._sockets.remove(entry)

    async def _carry(self, entry: PeerSocket, fault: Fault | None) -> None:
        if isinstance(fault, StallAtTLS):
            entry.phase = "stalled before TLS"
            await self._read_raw(entry, until_end=True)
        elif isinstance(fault, Reset):
            await self._read_raw(entry, until_end=False)
        else:
            await self._serve(entry)

    async def _read_raw(self, entry: PeerSocket, *, until_end: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            while await loop.sock_recv(entry.sock, READ_BYTES) and until_end:
                pass
        except OSError:
            # The peer reset it first.
            return
        finally:
            if not until_end:
                entry.linger_off()
            entry.sock.close()
            self._sockets.remove(entry)

    async def _serve(self, entry: PeerSocket) -> None:
        loop = asyncio.get_running_loop()
        entry.phase = "tls" if self._context else "http"
        try:
            await loop.connect_accepted_socket(
                lambda: ObservedProtocol(self._make_protocol(), entry, self._sockets),
                entry.sock,
                ssl=self._context,
                ssl_handshake_timeout=self._request_timeout if self._context else None,
                ssl_shutdown_timeout=TLS_SHUTDOWN_SECONDS if self._context else None,
            )
        except OSError as failure:
            kind = type(failure).__name__
            extra = {"socket": entry.number, "error": kind}
            log.debug("gateway.tls_failed: socket %d, %s", entry.number, kind, extra=extra)
        finally:
            if entry.transport is None:
                await self._until_closed(entry)

    async def _until_closed(self, entry: PeerSocket) -> None:
        for _ in range(CLOSING_STEPS):
            if entry.sock.fileno() == -1:
                break
            await asyncio.sleep(0)
        self._sockets.remove(entry)
