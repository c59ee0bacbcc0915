"""One open websocket on the gateway's side: its messages, its counts and its misbehaviour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, Protocol

from aiohttp import WSMessage, WSMsgType, web

from agent_conn._identity import AttributionLevel
from agent_conn._usage import UsageMeter
from agent_conn.errors import ConfigurationError
from agent_conn.gateway.faults.checks import UNSENDABLE_CODES, check_close_code, check_reason
from agent_conn.gateway.faults.kinds import (
    AcceptAndClose,
    CloseWith,
    DropAfter,
    Fault,
    GoSilent,
    IdleTimeout,
    IgnoreClose,
    OpenFault,
    Reset,
    SessionLimit,
    StopReading,
    messages_before,
)
from agent_conn.gateway.server.handshakes import Handshake
from agent_conn.gateway.server.peers import peer_has_closed
from agent_conn.gateway.server.sockets import Changes, PeerSocket
from agent_conn.gateway.sessions.protocol import to_json

PEER_LOOK_INTERVAL = 0.02
NOISE = to_json({"type": "gateway.noise"})


class MessageWatcher(Protocol):
    """Is told of every message of a connection, and of what is done to it."""

    def received(self, data: str | bytes, size: int) -> None:
        """A message of `size` bytes came in."""

    def sent(self, data: str | bytes, size: int) -> None:
        """A message of `size` bytes went out."""

    def struck(self, fault: Fault) -> None:
        """A fault has begun."""


class Connection:
    """A live websocket connection; take it from `Gateway.connections`."""

    def __init__(
        self,
        ws: web.WebSocketResponse,
        transport: asyncio.Transport,
        peer_socket: PeerSocket,
        handshake: Handshake,
        changes: Changes,
        usage: UsageMeter,
        watcher: MessageWatcher | None = None,
    ) -> None:
        self.handshake = handshake
        self.messages_received: int = 0
        """Text and binary messages that came in."""
        self.messages_sent: int = 0
        """Text and binary messages that went out."""
        self.bytes_received: int = 0
        """Payload of what came in, in bytes; a text counts its UTF-8."""
        self.bytes_sent: int = 0
        """Payload of what went out, in bytes."""
        self._ws = ws
        self._transport = transport
        self._socket = peer_socket
        self._changes = changes
        self._usage = usage
        self._watcher = watcher
        self._armed: tuple[int, OpenFault] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._silent = False
        self._reading_stopped = False
        self._close_ignored = False
        self._close_sent: int | None = None
        self._heard = asyncio.Event()

    @property
    def path(self) -> str:
        """The path that was asked for."""
        return self.handshake.path

    @property
    def level(self) -> AttributionLevel:
        """How closely the caller is attributed."""
        return self.handshake.level

    @property
    def close_code(self) -> int | None:
        """The code of the first Close frame, from either side; None while it is open."""
        return self._ws.close_code if self._close_sent is None else self._close_sent

    @property
    def closed(self) -> bool:
        """Whether the TCP connection is closed."""
        return self._socket.closed.is_set()

    def inject(self, fault: Fault) -> None:
        """Have this connection misbehave, at once or after as many messages as it says.

        Raises:
            ConfigurationError: `fault` makes no sense for an open connection.
        """
        open_fault = as_open_fault(fault)
        if messages_before(open_fault) == 0:
            self._start(self._strike(open_fault), "strike")
        else:
            self._arm(open_fault)

    async def begin_with(self, fault: OpenFault) -> None:
        """Take up the fault that the connection was opened under."""
        if messages_before(fault) == 0:
            await self._strike(fault)
        else:
            self._arm(fault)

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Give the peer's messages until the connection ends, answering pings and Close."""
        while (message := await self.receive()) is not None:
            yield message

    async def receive(self) -> str | bytes | None:
        """Return the next text or binary message, None at the end."""
        while True:
            await self._strike_if_due()
            if self._reading_stopped:
                self._transport.pause_reading()
                await self._socket.closed.wait()
                return None
            message = await self._ws.receive()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                if self._reading_stopped:
                    continue
                self._count_received(message.data)
                if not self._silent:
                    data: str | bytes = message.data
                    return data
            elif message.type is WSMsgType.PING:
                if not self._silent and not self._reading_stopped:
                    await self._ws.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                await self._end(message)
                return None

    def count(self, *, audio_in: float = 0.0, characters: int = 0, audio_out: float = 0.0) -> None:
        """Count what the caller has used; audio in seconds."""
        self._usage.add(
            self.handshake.identity,
            audio_in=audio_in,
            characters=characters,
            audio_out=audio_out,
        )

    async def send_json(self, message: Mapping[str, Any]) -> bool:
        """Send a message as JSON text, unless the connection went silent; whether it was sent.

        Raises:
            ConnectionError: the peer is gone.
        """
        return await self.send(to_json(message))

    async def send(self, data: str | bytes) -> bool:
        """Send one text or binary message, unless the connection went silent; whether it was sent.

        Raises:
            ConnectionError: the peer is gone.
        """
        if self._silent:
            return False
        if isinstance(data, str):
            await self._ws.send_str(data)
        else:
            await self._ws.send_bytes(data)
        size = _payload_length(data)
        self.messages_sent += 1
        self.bytes_sent += size
        if self._watcher is not None:
            self._watcher.sent(data, size)
        return True

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with a Close frame, unless a fault keeps the connection open.

        Raises:
            ConfigurationError: `code` or `reason` cannot be sent.
        """
        check_close_code(code)
        check_reason(reason)
        if self._silent or self._close_ignored or self._reading_stopped:
            await self._socket.closed.wait()
        else:
            await self._send_close(code, reason.encode())

    async def going_away(self) -> None:
        """Send a Close frame with 1001 if the connection behaves; wait for no answer."""
        if self._silent or self._close_ignored or self._reading_stopped or self._ws.closed:
            return
        await self._send_close(1001, b"gateway closes")

    async def aclose(self) -> None:
        """End whatever a fault has going. Idempotent; leaves the socket to its owner."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _arm(self, fault: OpenFault) -> None:
        self._armed = (self.messages_received + messages_before(fault), fault)

    async def _strike_if_due(self) -> None:
        if self._armed is None or self.messages_received < self._armed[0]:
            return
        fault = self._armed[1]
        self._armed = None
        await self._strike(fault)

    async def _strike(self, fault: OpenFault) -> None:
        if self._watcher is not None:
            self._watcher.struck(fault)
        match fault:
            case Reset() | DropAfter(reset=True):
                self._socket.reset()
            case DropAfter():
                self._transport.close()
            case AcceptAndClose(code=code):
                await self._send_close(code, b"")
            case CloseWith(code=code, reason=reason):
                await self._send_close(code, reason.encode())
            case GoSilent():
                self._silent = True
            case StopReading():
                self._reading_stopped = True
                self._transport.pause_reading()
                self._start(self._abort_when_peer_closes(), "peer")
            case IgnoreClose(interval=interval):
                self._close_ignored = True
                self._start(self._send_noise(interval), "noise")
            case IdleTimeout() | SessionLimit():
                self._start(self._close_in_time(fault), "limit")

    async def _send_close(self, code: int, reason: bytes) -> None:
        # The answer to it may carry another code.
        if not self._ws.closed:
            self._close_sent = code
        await self._ws.close(code=code, message=reason)

    async def _end(self, message: WSMessage) -> None:
        if message.type is not WSMsgType.CLOSE:
            return
        if self._silent or self._close_ignored or self._reading_stopped:
            await self._socket.closed.wait()
            return
        code = message.data if message.data and message.data not in UNSENDABLE_CODES else 1000
        await self._ws.close(code=code, drain=False)

    async def _close_in_time(self, fault: IdleTimeout | SessionLimit) -> None:
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(fault.seconds) as limit:
                while True:
                    self._heard.clear()
                    await self._heard.wait()
                    if isinstance(fault, IdleTimeout):
                        limit.reschedule(clock() + fault.seconds)
        except TimeoutError:
            await self._send_close(fault.code, fault.reason.encode())

    async def _send_noise(self, interval: float) -> None:
        while not self._socket.closed.is_set():
            try:
                await self.send(NOISE)
            except ConnectionError:
                return
            await asyncio.sleep(interval)

    async def _abort_when_peer_closes(self) -> None:
        while not self._socket.closed.is_set():
            if await asyncio.to_thread(peer_has_closed, self._socket.sock):
                self._socket.abort()
                return
            await asyncio.sleep(PEER_LOOK_INTERVAL)

    def _start(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task: asyncio.Task[None] = asyncio.create_task(
            work, name=f"gateway-{what}-{self._socket.number}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count_received(self, data: str | bytes) -> None:
        size = _payload_length(data)
        self.messages_received += 1
        self.bytes_received += size
        self._heard.set()
        if self._watcher is not None:
            self._watcher.received(data, size)
        self._changes.notify()


def as_open_fault(fault: Fault) -> OpenFault:
    """Return `fault` if an open connection can have it.

    Raises:
        ConfigurationError: it cannot.
    """
    if isinstance(fault, Reset) and fault.phase != "open":
        raise ConfigurationError("fault: an open connection can only be reset with phase='open'")
    if not isinstance(fault, OpenFault):
        raise ConfigurationError(
            f"fault: {type(fault).__name__} makes no sense for an open connection"
        )
    return fault


def _payload_length(data: str | bytes) -> int:
    if isinstance(data, bytes):
        return len(data)
    return len(data) if data.isascii() else len(data.encode())
