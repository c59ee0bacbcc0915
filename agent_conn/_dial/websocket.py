"""The websocket that users get: aiohttp's own, which notes what arrives."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, Protocol

import aiohttp

MAX_KEPT = 64
"""Messages that a parked reader keeps for the pump that is to come."""

_DATA = frozenset({aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY})
_NO_CODE = 1005


class PeerClose(NamedTuple):
    """A Close frame as it came: 1005 stands for an empty one (RFC 6455, section 7.4.1)."""

    code: int
    reason: str


class MessageCounter(Protocol):
    """Is told of every text message of a websocket."""

    def sent(self, text: str) -> None:
        """It was sent."""

    def received(self, text: str) -> None:
        """The pump received it."""


class Arrivals:
    """Stands before aiohttp's queue of what arrived, and notes what is taken from it."""

    def __init__(self, queue: Any) -> None:  # noqa: ANN401  (a class of aiohttp's without a public name)
        self.last: float | None = None
        """When the last frame of any kind was taken, by the loop's clock."""
        self.waiting_since: float | None = None
        """Since when a reader waits for the next frame, or None where none waits."""
        self.close: PeerClose | None = None
        """The peer's Close."""
        self.broken: aiohttp.WebSocketError | None = None
        """Why this side closed over what the peer sent."""
        self.ended: bool = False
        """Whether the connection has ended, with or without a Close."""
        self.deadline: float | None = None
        """When reading ends with ``TimeoutError``, by the loop's clock, whatever still comes."""
        self._queue = queue
        self._time = asyncio.get_running_loop().time

    async def read(self) -> aiohttp.WSMessage:
        """The next frame."""
        self.waiting_since = self._time()
        try:
            message = await (self._queue.read() if self.deadline is None else self._read_in_time())
        except aiohttp.WebSocketError as error:
            self.broken = error
            raise
        except TimeoutError:
            raise
        except Exception:
            self.ended = True
            raise
        finally:
            self.waiting_since = None
        if message.type is aiohttp.WSMsgType.CLOSE:
            # With the 0 that stands for no code, aiohttp would wait for a second Close.
            if not message.data:
                message = message._replace(data=_NO_CODE)
            self.close = PeerClose(int(message.data), message.extra or "")
        elif message.type is aiohttp.WSMsgType.CLOSING:
            return message
        self.last = self._time()
        return message

    async def _read_in_time(self) -> aiohttp.WSMessage:
        assert self.deadline is not None
        if self._time() >= self.deadline:
            # What has come already is taken without a turn of the event loop, and a timeout.
            raise TimeoutError
        async with asyncio.timeout_at(self.deadline):
            return await self._queue.read()  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """What else aiohttp asks of its queue."""
        return getattr(self._queue, name)


class InferenceWebSocket(aiohttp.ClientWebSocketResponse):
    """aiohttp's websocket, which knows what arrived and can be read before its pump comes."""

    # Beside aiohttp's own attributes, which with these would be too many for Python's compact form.
    __slots__ = ("_kept", "_parked", "arrivals", "close_timeout", "counter", "last_sent")

    def __init__(self, reader: Any, *args: Any, **options: Any) -> None:  # noqa: ANN401
        self.arrivals: Arrivals = Arrivals(reader)
        self.last_sent: float | None = None
        """When the last message was sent, or begun to be, by the loop's clock."""
        self.close_timeout: float | None = None
        """Seconds for a close, whatever the peer says meanwhile."""
        self.counter: MessageCounter | None = None
        """Who counts the messages."""
        self._kept: list[aiohttp.WSMessage] = []
        self._parked: asyncio.Task[None] | None = None
        super().__init__(self.arrivals, *args, **options)  # type: ignore[arg-type]

    async def receive(self, timeout: float | None = None) -> aiohttp.WSMessage:
        """The next message: what a parked reader kept comes first."""
        message = self._kept.pop(0) if self._kept else await super().receive(timeout)
        if self.counter is not None and message.type is aiohttp.WSMsgType.TEXT:
            self.counter.received(message.data)
        return message

    async def send_str(self, data: str, compress: int | None = None) -> None:
        """Send a text message."""
        self.last_sent = asyncio.get_running_loop().time()
        await super().send_str(data, compress)
        if self.counter is not None:
            self.counter.sent(data)

    async def send_bytes(self, data: bytes, compress: int | None = None) -> None:
        """Send a binary message."""
        self.last_sent = asyncio.get_running_loop().time()
        await super().send_bytes(data, compress)

    async def close(self, *, code: int = 1000, message: bytes = b"") -> bool:
        """Close, within ``close_timeout``."""
        if self.close_timeout is not None and self.arrivals.deadline is None:
            self.arrivals.deadline = asyncio.get_running_loop().time() + self.close_timeout
        return await super().close(code=code, message=message)

    def park(self) -> asyncio.Task[None]:
        """Read, so that pings are answered and an end is noticed, until ``unpark``.

        The task ends with the websocket, or when the peer has said too much to keep.
        """
        self._parked = asyncio.create_task(self._read_ahead(), name="agent_conn.parked_reader")
        return self._parked

    async def unpark(self) -> None:
        """Stop reading. What was read is received first."""
        if self._parked is not None:
            self._parked.cancel()
            await asyncio.wait({self._parked})
            self._parked = None

    async def _read_ahead(self) -> None:
        while len(self._kept) < MAX_KEPT:
            message = await super().receive()
            self._kept.append(message)
            if message.type not in _DATA:
                return
