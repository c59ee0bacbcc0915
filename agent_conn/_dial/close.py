"""An open websocket's end: the close from this side within a bound, and the verdict on it."""

from __future__ import annotations

import asyncio
import errno
from contextlib import suppress

import aiohttp

from agent_conn._dial.heartbeat import Heartbeat
from agent_conn._dial.network import Link
from agent_conn._dial.translate import one_line
from agent_conn._dial.websocket import Arrivals, InferenceWebSocket, PeerClose
from agent_conn._lifecycle import Ending
from agent_conn._secrets import Secrets
from agent_conn.errors import ConnectionLost

_OK = int(aiohttp.WSCloseCode.OK)
_LOST = int(aiohttp.WSCloseCode.ABNORMAL_CLOSURE)
_ANSWERS = frozenset({_OK, 1005})
"""Codes of a peer that answers a Close of ours, with the same code or with none."""


class OpenWebSocket:
    """An open websocket with what is needed to end it and to say how it ended.

    Args:
        ws: open.
        response: the 101 that opened it.
        secrets: what was sent, which the peer's last words may repeat.
        heartbeat: seconds between pings, or None.
        close_timeout: seconds for a close.
    """

    def __init__(
        self,
        ws: aiohttp.ClientWebSocketResponse,
        response: aiohttp.ClientResponse,
        link: Link,
        secrets: Secrets,
        *,
        heartbeat: float | None,
        close_timeout: float,
    ) -> None:
        self.ws = ws
        self._response = response
        connection = response.connection
        protocol = None if connection is None else connection.protocol
        closed = None if protocol is None else protocol.closed
        if closed is not None:
            # The websocket itself learns only that the connection ended.
            closed.add_done_callback(link.note_end)
        self._link = link
        self._secrets = secrets
        # An aiohttp that makes websockets of its own class is heard by what it says alone.
        self._arrivals = ws.arrivals if isinstance(ws, InferenceWebSocket) else Arrivals(None)
        if isinstance(ws, InferenceWebSocket):
            ws.close_timeout = close_timeout
        self._close_timeout = close_timeout
        self._heartbeat = Heartbeat(ws, self._arrivals, link, heartbeat)
        self._ended: Ending | None = None

    def is_closing(self) -> bool:
        """Whether the transport is closed or about to be, which ``ws`` tells turns later."""
        return self._link.transport.is_closing()

    @property
    def close_code(self) -> int:
        """The code of the peer's Close, or of the one that answered invalid data.

        1000 where this side closed first, 1006 where no Close came.
        """
        if self._arrivals.close is not None:
            return self._arrivals.close.code
        if self._arrivals.broken is not None:
            return self._arrivals.broken.code
        return _OK if self._ended is Ending.CLOSED_HERE else _LOST

    @property
    def close_reason(self) -> str:
        """The text of the peer's Close; empty where it repeats a secret."""
        peer = self._arrivals.close
        return self._secrets.shown(peer.reason) if peer is not None and peer.reason else ""

    async def close(self) -> Ending:
        """Close with code 1000; after ``close_timeout`` seconds abort. Returns how it ended.

        Cancelled, it aborts at once.
        """
        self._heartbeat.stop()
        before, in_time = self._arrivals.close, True
        try:
            if self._link.transport.is_closing():
                await self._read_what_is_left()
                before = before or self._arrivals.close
            if self._link.is_behind() or not isinstance(self.ws, InferenceWebSocket):
                in_time = await self._close_beside_senders()
            else:
                await self.ws.close()
        finally:
            # Also after a clean close: asyncio waits 30 s for a TLS peer's close_notify.
            self._drop()
        self._ended = self._verdict(before, in_time=in_time)
        return self._ended

    def loss(self) -> ConnectionLost | None:
        """The loss of this websocket, if it was lost; None while it is open."""
        if self._ended is None and not self.ws.closed:
            return None
        if self._ended in {Ending.CLOSED_HERE, Ending.ABORTED}:
            return None
        peer, broken = self._arrivals.close, self._arrivals.broken
        if peer is not None:
            if peer.code == _OK:
                return None
            reason = one_line(self.close_reason)
            told = f"the peer closed with code {peer.code}" + (f": {reason}" if reason else "")
            if peer.reason and not reason:
                told += " (its reason is withheld, since it repeats a secret that was sent)"
            return ConnectionLost(told, code=peer.code, reason=self.close_reason)
        if broken is not None:
            reason = self._over_what(broken)
            return ConnectionLost(
                f"closed with code {broken.code} over what the peer sent: {reason}",
                code=broken.code,
                reason=reason,
            )
        reason = self._silence()
        return ConnectionLost(f"connection lost: {reason}", code=_LOST, reason=reason)

    async def abort(self) -> None:
        """Drop the connection now, without a Close frame. Frees blocked senders."""
        self._heartbeat.stop()
        self._drop()
        # Ends what aiohttp has running for it; it does not wait for the peer.
        await self.ws.close()

    def _drop(self) -> None:
        self._link.abort()
        self._response.close()

    async def _read_what_is_left(self) -> None:
        """Read up to the peer's Close where the connection has ended with nobody reading it.

        aiohttp's close could not answer there, and would call it lost.
        """
        arrivals = self._arrivals
        arrivals.deadline = asyncio.get_running_loop().time() + self._close_timeout
        with suppress(TimeoutError):
            while not self.ws.closed and arrivals.close is None and arrivals.waiting_since is None:
                message = await self.ws.receive()
                if message.type not in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}:
                    return

    async def _close_beside_senders(self) -> bool:
        """Close where somebody may be blocked in a send; whether that was done in time.

        It takes a task, since cancelling ``ws.close()`` would, in aiohttp 3.14, cancel every
        other task that is blocked in one.
        """
        closing = asyncio.create_task(self.ws.close(), name="agent_conn.close")
        try:
            done, _ = await asyncio.wait({closing}, timeout=self._close_timeout)
        finally:
            self._drop()
            await asyncio.wait({closing})
        return bool(done)

    def _verdict(self, before: PeerClose | None, *, in_time: bool) -> Ending:
        peer = self._arrivals.close
        if before is not None or self._arrivals.broken is not None:
            return Ending.CLOSED_BY_PEER
        if peer is not None:
            return Ending.CLOSED_HERE if peer.code in _ANSWERS else Ending.CLOSED_BY_PEER
        if not in_time or isinstance(self.ws.exception(), TimeoutError):
            return Ending.ABORTED
        # A cancelled receive() has left a code, and then aiohttp waits for no answer.
        unanswered = self.ws.close_code == _LOST and self.ws.exception() is None
        if unanswered and not self._arrivals.ended:
            return Ending.CLOSED_HERE
        return Ending.LOST

    def _over_what(self, broken: aiohttp.WebSocketError) -> str:
        text = one_line(str(broken))
        too_big = broken.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        return f"{text} (max_msg_size)" if too_big else text

    def _silence(self) -> str:
        if self._heartbeat.failed:
            return "no pong within the heartbeat"
        if self._link.errno in {errno.ETIMEDOUT, errno.EHOSTUNREACH}:
            return "the network was dead for network_timeout"
        return "no Close frame came"
