"""What is seen of an open websocket on behalf of the pump that has it, or will."""

from __future__ import annotations

import asyncio
from collections import deque

import aiohttp

_DATA = frozenset({aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY})
_MOST_KEPT = 64


class Witness:
    """Notes a websocket's first message, and reads in the place of a pump yet to come.

    It stands in for ``receive`` until it has given one message. From then on the websocket
    is aiohttp's own again, so that no later message pays for it.
    """

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.heard: bool = False
        """Whether the pump has got a message."""
        self._ws: aiohttp.ClientWebSocketResponse = ws
        self._receive = ws.receive
        self._kept: deque[aiohttp.WSMessage] = deque()
        self._reader: asyncio.Task[None] | None = None
        setattr(ws, "receive", self._receive_first)  # noqa: B010  (no method to a type checker)

    @property
    def alive(self) -> bool:
        """Whether nothing is known of an end. A peer's end shows here without a reader."""
        return not self._ws.closed and self._ws.get_extra_info("peername") is not None

    def park(self) -> asyncio.Task[None]:
        """Begin to read, so that pings are answered.

        The task ends with the websocket, or when the peer has said too much to keep.
        """
        self._reader = asyncio.create_task(self._read(), name="agent_conn.parked_reader")
        return self._reader

    async def unpark(self) -> None:
        """Stop reading. What was read goes to the pump first."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})

    def release(self) -> None:
        """Take no further part in the websocket."""
        vars(self._ws).pop("receive", None)

    async def _read(self) -> None:
        # The wait for a pump must not become a store of all that a peer says meanwhile.
        while len(self._kept) < _MOST_KEPT:
            message = await self._receive()
            self._kept.append(message)
            if message.type not in _DATA:
                return

    async def _receive_first(self, timeout: float | None = None) -> aiohttp.WSMessage:
        message: aiohttp.WSMessage
        message = self._kept.popleft() if self._kept else await self._receive(timeout)
        if message.type in _DATA:
            self.heard = True
            if not self._kept:
                self.release()
        return message
