"""A line between clients and a gateway that can be made to fail, in this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Self, cast

from agent_conn.gateway.server.listener import Listener
from agent_conn.gateway.server.sockets import LINGER_AND_RESET, Changes

HOST = "127.0.0.1"
WINDOW = 65_536
"""Bytes that a lost line takes from a sender before it blocks, as TCP's window would."""

Strike = Callable[["Passage"], None]


class FaultProxy:
    """Carries TCP between its clients and the gateway on ``port``, faults included.

    Each connection is a ``Passage``, which is struck by calling its methods. Its faults are
    the network's: the bytes themselves are never changed.
    """

    def __init__(self, gateway_port: int) -> None:
        self.accepted = 0
        self.passages: list[Passage] = []
        """Those that are open, the oldest first."""
        self.at_accept: Strike | None = None
        """Strikes the next connection, before a byte of it is carried."""
        self.at_first_bytes: Strike | None = None
        """Strikes the next connection when the client has spoken: its ClientHello is in."""
        self._gateway_port = gateway_port
        self._changes = Changes()
        self._openings: set[asyncio.Task[None]] = set()
        self._listener: Listener | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        for opening in self._openings:
            opening.cancel()
        if self._openings:
            await asyncio.wait(self._openings)
        for passage in tuple(self.passages):
            passage.abort()
        await self.wait_until(lambda: not self.passages, 1.0)

    def ignore_connects(self) -> None:
        """Leave SYNs unanswered."""
        if self._listener is not None:
            self._listener.stall()

    def answer_connects(self) -> None:
        """Answer SYNs again."""
        if self._listener is not None:
            self._listener.unstall()

    def refuse(self) -> None:
        """Listen no more, so that a connect is refused."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def heal(self) -> None:
        """Listen, answer and carry everything again; nothing is armed any more."""
        self.at_accept = self.at_first_bytes = None
        self.answer_connects()
        if self._listener is None:
            await self._listen()
        for passage in tuple(self.passages):
            passage.restore()

    async def until_clients_have_left(self, timeout: float) -> None:
        """Return once no client has a socket here; the gateway's ends are then closed too.

        Until then no client is told anything, so that none can end by being answered.

        Raises:
            TimeoutError: a client still has one after ``timeout`` seconds.
        """
        for passage in tuple(self.passages):
            passage.let_go()
        await self.wait_until(lambda: not self.passages, timeout)

    async def wait_until(self, predicate: Callable[[], bool], timeout: float = 5.0) -> None:
        """Return once ``predicate`` is true; it is asked again at every change on the line.

        Raises:
            TimeoutError: it is still false after ``timeout`` seconds.
        """
        await self._changes.wait_for(
            predicate, timeout, lambda: f"still false; passages: {self.passages}"
        )

    async def _listen(self) -> None:
        self._listener = await Listener.open(HOST, self.port, self._accept)
        self.port = self._listener.port

    def _accept(self, sock: socket.socket, _: str) -> None:
        self.accepted += 1
        strike, self.at_accept = self.at_accept, None
        passage = Passage(sock, self._note)
        self.passages.append(passage)
        if strike is not None:
            strike(passage)
        if not passage.closed:
            opening = asyncio.create_task(passage.open(self._gateway_port), name="proxy.open")
            self._openings.add(opening)
            opening.add_done_callback(self._openings.discard)
        self._note(passage)

    def _note(self, passage: Passage) -> None:
        """Something changed on ``passage``."""
        if passage.turns == 1 and self.at_first_bytes is not None:
            strike, self.at_first_bytes = self.at_first_bytes, None
            strike(passage)
        if passage.closed and passage in self.passages:
            self.passages.remove(passage)
        self._changes.notify()


class Passage:
    """One connection: the ``near`` end is the client's, the ``far`` end the gateway's."""

    def __init__(self, sock: socket.socket, note: Callable[[Passage], None]) -> None:
        self.near = End(self)
        self.far = End(self)
        self.turns = 0
        """How often the one who speaks has changed: 4 when TLS 1.3 has been agreed on."""
        self.closed = False
        self._sock = sock
        self._note = note
        self._spoke: End | None = None
        self._leaving = False

    def __repr__(self) -> str:
        return f"<Passage turns={self.turns} near={self.near} far={self.far}>"

    async def open(self, gateway_port: int) -> None:
        """Dial the gateway, then begin to read from the client."""
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.far, HOST, gateway_port)
            await loop.connect_accepted_socket(lambda: self.near, self._sock)
        except OSError:
            self.abort()

    @property
    def withholds(self) -> bool:
        """Whether a lost line has bytes that it has not delivered."""
        return bool(self.near.held or self.far.held)

    def lose(self) -> None:
        """Deliver nothing more in either direction. TCP would send it again: it is kept."""
        self.near.lost = self.far.lost = True

    def restore(self) -> None:
        """End a loss, a stall or a slowness, and deliver what was withheld."""
        for end in (self.near, self.far):
            end.lost, end.stalled, end.pace = False, False, None
            end.resume()
            end.forward()

    def stall(self) -> None:
        """Read nothing more from the client."""
        self.near.stall()

    def slow(self, interval: float, most: int | None = None) -> None:
        """Deliver every ``interval`` seconds, at most ``most`` bytes, in both directions."""
        self.near.pace = self.far.pace = (interval, most)

    def half_close(self) -> None:
        """Tell the client that the gateway has ended (FIN), and carry on what it sends."""
        near = self.near
        if near.transport is None or near.gone or near.transport.get_write_buffer_size():
            near.finish()
        elif not near.finished:
            near.finished = True
            # A transport of uvloop's would send it in the next turn.
            self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset the client's connection (RST), and drop the gateway's."""
        if self._sock.fileno() != -1:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_AND_RESET)
        self.abort()

    def abort(self) -> None:
        """Drop both ends."""
        if self.near.transport is None:
            self._sock.close()
        self.near.abort()
        self.far.abort()
        self.note()

    def let_go(self) -> None:
        """Deliver nothing more, throw away what comes, and close with the client."""
        self._leaving = True
        for end in (self.near, self.far):
            end.lost, end.stalled, end.thrown_away = True, False, True
            end.held.clear()
            end.resume()
        self.note()

    def heard(self, end: End) -> None:
        """``end`` has received something."""
        if end is not self._spoke:
            self._spoke = end
            self.turns += 1
            self._note(self)

    def note(self) -> None:
        """Something changed at an end."""
        near, far = self.near, self.far
        client_left = near.gone or (self._leaving and near.ended)
        if client_left and (self._leaving or not far.lost):
            near.abort()
            far.abort()
        elif near.ended and (far.ended or far.gone) and not self.withholds:
            near.close()
            far.close()
        elif far.gone and not (near.gone or near.lost):
            near.finish()
        self.closed = near.gone and far.gone
        self._note(self)

    def other(self, end: End) -> End:
        """The end at which what comes in at ``end`` leaves."""
        return self.far if end is self.near else self.near


class End(asyncio.Protocol):
    """One end of a passage: what comes in here leaves at the other end."""

    def __init__(self, passage: Passage) -> None:
        self.transport: asyncio.Transport | None = None
        self.gone = False
        self.ended = False
        """Whether its peer has sent a FIN."""
        self.finished = False
        """Whether its peer was sent one."""
        self.held = bytearray()
        self.lost = False
        self.stalled = False
        self.thrown_away = False
        self.pace: tuple[float, int | None] | None = None
        self._passage = passage
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"{'gone' if self.gone else 'open'}, {len(self.held)} B held"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's plain transport derives from none of asyncio's classes.
        self.transport = cast("asyncio.Transport", transport)
        if self.gone:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._passage.heard(self)
        if not self.thrown_away:
            self.held += data
            self.forward()
        self._passage.note()

    def eof_received(self) -> bool:
        self.ended = True
        self.forward()
        self._passage.note()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.gone = True
        self._passage.note()

    def pause_writing(self) -> None:
        self._passage.other(self).pause()

    def resume_writing(self) -> None:
        self._passage.other(self).resume()

    def stall(self) -> None:
        """Read nothing from the peer until told otherwise."""
        self.stalled = True
        self.pause()

    def pause(self) -> None:
        """Read nothing from the peer for now."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read from the peer again."""
        if self.transport is not None and not (self.gone or self.stalled):
            self.transport.resume_reading()

    def forward(self) -> None:
        """Deliver what came in, as the line allows."""
        if self.stalled:
            return
        if self.lost:
            if len(self.held) >= WINDOW:
                self.stall()
        elif self.pace is None:
            self._deliver(len(self.held))
        elif self._timer is None and self.held:
            self._timer = asyncio.get_running_loop().call_later(self.pace[0], self._tick)

    def finish(self) -> None:
        """Send a FIN to the peer."""
        if self.transport is not None and not (self.gone or self.finished):
            self.finished = True
            self.transport.write_eof()

    def close(self) -> None:
        """Close the connection to the peer once all is sent."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Drop the connection to the peer."""
        if self.transport is None:
            self.gone = True
        else:
            self.transport.abort()

    def _tick(self) -> None:
        self._timer = None
        if self.pace is not None and not (self.lost or self.stalled):
            self._deliver(self.pace[1] or len(self.held))
        self.forward()

    def _deliver(self, size: int) -> None:
        other = self._passage.other(self)
        if self.held and other.transport is not None and not (other.gone or other.finished):
            other.transport.write(bytes(self.held[:size]))
        del self.held[:size]
        if self.ended and not self.held:
            other.finish()
