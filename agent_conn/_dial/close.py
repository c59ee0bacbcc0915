"""Close a websocket within a bound, whatever its peer does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp

from agent_conn._lifecycle import Ending
from agent_conn.errors import ConnectionLost

_NO_CLOSE_FRAME = frozenset({None, 0, 1005, 1006})
"""aiohttp's close codes for an end without a (readable) Close frame."""

_BROKEN = frozenset({1002, 1007, 1009})
"""Codes of a peer's Close, and of aiohttp's own where it cannot take what the peer sent."""


class OpenWebSocket:
    """An open websocket with what is needed to end it: its response and its transport."""

    def __init__(
        self,
        ws: aiohttp.ClientWebSocketResponse,
        response: aiohttp.ClientResponse,
        transport: asyncio.Transport,
    ) -> None:
        self.ws = ws
        self._response = response
        self._transport = transport
        self.is_closing: Callable[[], bool] = transport.is_closing
        """Whether the transport is closed or about to be, which ``ws`` tells turns later."""

    async def close(self, timeout: float) -> Ending:
        """Close with code 1000; after ``timeout`` seconds abort. Returns how it ended.

        Cancelled, it aborts at once.
        """
        if self.ws.closed:
            await self.abort()
            return _ending_of(self.ws.close_code)
        # In a task of its own, since cancelling ws.close() would, in aiohttp 3.14, cancel
        # every other task that is blocked in a send on this websocket.
        # A cancelled receive() has left a code on a websocket that is open, and then aiohttp
        # sends the Close without waiting for the answer.
        unanswered = self.ws.close_code is not None
        closing = asyncio.create_task(self.ws.close(), name="agent_conn.close")
        try:
            finished, _ = await asyncio.wait({closing}, timeout=timeout)
        finally:
            # Also after a clean close: asyncio waits 30 s for a TLS peer's close_notify.
            self._transport.abort()
            self._response.close()
            await asyncio.wait({closing})
        if not finished:
            return Ending.ABORTED
        code = self.ws.close_code
        if code == aiohttp.WSCloseCode.OK or (unanswered and self.ws.exception() is None):
            return Ending.CLOSED_HERE
        return _ending_of(code)

    def loss(self, ended: Ending | None) -> ConnectionLost | None:
        """The loss of this websocket, if it was lost; ``ended`` is what ``close`` returned."""
        if ended is None and self.ws.closed:
            ended = _ending_of(self.ws.close_code)
        code = int(self.ws.close_code or aiohttp.WSCloseCode.ABNORMAL_CLOSURE)
        if ended is Ending.LOST:
            silent = isinstance(self.ws.exception(), aiohttp.ServerTimeoutError)
            reason = "no pong within the heartbeat" if silent else "no Close frame"
        elif ended is Ending.CLOSED_BY_PEER and code != aiohttp.WSCloseCode.OK:
            reason = "closed over what was sent" if code in _BROKEN else "closed by the peer"
        else:
            return None
        message = f"connection lost with code {code}: {reason}"
        return ConnectionLost(message, code=code, reason=reason)

    async def abort(self) -> None:
        """Drop the connection now, without a Close frame. Frees blocked senders."""
        self._transport.abort()
        self._response.close()
        # Ends the heartbeat; it does not wait for the peer, the transport being gone.
        await self.ws.close()


def _ending_of(code: int | None) -> Ending:
    return Ending.LOST if code in _NO_CLOSE_FRAME else Ending.CLOSED_BY_PEER
